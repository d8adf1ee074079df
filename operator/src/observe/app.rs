//! Containers of the user's around a member, and how the member's own word is told from theirs.

use std::collections::BTreeMap;

use crds::names::{MEMBER_CONTAINER, annotation};
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus};

use super::App;
use crate::resources::sidecar::is_sidecar;

/// Reasons of a pod that is not Ready because of its containers or what its template asks of it; the node's
/// own, that it does not answer, comes without one.
const OF_CONTAINERS: [&str; 2] = ["ContainersNotReady", "ReadinessGatesNotReady"];
/// A container that waits for one of these is on its way.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What the kubelet says of one container, wherever it stands.
pub fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
        .find(|known| known.name == container)
}

/// Whether the member is beside containers of the user's.
pub fn is_beside(spec: &PodSpec) -> bool {
    let mut init = spec.init_containers.iter().flatten();
    init.any(|container| container.name == MEMBER_CONTAINER)
}

/// Whether the member is Ready, whatever else in its pod is not. A pod that is not Ready although its containers
/// are is on a node that does not answer.
pub fn is_member_ready(member: Option<&ContainerStatus>, pod: Option<&PodCondition>) -> bool {
    let is_ready = member.is_some_and(|member| member.ready);
    let is_heard = pod.is_some_and(|pod| {
        let reason = pod.reason.as_deref().unwrap_or_default();
        pod.status == "True" || OF_CONTAINERS.contains(&reason)
    });
    is_ready && is_heard
}

/// The kubelet's words for a container that does not start.
pub fn waits_for(container: &ContainerStatus) -> Option<(&str, Option<&str>)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    (!STARTING.contains(&reason)).then_some((reason, waiting.message.as_deref()))
}

pub fn app(
    spec: &PodSpec,
    status: &PodStatus,
    annotations: &BTreeMap<String, String>,
) -> Option<App> {
    if !is_beside(spec) {
        return None;
    }
    let images = annotations
        .get(annotation::APP_IMAGES)
        .and_then(|images| serde_json::from_str(images).ok());
    let replaced: Vec<&str> = annotations
        .get(annotation::REPLACED_APP_CONTAINERS)
        .map(|ids| ids.split(',').collect())
        .unwrap_or_default();
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|known| is_sidecar(known) && known.name != MEMBER_CONTAINER);
    let mut app = App {
        images: images.unwrap_or_default(),
        ..App::default()
    };
    for container in sidecars.chain(&spec.containers) {
        let known = status_of(status, &container.name);
        let id = known.and_then(|known| known.container_id.as_deref());
        if let Some(id) = id {
            app.containers.insert(container.name.clone(), id.to_owned());
        }
        let is_replaced = id.is_some_and(|id| replaced.contains(&id));
        let trouble = trouble(known, is_replaced);
        app.trouble = app
            .trouble
            .or(trouble.map(|words| format!("{} {words}", container.name)));
    }
    Some(app)
}

fn trouble(container: Option<&ContainerStatus>, is_replaced: bool) -> Option<String> {
    match container {
        None => Some("was not started".into()),
        Some(_) if is_replaced => Some("still runs the image before".into()),
        Some(known) if known.ready => None,
        // Without the message, which counts the seconds of a back-off.
        Some(known) => Some(match waits_for(known) {
            Some((reason, _)) => format!("is not Ready: {reason}"),
            None => "is not Ready".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::observe::{Pod, PodPhase, Trouble, objects};
    use serde_json::{Value, json};

    /// A pod of two: the member, and an app with the given status.
    fn seen(phase: &str, member: Value, app: Value, ready: Value) -> Pod {
        let pod = json!({
            "metadata": {
                "name": "demo-1-1", "uid": "u", "resourceVersion": "1",
                "labels": {"taskstore.dev/cluster-id": "c", "taskstore.dev/member-id": "4294967297"},
                "annotations": {
                    "taskstore.dev/app-images": "{\"app\":\"app:1\"}",
                    "taskstore.dev/replaced-app-containers": "gone,old",
                },
            },
            "spec": {
                "initContainers": [
                    {"name": "taskstore", "image": "taskstore:1", "restartPolicy": "Always", "args": ["--inspect"]},
                    {"name": "once", "image": "app:1"},
                ],
                "containers": [{"name": "app", "image": "app:1"}],
            },
            "status": {
                "phase": phase,
                "initContainerStatuses": [member],
                "containerStatuses": [app],
                "conditions": [ready],
            },
        });
        objects::pod(&serde_json::from_value(pod).unwrap(), "uid").unwrap()
    }

    fn container(name: &str, is_ready: bool, id: &str, state: Value) -> Value {
        json!({
            "name": name, "ready": is_ready, "containerID": id, "state": state,
            "image": "", "imageID": "", "restartCount": 0,
        })
    }

    fn waiting(reason: &str) -> Value {
        json!({"waiting": {"reason": reason, "message": "back-off 10s"}})
    }

    #[test]
    fn an_app_that_does_not_run_says_nothing_about_its_member() {
        let member = || container("taskstore", true, "m", json!({"running": {}}));
        let unready =
            || json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
        for (phase, app, words) in [
            (
                "Running",
                waiting("CrashLoopBackOff"),
                "app is not Ready: CrashLoopBackOff",
            ),
            // Never run, it keeps the whole pod Pending.
            (
                "Pending",
                waiting("ImagePullBackOff"),
                "app is not Ready: ImagePullBackOff",
            ),
            ("Pending", waiting("PodInitializing"), "app is not Ready"),
        ] {
            let pod = seen(
                phase,
                member(),
                container("app", false, "a", app),
                unready(),
            );
            assert!(pod.ready && pod.runs(), "{words}");
            assert_eq!(pod.container.as_deref(), Some("m"));
            assert_eq!(pod.trouble, None);
            let app = pod.app.unwrap();
            assert_eq!(app.trouble.as_deref(), Some(words));
            assert_eq!(app.images["app"], "app:1");
            assert_eq!(app.containers["app"], "a");
        }
    }

    #[test]
    fn a_member_that_does_not_run_is_in_trouble_whatever_the_app_says() {
        let app = || container("app", true, "a", json!({"running": {}}));
        let unready =
            || json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
        let broken = container("taskstore", false, "m", waiting("CrashLoopBackOff"));
        let pod = seen("Running", broken, app(), unready());
        let words = Trouble::Container("CrashLoopBackOff: back-off 10s".into());
        assert_eq!(
            (pod.ready, pod.runs(), pod.trouble),
            (false, false, Some(words))
        );
        let starting = container("taskstore", false, "", waiting("PodInitializing"));
        let pod = seen("Pending", starting, app(), unready());
        assert_eq!((pod.phase, pod.trouble), (PodPhase::Pending, None));
    }

    #[test]
    fn a_node_that_does_not_answer_takes_the_members_word_back() {
        let member = container("taskstore", true, "m", json!({"running": {}}));
        let app = container("app", true, "a", json!({"running": {}}));
        let lost = json!({"type": "Ready", "status": "False"});
        assert!(!seen("Running", member.clone(), app.clone(), lost).ready);
        let well = json!({"type": "Ready", "status": "True"});
        let pod = seen("Running", member, app, well);
        assert!(pod.ready);
        assert_eq!(pod.app.unwrap().trouble, None);
    }

    #[test]
    fn an_app_container_that_is_to_go_is_not_taken_for_the_new_one() {
        let member = container("taskstore", true, "m", json!({"running": {}}));
        let old = container("app", true, "old", json!({"running": {}}));
        let well = json!({"type": "Ready", "status": "True"});
        let app = seen("Running", member, old, well).app.unwrap();
        assert_eq!(
            app.trouble.as_deref(),
            Some("app still runs the image before")
        );
    }
}
