//! A bucket, and the members' side of orders about it.

use std::collections::{BTreeMap, BTreeSet};

use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::destination::Lineage;
use crds::status::{Drill, LogId, Restored};
use crds::{BackupPolicy, MemberId};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::observe::backups::{
    Backup, Facts, Failure, Heard, Order, Pruned, Shipped, Verdict, Writing,
};
use operator::observe::{DrillPod, Life};
use operator::plan::Action;

use super::effects::{Outcome, guarded};
use super::raft::serves;
use super::{Refused, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// What is in it, by name, with the index of its last entry.
    pub backups: BTreeMap<String, u64>,
    /// The right that members lack.
    pub lacks: Option<String>,
    pub is_down: bool,
    /// Why a drill cannot restore what is there.
    pub rot: Option<String>,
    /// Members that ship the log.
    pub shippers: BTreeSet<MemberId>,
    /// What the last order to prune spares.
    spared: (usize, BTreeSet<String>),
    written: u64,
}

impl World {
    pub fn back_up(&mut self, change: impl FnOnce(&mut BackupPolicy)) {
        self.edit(|cluster| {
            let policy = cluster.spec.backup.get_or_insert_with(|| {
                let mut policy = BackupPolicy::default();
                policy.destination.url = "s3://bucket".into();
                policy
            });
            change(policy);
        });
        let cluster = self.cluster.as_ref().expect("there is a cluster");
        assert_eq!(crds::validate(cluster, None), []);
    }

    pub fn create_backup(&mut self, name: &str) {
        let backup = Backup {
            name: name.into(),
            uid: self.fresh("uid"),
            version: self.fresh("v"),
            created: self.now,
            life: Life::Present,
            status: TaskStoreBackupStatus::default(),
        };
        let objects = &mut self.objects.backups.objects;
        objects.entry(name.into()).or_insert(backup);
    }

    /// Passes and turns until a member is in the middle of a backup.
    pub fn until_under_way(&mut self) -> MemberId {
        for _ in 0..50 {
            self.turn();
            let seen = self.look().expect("there is a cluster");
            self.pass(&seen, usize::MAX);
            let order = self.objects.backups.orders.backup.as_ref();
            if let Some(order) = order.filter(|order| order.news().is_some()) {
                return order.member;
            }
        }
        panic!("no backup begins: {:?}", self.objects.backups);
    }

    pub(super) fn backup_effect(&mut self, action: &Action) -> Outcome {
        let given = self.now;
        match action.clone() {
            Action::CheckDestination {
                member,
                about,
                failures,
            } => {
                self.objects.backups.orders.check = Some(order(about, member, given, failures));
            }
            Action::CreateBackup { name } => self.create_backup(&name),
            Action::OrderBackup {
                uid,
                member,
                failures,
                ..
            } => {
                let orders = &mut self.objects.backups.orders;
                let busy = orders.backup.as_ref().filter(|order| {
                    order.about != uid
                        && order.failure().is_none()
                        && !matches!(order.news(), Some(Writing::Done(_)))
                });
                assert_eq!(busy, None, "two backups at once");
                orders.backup = Some(order(uid, member, given, failures));
            }
            Action::NoteBackup {
                name,
                version,
                status,
            } => return self.note_backup(&name, &version, *status),
            Action::PruneBackups {
                member,
                about,
                in_use,
                failures,
            } => {
                let policy = self.policy().expect("it is asked for");
                let count = usize::try_from(policy.keep.count).expect("positive");
                self.bucket.spared = (count, in_use);
                self.objects.backups.orders.prune = Some(order(about, member, given, failures));
            }
            Action::DeleteBackup { name, uid } => {
                let objects = &mut self.objects.backups.objects;
                if let Some(found) = objects.get(&name).filter(|found| found.uid == uid) {
                    assert!(
                        !self.bucket.backups.contains_key(&name)
                            || found.status.phase == BackupPhase::Failed,
                        "{name} is in the bucket"
                    );
                    objects.remove(&name);
                }
            }
            Action::CreateDrill { about, lineage } => {
                assert!(
                    !self.bucket.backups.is_empty(),
                    "there is nothing to restore"
                );
                let identity = self.cluster.as_ref().and_then(|known| known.status.clone());
                let identity = identity
                    .and_then(|status| status.identity)
                    .expect("it serves");
                assert_eq!(lineage.cluster_id, identity.cluster_id);
                let uid = self.fresh("uid");
                self.objects.drill.get_or_insert(DrillPod {
                    uid,
                    life: Life::Present,
                    about,
                    end: None,
                });
            }
            Action::DeleteDrill { uid } => {
                let drill = &mut self.objects.drill;
                if let Some(pod) = drill.as_mut().filter(|pod| pod.uid == uid) {
                    pod.life = Life::Deleting;
                }
            }
            Action::ShipLog {
                member,
                about,
                instead_of,
                failures,
            } => {
                let recorded = self
                    .cluster
                    .as_ref()
                    .and_then(|known| known.status.as_ref());
                let backup = recorded.and_then(|status| status.backup.as_ref());
                assert_eq!(backup.and_then(|backup| backup.shipper), Some(member));
                if let Some(before) = instead_of {
                    self.bucket.shippers.remove(&before);
                }
                let shipping = &mut self.objects.backups.orders.shipping;
                *shipping = Some(order(about, member, given, failures));
            }
            Action::StopShipping { member, failures } => {
                let shipping = &mut self.objects.backups.orders.shipping;
                *shipping = Some(order(String::new(), member, given, failures));
            }
            other => panic!("{other} is not about backups"),
        }
        Ok(())
    }

    fn note_backup(&mut self, name: &str, version: &str, status: TaskStoreBackupStatus) -> Outcome {
        let fresh = self.fresh("v");
        let objects = &mut self.objects.backups.objects;
        let backup = objects.get_mut(name).ok_or(Refused("the backup is gone"))?;
        guarded(&backup.version, version)?;
        assert!(!backup.status.phase.is_final(), "{name} has ended");
        if status.phase == BackupPhase::Completed {
            let is_there = self.bucket.backups.contains_key(name);
            assert!(is_there, "{name} is not in the bucket");
        }
        (backup.status, backup.version) = (status, fresh);
        Ok(())
    }

    fn policy(&self) -> Option<&BackupPolicy> {
        self.cluster.as_ref()?.spec.backup.as_ref()
    }

    /// The pod of a drill comes to its end, or is gone.
    pub(super) fn run_drill(&mut self) {
        let now = self.now;
        let newest = self.bucket.backups.iter().max_by_key(|(_, index)| **index);
        let newest = newest.map(|(name, index)| (name.clone(), *index));
        let Some(pod) = &mut self.objects.drill else {
            return;
        };
        if pod.life == Life::Deleting {
            self.objects.drill = None;
            return;
        }
        pod.end.get_or_insert_with(|| Drill {
            ended_at: Time(now),
            problem: self.bucket.rot.clone(),
            restorable: newest
                .filter(|_| self.bucket.rot.is_none())
                .map(|(backup, index)| Restored {
                    parent: Lineage::default(),
                    backup,
                    log_id: LogId { term: 1, index },
                    restored_to: Time(now),
                    state_hash: "5a".into(),
                    tasks: 3,
                }),
            compared: None,
        });
    }

    /// Members go on with what they were ordered.
    pub(super) fn run_orders(&mut self) {
        let dead = self.bucket.shippers.clone();
        let dead = dead.into_iter().filter(|member| !self.serves(*member));
        for member in dead.collect::<Vec<_>>() {
            self.bucket.shippers.remove(&member);
        }
        let mut orders = self.objects.backups.orders.clone();
        if let Some(order) = open(&mut orders.check) {
            order.heard = self.trouble(order.member).unwrap_or_else(|| {
                let lacks = self.bucket.lacks.clone();
                Heard::News(Verdict {
                    lacks: lacks.map(|right| (right, "AccessDenied".into())),
                    at: self.now,
                })
            });
        }
        if let Some(order) = orders.backup.as_mut() {
            let name = self.objects.backups.objects.values();
            let name = name.clone().find(|backup| backup.uid == order.about);
            let name = name.map(|backup| backup.name.clone());
            self.write(name, order);
        }
        if let Some(order) = open(&mut orders.prune) {
            order.heard = self
                .trouble(order.member)
                .unwrap_or_else(|| Heard::News(self.pruned()));
        }
        if let Some(order) = orders.shipping.as_mut() {
            self.ship(order);
        }
        self.objects.backups.orders = orders;
    }

    fn trouble<T>(&self, member: MemberId) -> Option<Heard<T>> {
        let failed = |words: &str| {
            Heard::Failed(Failure {
                words: words.into(),
                is_final: false,
                at: self.now,
            })
        };
        if !serves(&self.objects, &self.disks, member) {
            return Some(failed("not reached"));
        }
        self.bucket
            .is_down
            .then(|| failed("the bucket does not answer"))
    }

    fn write(&mut self, name: Option<String>, order: &mut Order<Writing>) {
        if order.failure().is_some() || matches!(order.news(), Some(Writing::Done(_))) {
            return;
        }
        let Some(name) = name else { return };
        if let Some(trouble) = self.trouble(order.member) {
            order.heard = trouble;
            return;
        }
        if let Some(right) = &self.bucket.lacks {
            order.heard = Heard::Failed(Failure {
                words: format!("no right to {right} s3://bucket"),
                is_final: true,
                at: self.now,
            });
            return;
        }
        if !self.bucket.backups.contains_key(&name) {
            let next = match order.news() {
                None => Some(BackupPhase::Running),
                Some(Writing::UnderWay { phase, .. }) if *phase == BackupPhase::Running => {
                    Some(BackupPhase::Verifying)
                }
                Some(_) => None,
            };
            if let Some(phase) = next {
                order.heard = Heard::News(Writing::UnderWay { phase, percent: 50 });
                return;
            }
            self.bucket.written += 1;
            let index = self.bucket.written;
            self.bucket.backups.insert(name.clone(), index);
        }
        let index = self.bucket.backups[&name];
        order.heard = Heard::News(Writing::Done(self.facts(order.member, index)));
    }

    fn facts(&self, member: MemberId, index: u64) -> Facts {
        let status = self.cluster.as_ref().and_then(|known| known.status.clone());
        let identity = status
            .and_then(|status| status.identity)
            .expect("it serves");
        Facts {
            lineage: Lineage {
                cluster_id: identity.cluster_id,
                incarnation: identity.incarnation,
            },
            log_id: LogId { term: 1, index },
            taken_at: self.now,
            member,
            bytes: 100,
            tasks: index,
            state_hash: "5a".into(),
            checksum: format!("c{index}"),
        }
    }

    fn pruned(&mut self) -> Pruned {
        let (count, in_use) = self.bucket.spared.clone();
        let mut newest_first: Vec<_> = self.bucket.backups.clone().into_iter().collect();
        newest_first.sort_by_key(|(_, index)| std::cmp::Reverse(*index));
        let beyond = newest_first.into_iter().map(|(name, _)| name).skip(count);
        let deleted: BTreeSet<String> = beyond.filter(|name| !in_use.contains(name)).collect();
        self.bucket
            .backups
            .retain(|name, _| !deleted.contains(name));
        Pruned {
            deleted,
            kept: self.bucket.backups.keys().cloned().collect(),
        }
    }

    fn ship(&mut self, order: &mut Order<Shipped>) {
        if order.failure().is_some() {
            return;
        }
        let is_there = serves(&self.objects, &self.disks, order.member);
        match (is_there, &order.heard) {
            (false, Heard::News(_)) if order.about.is_empty() => {}
            (false, _) => {
                order.heard = Heard::Failed(Failure {
                    words: "not reached".into(),
                    is_final: false,
                    at: self.now,
                });
            }
            (true, Heard::Nothing) if order.about.is_empty() => {
                self.bucket.shippers.remove(&order.member);
                order.heard = Heard::News(Shipped::default());
            }
            (true, Heard::Nothing) => {
                self.bucket.shippers.insert(order.member);
                order.heard = Heard::News(Shipped {
                    to: Some(self.now),
                    problem: String::new(),
                });
            }
            (true, _) => {}
        }
    }

    /// The backups, as objects and in the bucket.
    pub(super) fn summary_of_backups(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for backup in self.objects.backups.objects.values() {
            let message = backup.status.message.as_ref();
            let message = message.map_or(String::new(), |message| format!(": {message}"));
            lines.push(format!(
                "backup {} {:?}{message}",
                backup.name, backup.status.phase
            ));
        }
        if !self.bucket.backups.is_empty() {
            let names: Vec<&str> = self.bucket.backups.keys().map(String::as_str).collect();
            lines.push(format!("bucket {}", names.join(" ")));
        }
        if !self.bucket.shippers.is_empty() {
            lines.push(format!("{} ship the log", self.bucket.shippers.len()));
        }
        lines
    }
}

fn order<T>(about: String, member: MemberId, given: Timestamp, failures: u32) -> Order<T> {
    Order {
        about,
        member,
        given,
        failures,
        heard: Heard::Nothing,
    }
}

/// One without an answer yet.
fn open<T: PartialEq>(order: &mut Option<Order<T>>) -> Option<&mut Order<T>> {
    order.as_mut().filter(|order| order.heard == Heard::Nothing)
}
