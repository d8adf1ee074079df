//! Disks and the consensus among them, as far as an operator can tell.

use std::collections::{BTreeMap, BTreeSet};

use crds::MemberId;
use crds::status::LogId;
use operator::observe::{
    Filled, Life, Link, Member, Membership, Observed, Peer, PeerHealth, Phase, Pod, PodPhase,
    Raft as RaftReport, Reach, Report, Start,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    pub node: Option<String>,
    pub stamped: bool,
    /// Whom it is stamped for.
    pub member: Option<MemberId>,
    /// The newest configuration on it; some means initialized.
    pub known: Option<Membership>,
    pub damage: Option<String>,
    /// Its node has no power.
    pub is_off: bool,
    pub is_fenced: bool,
    /// What its member says of filling it.
    pub filled: Option<Filled>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raft {
    /// The committed configuration.
    pub config: Option<Membership>,
    pub leader: Option<MemberId>,
    pub term: u64,
    pub index: u64,
    /// Every id that was ever in a configuration or reserved, and the reservations by operation.
    pub given: BTreeSet<MemberId>,
    pub joined: BTreeSet<MemberId>,
    pub reserved: BTreeMap<String, Vec<MemberId>>,
    /// Learners that take their time.
    pub slow: BTreeSet<MemberId>,
}

pub fn is_up(pod: &Pod) -> bool {
    pod.phase == PodPhase::Running
        && pod.container.is_some()
        && pod.start == Start::Serve
        && pod.life == Life::Present
}

/// Whether its member runs on a disk that it can use; without one it answers nobody but the operator.
pub fn serves(objects: &Observed, disks: &BTreeMap<String, Disk>, member: MemberId) -> bool {
    let disk = objects
        .volume_of(member)
        .and_then(|volume| disks.get(&volume.uid));
    objects.pod_of(member).is_some_and(is_up)
        && disk.is_some_and(|disk| {
            disk.stamped && disk.member == Some(member) && disk.damage.is_none() && !disk.is_off
        })
}

/// Whether a quorum of every half is up.
pub fn has_quorum(objects: &Observed, disks: &BTreeMap<String, Disk>, config: &Membership) -> bool {
    let is_up = |voter: &&MemberId| serves(objects, disks, **voter);
    [&config.voters, &config.outgoing]
        .into_iter()
        .filter(|half| !half.is_empty())
        .all(|half| half.iter().filter(is_up).count() * 2 > half.len())
}

impl Raft {
    /// A member that was told to makes the disk of another its own: the only voter of a new incarnation.
    pub fn rewrite(&mut self, objects: &Observed, disks: &mut BTreeMap<String, Disk>) {
        for pod in objects.pods.values().filter(|pod| pod.runs()) {
            let Start::Rewrite { from } = pod.start else {
                continue;
            };
            let Some(volume) = objects.volume_of(pod.member) else {
                continue;
            };
            let Some(disk) = disks.get_mut(&volume.uid).filter(|disk| !disk.is_off) else {
                continue;
            };
            if disk.member == Some(pod.member) || disk.damage.is_some() {
                continue;
            }
            if disk.member != Some(from) {
                disk.damage = Some("the volume is stamped for another member".into());
                continue;
            }
            let older = |other: &Pod| other.member.incarnation() < pod.member.incarnation();
            let others = objects.pods.values().filter(|other| older(other));
            for other in others {
                assert_eq!(
                    other.life,
                    Life::Deleting,
                    "{} is not told to go",
                    other.name
                );
                assert_ne!(other.member, from, "the survivor itself is still there");
            }
            self.term += 1;
            self.leader = None;
            let config = Membership {
                voters: BTreeSet::from([pod.member]),
                log_id: LogId {
                    term: self.term,
                    index: self.index,
                },
                is_committed: true,
                ..Membership::default()
            };
            self.given.insert(pod.member);
            self.joined.insert(pod.member);
            disk.member = Some(pod.member);
            disk.known = Some(config.clone());
            self.config = Some(config);
        }
    }

    /// Elects, and lets every member that is up learn the configuration.
    pub fn turn(&mut self, objects: &Observed, disks: &mut BTreeMap<String, Disk>) {
        let up: BTreeSet<MemberId> = objects
            .pods
            .values()
            .map(|pod| pod.member)
            .filter(|member| serves(objects, disks, *member))
            .collect();
        let Some(config) = self.config.clone() else {
            return;
        };
        let can_lead = |member: &MemberId| {
            up.contains(member)
                && objects
                    .volume_of(*member)
                    .and_then(|volume| disks.get(&volume.uid))
                    .is_some_and(|disk| {
                        disk.known
                            .as_ref()
                            .is_some_and(|known| known.log_id == config.log_id)
                    })
        };
        let is_fenced = |member: MemberId| {
            let volume = objects.volume_of(member);
            let disk = volume.and_then(|volume| disks.get(&volume.uid));
            disk.is_some_and(|disk| disk.is_fenced)
        };
        let has_quorum = has_quorum(objects, disks, &config);
        let keeps = self.leader.is_some_and(|leader| {
            config.voters.contains(&leader) && up.contains(&leader) && !is_fenced(leader)
        });
        if !has_quorum {
            self.leader = None;
        } else if !keeps {
            self.leader = config
                .voters
                .iter()
                .copied()
                .find(|voter| can_lead(voter) && !is_fenced(*voter));
            self.term += u64::from(self.leader.is_some());
        }
        self.spread(objects, disks);
    }

    /// What is committed is on the disk of every member that is up.
    pub fn spread(&self, objects: &Observed, disks: &mut BTreeMap<String, Disk>) {
        let Some(config) = self.config.as_ref().filter(|_| self.leader.is_some()) else {
            return;
        };
        for pod in objects
            .pods
            .values()
            .filter(|pod| config.contains(pod.member))
        {
            if !serves(objects, disks, pod.member) {
                continue;
            }
            let disk = objects
                .volume_of(pod.member)
                .and_then(|volume| disks.get_mut(&volume.uid));
            if let Some(disk) = disk {
                disk.known = Some(config.clone());
            }
        }
    }

    pub fn commit(&mut self, mut next: Membership) {
        let before = self.config.clone().unwrap_or_default();
        let members = next
            .voters
            .iter()
            .chain(&next.outgoing)
            .chain(&next.learners);
        for member in members.copied().filter(|member| !before.contains(*member)) {
            let is_reserved = self
                .reserved
                .values()
                .flatten()
                .any(|known| *known == member);
            assert!(
                self.joined.insert(member) && (is_reserved || self.config.is_none()),
                "{member} joins once, under a number that was reserved for it"
            );
            self.given.insert(member);
        }
        self.index += 2;
        next.log_id = LogId {
            term: self.term,
            index: self.index,
        };
        next.is_committed = true;
        self.config = Some(next);
    }

    /// What every running member says.
    pub fn reports(
        &self,
        objects: &Observed,
        disks: &BTreeMap<String, Disk>,
    ) -> BTreeMap<MemberId, Member> {
        let mut reports = BTreeMap::new();
        for pod in objects
            .pods
            .values()
            .filter(|pod| pod.phase == PodPhase::Running && pod.container.is_some())
        {
            let Some(volume) = objects.volume_of(pod.member) else {
                continue;
            };
            let Some(disk) = disks.get(&volume.uid).filter(|disk| !disk.is_off) else {
                continue;
            };
            let report = self.report(objects, disks, pod, &volume.uid, disk);
            reports.insert(
                pod.member,
                Member {
                    link: Link::Connected,
                    report: Some(report),
                },
            );
        }
        reports
    }

    fn report(
        &self,
        objects: &Observed,
        disks: &BTreeMap<String, Disk>,
        pod: &Pod,
        volume_uid: &str,
        disk: &Disk,
    ) -> Report {
        let leads = self.leader == Some(pod.member) && serves(objects, disks, pod.member);
        let phase = if disk.damage.is_some() {
            Phase::Damaged
        } else if !disk.stamped {
            Phase::Blank
        } else if disk.known.is_none() {
            Phase::Empty
        } else if disk.member != Some(pod.member) {
            Phase::Damaged
        } else if pod.start != Start::Serve {
            Phase::Recovering
        } else {
            Phase::Serving
        };
        let peers = |config: &Membership| {
            let others = config
                .voters
                .iter()
                .chain(&config.learners)
                .chain(&config.outgoing);
            others
                .filter(|other| **other != pod.member)
                .map(|other| {
                    let health = if !serves(objects, disks, *other) {
                        PeerHealth::Unreachable
                    } else if self.slow.contains(other) {
                        PeerHealth::Lagging
                    } else {
                        PeerHealth::CaughtUp
                    };
                    (
                        *other,
                        Peer {
                            health,
                            ready: true,
                        },
                    )
                })
                .collect()
        };
        Report {
            phase,
            cluster_id: pod.cluster_id.clone(),
            member: pod.member,
            volume_uid: if disk.stamped {
                volume_uid.to_owned()
            } else {
                String::new()
            },
            version: "1".into(),
            initialized: disk.known.is_some(),
            ready: pod.ready,
            damage: disk.damage.clone().unwrap_or_default(),
            raft: disk.known.as_ref().map(|known| RaftReport {
                term: self.term,
                leads,
                leader: self.leader,
                membership: if leads {
                    self.config.clone().unwrap_or_default()
                } else {
                    known.clone()
                },
                peers: if leads {
                    self.config.as_ref().map(peers).unwrap_or_default()
                } else {
                    BTreeMap::new()
                },
                reach: (!leads).then_some(Reach {
                    last: known.log_id,
                    committed_index: known.log_id.index,
                }),
            }),
            filled: disk.filled.clone().filter(|_| pod.start == Start::Restore),
            is_disk_high_water: false,
            is_fenced: disk.is_fenced,
        }
    }
}
