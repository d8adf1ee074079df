//! The pod of a restore drill, and what it says when it has ended.

use crds::destination::Lineage;
use crds::names::annotation;
use crds::status::{Drill, LogId, Restored};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use super::Life;
use super::objects::life;

#[derive(Clone, Debug, PartialEq)]
pub struct DrillPod {
    pub uid: String,
    pub life: Life,
    /// The destination that it reads, in short.
    pub about: String,
    /// Absent while it runs. The parent is for whoever knows what was ordered to say.
    pub end: Option<Drill>,
}

/// What the program writes for the kubelet to show.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Drilled(Drilled),
    Problem(String),
}

#[derive(Deserialize)]
struct Drilled {
    restorable: Facts,
    compared: Option<String>,
}

#[derive(Deserialize)]
struct Facts {
    backup: String,
    log_id: LogId,
    wall_time_ms: i64,
    state_hash: String,
    tasks: i64,
}

pub fn drill(pod: &core::Pod) -> Option<DrillPod> {
    let meta = &pod.metadata;
    let status = pod.status.clone().unwrap_or_default();
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let about = meta.annotations.as_ref()?.get(annotation::DESTINATION)?;
    Some(DrillPod {
        uid: meta.uid.clone()?,
        life: life(meta),
        about: about.clone(),
        end: has_ended.then(|| end(meta.creation_timestamp.as_ref(), &status)),
    })
}

fn end(created: Option<&Time>, status: &core::PodStatus) -> Drill {
    let mut containers = status.container_statuses.iter().flatten();
    let ended = containers.find_map(|known| known.state.as_ref()?.terminated.as_ref());
    let at = ended
        .and_then(|ended| ended.finished_at.as_ref())
        .or(created);
    let message = ended.and_then(|ended| ended.message.as_deref());
    let report = message.and_then(|message| serde_json::from_str(message).ok());
    let drill = Drill {
        ended_at: at.cloned().unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        problem: None,
        restorable: None,
        compared: None,
    };
    match report {
        Some(Report::Drilled(drilled)) => Drill {
            restorable: Some(restored(drilled.restorable)),
            compared: drilled.compared,
            ..drill
        },
        Some(Report::Problem(words)) => Drill {
            problem: Some(words),
            ..drill
        },
        // It was killed: the node's reason, or the container's.
        None => {
            let reason = ended.and_then(|ended| ended.reason.as_deref());
            let reason = reason.or(status.reason.as_deref()).unwrap_or("no reason");
            Drill {
                problem: Some(format!("the drill was ended from outside: {reason}")),
                ..drill
            }
        }
    }
}

fn restored(facts: Facts) -> Restored {
    let at = Timestamp::from_millisecond(facts.wall_time_ms).unwrap_or(Timestamp::MAX);
    Restored {
        parent: Lineage::default(),
        backup: facts.backup,
        log_id: facts.log_id,
        restored_to: Time(at),
        state_hash: facts.state_hash,
        tasks: facts.tasks,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(reason: &str, message: Option<&str>) -> Drill {
        let pod = json!({
            "metadata": {"uid": "u", "annotations": {annotation::DESTINATION: "about"}},
            "status": {"phase": "Failed", "containerStatuses": [{
                "name": "drill", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {
                    "exitCode": 1, "reason": reason, "message": message, "finishedAt": "2026-01-31T12:00:00Z",
                }},
            }]},
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        drill(&pod).expect("a drill").end.expect("it has ended")
    }

    #[test]
    fn what_a_drill_says_is_read_and_what_ended_it_otherwise_too() {
        let passed = r#"{"drilled": {"restorable": {"backup": "b-2", "log_id": {"term": 3, "index": 9},
            "wall_time_ms": 1769860800000, "state_hash": "5a", "tasks": 4}, "compared": "b-1", "gap": null}}"#;
        let passed = ended("Completed", Some(passed));
        assert_eq!(
            (passed.problem, passed.compared.as_deref()),
            (None, Some("b-1"))
        );
        let restorable = passed.restorable.expect("it has passed");
        assert_eq!((restorable.tasks, restorable.log_id.index), (4, 9));
        let failed = ended("Error", Some(r#"{"problem": "a is damaged"}"#));
        assert_eq!(failed.problem.as_deref(), Some("a is damaged"));
        let killed = ended("OOMKilled", None).problem.expect("it was killed");
        assert!(killed.contains("OOMKilled"), "{killed}");
    }
}
