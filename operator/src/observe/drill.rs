//! The pod of a restore drill, and what it says when it has ended.

use crds::destination::Lineage;
use crds::names::annotation;
use crds::status::{Drill, DrillOutcome, LogId, Restored, whole_seconds};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use super::objects::{life, owner, trouble_of};
use super::{Life, Owner, Trouble};
use crate::resources::drill::CONTAINER;

#[derive(Clone, Debug, PartialEq)]
pub struct DrillPod {
    pub uid: String,
    pub created: Timestamp,
    pub life: Life,
    /// What it reads: see `Drill::about`.
    pub about: String,
    /// Why it has not started, as long as it has not.
    pub pending: Option<String>,
    /// Absent while it runs.
    pub end: Option<Drill>,
}

/// What the program writes for the kubelet to show.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Drilled(Drilled),
    Problem(Problem),
}

#[derive(Deserialize)]
struct Problem {
    words: String,
    /// Another try of the same would end the same.
    is_final: bool,
}

#[derive(Deserialize)]
struct Drilled {
    restorable: Facts,
    compared: Option<String>,
    gap: Option<String>,
}

#[derive(Deserialize)]
struct Facts {
    lineage: OfLineage,
    backup: String,
    log_id: LogId,
    wall_time_ms: i64,
    state_hash: String,
    tasks: i64,
}

#[derive(Deserialize)]
struct OfLineage {
    cluster_id: String,
    incarnation: u16,
}

/// None: it is no drill, or that of an earlier cluster of this name.
pub fn drill(pod: &core::Pod, cluster_uid: &str) -> Option<DrillPod> {
    let meta = &pod.metadata;
    let status = pod.status.clone().unwrap_or_default();
    let about = meta.annotations.as_ref()?.get(annotation::DRILL_OF)?;
    if owner(meta, cluster_uid) != Owner::Ours {
        return None;
    }
    let phase = status.phase.as_deref();
    let pending =
        matches!(phase, None | Some("Pending")).then(|| match trouble_of(&status, CONTAINER) {
            Some(Trouble::Unschedulable(words) | Trouble::Container(words)) => words,
            None => "it is not started".to_owned(),
        });
    let end = matches!(phase, Some("Succeeded" | "Failed"));
    Some(DrillPod {
        uid: meta.uid.clone()?,
        created: meta.creation_timestamp.as_ref()?.0,
        life: life(meta),
        about: about.clone(),
        pending,
        end: end.then(|| ended(about, meta.creation_timestamp.as_ref(), &status)),
    })
}

fn ended(about: &str, created: Option<&Time>, status: &core::PodStatus) -> Drill {
    let mut containers = status.container_statuses.iter().flatten();
    let ended = containers.find_map(|known| known.state.as_ref()?.terminated.as_ref());
    let at = ended
        .and_then(|ended| ended.finished_at.as_ref())
        .or(created);
    let message = ended.and_then(|ended| ended.message.as_deref());
    let report = message.and_then(|message| serde_json::from_str(message).ok());
    let drill = Drill {
        ended_at: at.cloned().unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        about: about.to_owned(),
        outcome: DrillOutcome::Interrupted,
        message: None,
        restorable: None,
        compared: None,
        gap: None,
    };
    match report {
        Some(Report::Drilled(drilled)) => Drill {
            outcome: DrillOutcome::Passed,
            restorable: Some(restored(drilled.restorable)),
            compared: drilled.compared,
            gap: drilled.gap,
            ..drill
        },
        Some(Report::Problem(problem)) => Drill {
            outcome: match problem.is_final {
                true => DrillOutcome::Failed,
                false => DrillOutcome::Interrupted,
            },
            message: Some(problem.words),
            ..drill
        },
        // It was killed: the node's reason, or the container's.
        None => {
            let reason = ended.and_then(|ended| ended.reason.as_deref());
            let reason = reason.or(status.reason.as_deref()).unwrap_or("no reason");
            Drill {
                message: Some(format!("it was ended from outside: {reason}")),
                ..drill
            }
        }
    }
}

fn restored(facts: Facts) -> Restored {
    Restored {
        parent: Lineage {
            cluster_id: facts.lineage.cluster_id,
            incarnation: facts.lineage.incarnation,
        },
        backup: facts.backup,
        log_id: facts.log_id,
        restored_to: whole_seconds(facts.wall_time_ms),
        state_hash: facts.state_hash,
        tasks: facts.tasks,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn end_of(reason: &str, message: Option<&str>) -> Drill {
        let pod = json!({
            "metadata": {
                "uid": "u", "creationTimestamp": "2026-01-31T11:00:00Z",
                "annotations": {annotation::DRILL_OF: "about"},
                "ownerReferences": [{
                    "apiVersion": "", "kind": "", "name": "", "uid": "c-uid", "controller": true,
                }],
            },
            "status": {"phase": "Failed", "containerStatuses": [{
                "name": "drill", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {
                    "exitCode": 1, "reason": reason, "message": message, "finishedAt": "2026-01-31T12:00:00Z",
                }},
            }]},
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(drill(&pod, "another"), None, "an earlier cluster's");
        drill(&pod, "c-uid")
            .expect("a drill")
            .end
            .expect("it has ended")
    }

    #[test]
    fn what_a_drill_says_is_read_and_what_ended_it_otherwise_too() {
        let passed = r#"{"drilled": {"restorable": {"lineage": {"cluster_id": "c", "incarnation": 2},
            "backup": "b-2", "log_id": {"term": 3, "index": 9}, "wall_time_ms": 1769860800123,
            "state_hash": "5a", "tasks": 4}, "compared": "b-1", "gap": null}}"#;
        let passed = end_of("Completed", Some(passed));
        assert_eq!(
            (passed.outcome, passed.compared.as_deref()),
            (DrillOutcome::Passed, Some("b-1"))
        );
        let restorable = passed.restorable.expect("it has passed");
        assert_eq!((restorable.tasks, restorable.log_id.index), (4, 9));
        assert_eq!(
            restorable.restored_to.0.subsec_nanosecond(),
            0,
            "as it is written"
        );
        let problem = |is_final: bool| {
            let said = json!({"problem": {"words": "a is damaged", "is_final": is_final}});
            end_of("Error", Some(&said.to_string()))
        };
        assert_eq!(problem(true).message.as_deref(), Some("a is damaged"));
        assert_eq!(problem(true).outcome, DrillOutcome::Failed);
        assert_eq!(problem(false).outcome, DrillOutcome::Interrupted);
        let killed = end_of("OOMKilled", None);
        assert_eq!(killed.outcome, DrillOutcome::Interrupted);
        let words = killed.message.expect("why");
        assert!(words.contains("OOMKilled"), "{words}");
    }
}
