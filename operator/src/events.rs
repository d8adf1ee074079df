//! Kubernetes Events: one for each real change, in the words of the action.

use crds::TaskStoreCluster;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tracing::debug;

use crate::plan::Action;

#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    pub fn new(client: kube::Client, instance: String) -> Self {
        let reporter = Reporter {
            controller: "taskstore-operator".into(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Told in the background: an Event is a courtesy and never holds up a pass.
    pub fn done(&self, cluster: &TaskStoreCluster, action: &Action) {
        let event = Event {
            type_: match action.kind() {
                "FailBackup" => EventType::Warning,
                _ => EventType::Normal,
            },
            reason: action.kind().into(),
            note: Some(format!("{action}: {}", action.is_safe_because())),
            action: action.kind().into(),
            secondary: None,
        };
        let (recorder, reference) = (self.recorder.clone(), cluster.object_ref(&()));
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &reference).await {
                debug!(%error, "event not told");
            }
        });
    }
}

/// Reading what is there already changes nothing, a budget opens and closes with every pod, and a format
/// order is told when it was followed. Of a backup its end is news.
pub fn is_worth_telling(action: &Action) -> bool {
    if let Action::NoteBackup { status, .. } = action {
        return status.phase.is_final();
    }
    !matches!(
        action,
        Action::EnsureAuthority
            | Action::EnsureClientCertificate
            | Action::EnsureCertificate { .. }
            | Action::SetBudget { .. }
            | Action::Format { .. }
            | Action::CheckDestination { .. }
            | Action::OrderBackup { .. }
            | Action::PruneBackups { .. }
    )
}
