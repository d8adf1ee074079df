//! Follows everything that a member's status shows, for whoever is told of changes.

use std::sync::Arc;

use taskstore_api::v1;
use tokio::sync::watch;

use super::{Member, Phase};
use crate::raft::consensus::MetricsWatch;
use crate::raft::transport::wire::Facts;

/// Held across a follower's whole life: a change between two looks is never missed, and never told twice.
pub struct Changes {
    member: Arc<Member>,
    phase: watch::Receiver<Phase>,
    own: watch::Receiver<Facts>,
    fenced: watch::Receiver<bool>,
    restore: watch::Receiver<Option<v1::RestoreStatus>>,
    /// None until Raft runs; that it does is a change of phase.
    metrics: Option<MetricsWatch>,
    leader: Option<watch::Receiver<Option<u64>>>,
}

impl Changes {
    pub fn of(member: Arc<Member>) -> Changes {
        let (phase, own) = (member.watch_phase(), member.watch_own());
        let (fenced, restore) = (member.watch_fenced(), member.watch_restore());
        Changes {
            member,
            phase,
            own,
            fenced,
            restore,
            metrics: None,
            leader: None,
        }
    }

    /// The status now; only what comes after it is a change.
    pub fn status(&mut self) -> v1::MemberStatus {
        self.phase.mark_unchanged();
        self.own.mark_unchanged();
        self.fenced.mark_unchanged();
        self.restore.mark_unchanged();
        if self.metrics.is_none() {
            let running = self.member.running();
            self.metrics = running.as_ref().map(|is| is.consensus.watch_metrics());
            self.leader = running.as_ref().map(|is| is.heard_leader.clone());
        }
        if let Some(leader) = &mut self.leader {
            leader.mark_unchanged();
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.current();
        }
        self.member.status()
    }

    /// Returns when the status may differ from the last one taken.
    pub async fn changed(&mut self) {
        let metrics = async {
            let told = match &mut self.metrics {
                Some(metrics) => metrics.changed().await,
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        let leader = async {
            let told = match &mut self.leader {
                Some(leader) => leader.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = leader => {}
            _ = self.phase.changed() => {}
            _ = self.own.changed() => {}
            _ = self.fenced.changed() => {}
            _ = self.restore.changed() => {}
            () = metrics => {}
        }
    }
}
