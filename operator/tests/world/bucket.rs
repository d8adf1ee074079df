//! A bucket that a cluster is to begin with, and a member that fills its disk from it.

use std::collections::BTreeSet;

use crds::cluster::VolumePolicy;
use crds::destination::{Destination, Lineage};
use crds::restore::{BucketSource, RestoreUpto};
use crds::status::{LogId, OperationKind, Restored};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::observe::{Filled, Membership, Observed, Restore, RestoreOrder, Start};

use super::World;

/// Of the store that was backed up.
const INCARNATION: u16 = 4;
const LAST: LogId = LogId { term: 7, index: 90 };

impl World {
    /// As a TaskStoreRestore makes it.
    pub fn create_restored(&mut self, replicas: i32) {
        self.create(replicas, VolumePolicy::Retain, VolumePolicy::Delete);
        self.edit(|cluster| cluster.spec.restored_by = Some("r".into()));
        self.objects.restore = Some(Restore::Ordered(Box::new(RestoreOrder {
            source: BucketSource {
                destination: Destination {
                    url: "s3://bucket/team".into(),
                    ..Destination::default()
                },
                lineage: Lineage {
                    cluster_id: "lost".into(),
                    incarnation: INCARNATION,
                },
                backup: None,
            },
            upto: RestoreUpto::default(),
        })));
    }

    /// The API server is asked only by a cluster that has not begun.
    pub fn restore_seen(&self) -> Option<Restore> {
        let cluster = self.cluster.as_ref()?;
        cluster.spec.restored_by.as_ref()?;
        let status = cluster.status.as_ref();
        let operation = status.and_then(|status| status.operation.as_ref());
        let has_begun = status.is_some_and(|status| status.identity.is_some())
            && operation.is_none_or(|operation| operation.kind != OperationKind::Restore);
        match (has_begun, &self.objects.restore) {
            (true, _) => None,
            (false, None) => Some(Restore::Missing),
            (false, known) => known.clone(),
        }
    }

    /// Members that were told to fill their blank disks, as far as the bucket lets them.
    pub fn fill_disks(&mut self) {
        let starts_so = |objects: &Observed| {
            let pods = objects.pods.values();
            let told = pods.filter(|pod| pod.runs() && pod.start == Start::Restore);
            told.map(|pod| pod.member).collect::<Vec<_>>()
        };
        for member in starts_so(&self.objects) {
            let Some(volume) = self.objects.volume_of(member) else {
                continue;
            };
            let Some(disk) = self.disks.get_mut(&volume.uid).filter(|disk| !disk.stamped) else {
                continue;
            };
            if let Some(told) = &self.bucket_says {
                disk.filled = Some(told.clone());
                continue;
            }
            assert!(member.incarnation() > INCARNATION, "tokens only grow");
            assert!(self.raft.config.is_none(), "a cluster begins once");
            self.raft.term = LAST.term + 1;
            self.raft.index = LAST.index;
            self.raft.given.insert(member);
            self.raft.joined.insert(member);
            let config = Membership {
                voters: BTreeSet::from([member]),
                log_id: LAST,
                is_committed: true,
                ..Membership::default()
            };
            disk.stamped = true;
            disk.member = Some(member);
            disk.known = Some(config.clone());
            disk.filled = Some(Filled::Done(Box::new(Restored {
                parent: Lineage::default(),
                backup: "b".into(),
                log_id: LAST,
                restored_to: Time(self.now),
                state_hash: "5a".into(),
                tasks: 3,
            })));
            self.raft.config = Some(config);
        }
    }
}
