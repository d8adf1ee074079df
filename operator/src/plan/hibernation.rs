//! A cluster that sleeps: no pod runs, every volume stays. Woken, its members come back as who they were.
//!
//! Nothing is recorded for it: whether pods are there says how far it is, and the roster of a cluster without
//! a leader is the recorded one. It ends a quorum on purpose, so the cluster object is read again before.

use crds::TaskStoreCluster;

use super::action::PodEnd;
use super::{Action, Draft, Progress, Waiting};
use crate::observe::{Life, Owner};

/// Whether it sleeps, or goes to sleep now. An operation in flight is seen through first, a first set of
/// members too: only a whole configuration is laid to rest.
pub fn is_asleep(cluster: &TaskStoreCluster, progress: &Progress) -> bool {
    let identity = progress.identity.as_ref();
    cluster.spec.hibernated
        && identity.is_some_and(|identity| identity.initialized)
        && progress.operation.is_none()
}

pub fn plan(draft: &mut Draft<'_>) {
    for pod in draft.observed.pods.values() {
        if pod.life == Life::Present && pod.owner != Owner::Other {
            draft.act(Action::DeletePod {
                member: pod.member,
                uid: pod.uid.clone(),
                why: PodEnd::Hibernated,
            });
        } else {
            draft.wait(Waiting::PodsGone {
                members: vec![pod.member],
            });
        }
    }
}
