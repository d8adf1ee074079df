//! Effects on the world, with the guards of the real ones, and the referee's promises.

use std::collections::BTreeSet;

use crds::names::{annotation, label};
use crds::status::OperationKind;
use crds::{MemberId, TaskStoreCluster, names, quantity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use operator::observe::{
    Drift, Life, Membership, Observed, Owner, PodPhase, RefusedGrowth, Restore, Start, VolumeState,
    objects,
};
use operator::plan::Action;
use operator::plan::action::{Cost, Fixture, Guard, Owned, Ownership, PodEnd};
use operator::resources;

use super::raft::{has_quorum, serves};
use super::{Disk, World};

/// The world moved since the decision.
#[derive(Debug, PartialEq)]
pub struct Refused(pub &'static str);

pub type Outcome = Result<(), Refused>;

impl World {
    pub fn effect(&mut self, seen: &(TaskStoreCluster, Observed), action: &Action) -> Outcome {
        if action.recheck().of_cluster() {
            self.recheck_cluster(&seen.0)?;
        }
        if let Action::SetVoters { voters, .. } = action {
            let is_closed = self
                .objects
                .budget
                .as_ref()
                .is_some_and(|budget| budget.allows(voters, self.objects.pods.values()));
            if !is_closed {
                return Err(Refused("the budget is open"));
            }
        }
        if self.cluster.is_none() {
            return Err(Refused("the cluster is gone"));
        }
        if let Some((from, to)) = action.succession() {
            let accepted = &seen.0.spec.recovery.accept_unconfirmed;
            let pods = self.objects.pods.values().map(|pod| pod.member);
            let mut earlier = pods.filter(|member| member.incarnation() < to.incarnation());
            if earlier.any(|member| member == from || !accepted.contains(&member)) {
                return Err(Refused("a pod is left"));
            }
        }
        match action {
            Action::EnsureAuthority => self.objects.credentials.authority = Some(self.authority()),
            Action::EnsureClientCertificate => {
                self.objects.credentials.client_expires =
                    Some(self.now + SignedDuration::from_hours(24 * 365));
                self.objects.credentials.client_is_local = true;
            }
            Action::EnsureCertificate { member } => {
                let expires = self.now + SignedDuration::from_hours(24 * 365);
                self.objects
                    .credentials
                    .member_expires
                    .insert(*member, expires);
            }
            Action::DeleteCertificate { member } => {
                self.assert_left(*member, "its certificate is deleted");
                self.objects.credentials.member_expires.remove(member);
                self.objects.credentials.withdrawn.insert(*member);
            }
            Action::CreateFixture(fixture) => {
                let object = self.object();
                self.fixture(*fixture).get_or_insert(object);
            }
            Action::RepairFixture { .. } => {}
            Action::SetOwner {
                kind,
                name,
                version,
                owner,
            } => return self.set_owner(*kind, name, version, *owner),
            Action::CreateBudget { min_available } => {
                if self.objects.budget.is_none() {
                    self.objects.budget = Some(self.budget(*min_available));
                }
            }
            Action::SetBudget {
                min_available,
                version,
            } => {
                let fresh = self.fresh("v");
                let status = self
                    .cluster
                    .as_ref()
                    .and_then(|cluster| cluster.status.as_ref());
                let is_busy = status.is_some_and(|status| status.operation.is_some());
                let budget = self.objects.budget.as_mut().ok_or(Refused("no budget"))?;
                guarded(&budget.object.version, version)?;
                assert!(
                    !is_busy || *min_available >= budget.min_available,
                    "the budget is opened while an operation runs"
                );
                budget.object.version = fresh;
                budget.object.drift = Drift::None;
                budget.object.owner = Owner::Ours;
                budget.min_available = *min_available;
                budget.generation += 1;
            }
            Action::DeleteBudget { uid } => {
                if self
                    .objects
                    .budget
                    .as_ref()
                    .is_some_and(|budget| budget.object.uid == *uid)
                {
                    self.objects.budget = None;
                }
            }
            Action::CreateVolume { member } => self.create_volume(*member),
            Action::MarkFormatted { member, version } => {
                return self.mark_volume(*member, version, VolumeState::Formatted);
            }
            Action::RetireVolume { member, version } => {
                self.assert_left(*member, "its volume is retired");
                return self.mark_volume(*member, version, VolumeState::Retired);
            }
            Action::DeleteVolume { member, uid } => {
                let volume = self
                    .objects
                    .volumes
                    .values_mut()
                    .find(|volume| volume.uid == *uid);
                if let Some(volume) = volume {
                    assert_eq!(
                        volume.state,
                        VolumeState::Retired,
                        "only a retired volume is deleted"
                    );
                    volume.life = Life::Deleting;
                }
                self.assert_left(*member, "its volume is deleted");
            }
            Action::CreatePod {
                member,
                volume_uid,
                start,
                is_voter,
            } => {
                let volume = self
                    .objects
                    .volume_of(*member)
                    .ok_or(Refused("no volume"))?;
                if volume.uid != *volume_uid
                    || volume.state == VolumeState::Retired
                    || volume.life != Life::Present
                {
                    return Err(Refused("the volume is another or retired"));
                }
                self.create_pod(seen, *member, volume_uid, *start, *is_voter);
            }
            Action::SetFenced { member, fenced } => {
                if !serves(&self.objects, &self.disks, *member) {
                    return Err(Refused("not connected"));
                }
                let volume = self.objects.volume_of(*member).expect("it serves");
                let disk = self.disks.get_mut(&volume.uid).expect("it serves");
                disk.is_fenced = *fenced;
            }
            Action::GrowVolume {
                member,
                size,
                version,
            } => return self.grow_volume(*member, size, version),
            Action::HandVolume { from, to, version } => {
                return self.hand_volume(*from, *to, version);
            }
            Action::ConfirmLoss { survivors } => {
                let reports = self.raft.reports(&self.objects, &self.disks);
                for survivor in survivors {
                    let report = reports
                        .get(&survivor.id)
                        .and_then(|one| one.report.as_ref());
                    let raft = report.and_then(|report| report.raft.as_ref());
                    let reach = raft.and_then(|raft| raft.reach);
                    if reach.map(|reach| reach.last) != Some(survivor.last_log) {
                        return Err(Refused("a survivor is another"));
                    }
                }
            }
            Action::MarkVoter { member, version } => return self.label_pod(*member, version),
            Action::DeletePod { uid, why, member } => {
                if let Some(pod) = self.objects.pods.values_mut().find(|pod| pod.uid == *uid) {
                    if *why == PodEnd::MajorityLost && pod.life == Life::Present {
                        let cluster = self.cluster.as_ref().expect("checked");
                        let status = cluster.status.clone().unwrap_or_default();
                        let nonce = status.recovery.and_then(|offer| offer.nonce);
                        assert!(nonce.is_some(), "nothing was offered");
                        assert_eq!(cluster.spec.recovery.acknowledge, nonce);
                        assert_eq!(self.raft.leader, None, "a leader loses its pod");
                    }
                    if *why == PodEnd::Ended {
                        assert_eq!(
                            pod.phase,
                            PodPhase::Ended,
                            "a pod that runs is not called ended"
                        );
                    }
                    pod.life = Life::Deleting;
                }
                if *why == PodEnd::Hibernated {
                    let cluster = self.cluster.as_ref().expect("checked");
                    assert!(
                        cluster.spec.hibernated,
                        "a cluster that is awake loses a pod"
                    );
                }
                if *why == PodEnd::Retired {
                    self.assert_left(*member, "its pod is deleted");
                }
            }
            Action::SetImage {
                member,
                image,
                version,
                replaces,
                cost,
            } => {
                let pod = self.objects.pod_of(*member).ok_or(Refused("no pod"))?;
                guarded(&pod.version, version)?;
                let is_other = pod.image != *image;
                if is_other {
                    self.guarded_pod(*member, version, cost)?;
                }
                let replaced = replaces.clone();
                let pod = self.pod_mut(*member);
                assert!(
                    !is_other || pod.container == replaced,
                    "the container that goes is the one that is there"
                );
                pod.image.clone_from(image);
                pod.named_image.clone_from(&seen.0.spec.image);
                let uid = pod.uid.clone();
                if let Some(container) = replaced {
                    assert!(is_other, "an image that changes nothing replaces nothing");
                    pod.ready = false;
                    self.replaced.insert(uid, container);
                }
            }
            Action::SetAppImages {
                member,
                images,
                version,
                replaces,
            } => {
                let pod = self.objects.pod_of(*member).ok_or(Refused("no pod"))?;
                guarded(&pod.version, version)?;
                let app = resources::sidecar::App::of(&seen.0).expect("there is a template");
                let wanted = app.images();
                let known = pod.app.as_ref().expect("it has an app");
                let mut after = known.images.clone();
                after.extend(images.clone());
                assert_eq!(after, wanted, "what is set is what the spec names");
                let going: Vec<_> = images.keys().collect();
                let ids = going
                    .into_iter()
                    .filter_map(|name| known.containers.get(name));
                assert!(ids.eq(replaces), "what goes is what is there");
                self.replaced_apps.extend(replaces.clone());
                let app = self.pod_mut(*member).app.as_mut().expect("it has an app");
                app.images = wanted;
                app.trouble = Some("an image is about to change".into());
            }
            Action::RenewPod {
                member,
                uid,
                version,
                cost,
            } => {
                self.guarded_pod(*member, version, cost)?;
                let pod = self.pod_mut(*member);
                assert_eq!(pod.uid, *uid, "the version is of one pod");
                pod.life = Life::Deleting;
            }
            Action::Format { member, volume_uid } => {
                let volume = self
                    .objects
                    .volume_of(*member)
                    .ok_or(Refused("no volume"))?;
                let disk = self.disks.get_mut(&volume.uid).ok_or(Refused("no disk"))?;
                if volume.uid != *volume_uid || disk.stamped || disk.is_off {
                    return Err(Refused("not this empty volume"));
                }
                if let Some(config) = &self.raft.config {
                    assert!(
                        !config.contains(*member),
                        "{member} has a seat and is formatted anew"
                    );
                }
                (disk.stamped, disk.member) = (true, Some(*member));
            }
            Action::Initialize { on, voters } => return self.initialize(*on, voters),
            Action::ReserveMembers { count, .. } => return self.reserve(&seen.0, *count),
            Action::AddLearners { members, guard, .. } => {
                let mut next = self.guarded_config(*guard)?;
                next.learners.extend(members);
                self.commit(next);
            }
            Action::RemoveLearners { members, guard, .. } => {
                let mut next = self.guarded_config(*guard)?;
                next.learners.retain(|learner| !members.contains(learner));
                self.commit(next);
            }
            Action::SetVoters { voters, guard, .. } => return self.set_voters(voters, *guard),
            Action::TransferLeader { to, term, .. } => {
                if self.raft.term != *term || !serves(&self.objects, &self.disks, *to) {
                    return Err(Refused("another term"));
                }
                self.raft.leader = Some(*to);
                self.raft.term += 1;
            }
            about_backups => return self.backup_effect(about_backups),
        }
        Ok(())
    }

    /// An outdated pod may change; the referee looks that never two voters are down through it.
    fn guarded_pod(&self, member: MemberId, version: &str, cost: &Cost) -> Outcome {
        let pod = self.objects.pod_of(member).ok_or(Refused("no pod"))?;
        guarded(&pod.version, version)?;
        if let Cost::Vote { of } = cost
            && of.len() > 1
        {
            let pods = self.objects.pods.values();
            let budget = self.objects.budget.as_ref();
            if !budget.is_some_and(|budget| budget.spares(member, of, pods)) {
                return Err(Refused("the budget is open or not all others are up"));
            }
        }
        let voters = self.raft.config.iter().flat_map(|config| &config.voters);
        let voters: Vec<MemberId> = voters.copied().collect();
        let is_up = |member: MemberId| serves(&self.objects, &self.disks, member);
        let can_lead = voters.iter().filter(|voter| is_up(**voter)).count() * 2 > voters.len();
        if voters.contains(&member) && is_up(member) && can_lead {
            let down: Vec<&MemberId> = voters.iter().filter(|voter| !is_up(**voter)).collect();
            assert!(down.is_empty(), "{member} is taken down while {down:?} are");
            assert!(
                *cost != Cost::Nothing || voters.len() == 1 || self.is_told_to_go(member),
                "{member} serves, and its change is called free"
            );
        }
        Ok(())
    }

    pub fn recheck_cluster(&self, seen: &TaskStoreCluster) -> Outcome {
        let now = self.cluster.as_ref().map(|cluster| &cluster.metadata);
        let same = now.is_some_and(|now| {
            now.resource_version == seen.metadata.resource_version && now.uid == seen.metadata.uid
        });
        if same {
            Ok(())
        } else {
            Err(Refused("the cluster object moved"))
        }
    }

    /// It is in no configuration, or in that of an incarnation that the user has given up.
    fn assert_left(&self, member: MemberId, what: &str) {
        let status = self.cluster.as_ref().and_then(|known| known.status.clone());
        let identity = status.and_then(|status| status.identity);
        if identity.is_some_and(|identity| identity.incarnation > member.incarnation()) {
            return;
        }
        if let Some(config) = &self.raft.config {
            assert!(
                !config.contains(member),
                "{what} while {member} is in {config:?}"
            );
        }
    }

    fn fixture(&mut self, fixture: Fixture) -> &mut Option<operator::observe::Object> {
        match fixture {
            Fixture::ServiceAccount => &mut self.objects.account,
            Fixture::PeerService => &mut self.objects.peer_service,
            Fixture::ClientService => &mut self.objects.client_service,
        }
    }

    fn set_owner(&mut self, kind: Owned, name: &str, version: &str, owner: Ownership) -> Outcome {
        let fresh = self.fresh("v");
        let owner = match owner {
            Ownership::Cluster => Owner::Ours,
            Ownership::Nobody => Owner::Nobody,
        };
        let (known, now) = match kind {
            Owned::Volume => {
                let volume = self
                    .objects
                    .volumes
                    .get_mut(name)
                    .ok_or(Refused("no volume"))?;
                (&mut volume.version, &mut volume.owner)
            }
            Owned::Pod => {
                let pod = self.objects.pods.get_mut(name).ok_or(Refused("no pod"))?;
                (&mut pod.version, &mut pod.owner)
            }
            Owned::Fixture(fixture) => {
                let object = self.fixture(fixture).as_mut().ok_or(Refused("no object"))?;
                (&mut object.version, &mut object.owner)
            }
        };
        guarded(known, version)?;
        *known = fresh;
        *now = owner;
        Ok(())
    }

    fn create_volume(&mut self, member: MemberId) {
        let cluster = self.cluster.clone().expect("there is a cluster");
        let identity = cluster
            .status
            .as_ref()
            .and_then(|status| status.identity.clone())
            .expect("recorded first");
        if self.objects.volume_of(member).is_some() {
            return;
        }
        self.assert_left(member, "a volume is made for it");
        let mut claim = resources::volume_claim::build(&cluster, &identity.cluster_id, member);
        self.stamp(&mut claim.metadata);
        let volume = objects::volume(&claim, &self.uid()).expect("what we render can be read");
        self.disks.insert(volume.uid.clone(), Disk::default());
        self.objects.volumes.insert(volume.name.clone(), volume);
    }

    /// Made from the spec that its operator has seen, which may be an older one.
    fn create_pod(
        &mut self,
        (cluster, observed): &(TaskStoreCluster, Observed),
        member: MemberId,
        volume_uid: &str,
        start: operator::observe::Start,
        is_voter: bool,
    ) {
        let cluster_id = self
            .objects
            .volume_of(member)
            .expect("checked")
            .cluster_id
            .clone();
        let volume = self.objects.volume_of(member).expect("checked");
        let identity = resources::pod::Identity {
            cluster_id: &cluster_id,
            member,
            volume: &volume.name,
            volume_uid,
            restore: match &observed.restore {
                Some(Restore::Ordered(order)) => Some(&**order).filter(|_| start == Start::Restore),
                _ => None,
            },
        };
        assert_eq!(identity.restore.is_some(), start == Start::Restore);
        let image = resources::pod::image(cluster, &observed.default_image);
        let mut pod = resources::pod::build(cluster, &identity, image, start, is_voter);
        self.stamp(&mut pod.metadata);
        let annotations = pod.metadata.annotations.as_ref().expect("rendered");
        let hash = annotations.get(annotation::TEMPLATE_HASH).cloned();
        let revision = resources::pod::RENDERER_REVISION;
        assert_eq!(hash, resources::pod::template_hash(cluster, revision));
        if asks_too_much(&pod) {
            let uid = pod.metadata.uid.clone().expect("stamped");
            self.too_big.insert(uid);
        }
        let labels = pod.metadata.labels.as_ref().expect("rendered");
        assert_eq!(labels.get(label::VOTER).is_some(), is_voter);
        let pod = objects::pod(&pod, &self.uid()).expect("what we render can be read");
        assert_eq!(pod.name, names::pod("demo", member));
        self.objects.pods.entry(pod.name.clone()).or_insert(pod);
    }

    fn stamp(&mut self, meta: &mut ObjectMeta) {
        meta.uid = Some(self.fresh("uid"));
        meta.resource_version = Some(self.fresh("v"));
        meta.creation_timestamp = Some(Time(self.now));
    }

    fn mark_volume(&mut self, member: MemberId, version: &str, state: VolumeState) -> Outcome {
        let fresh = self.fresh("v");
        let volume = self
            .objects
            .volumes
            .values_mut()
            .find(|volume| volume.member == member)
            .ok_or(Refused("no volume"))?;
        guarded(&volume.version, version)?;
        volume.version = fresh;
        volume.state = state;
        Ok(())
    }

    fn grow_volume(&mut self, member: MemberId, size: &str, version: &str) -> Outcome {
        let bytes = quantity::units(&Quantity(size.to_owned())).expect("the spec is valid");
        let refused = RefusedGrowth {
            bytes,
            words: "the class does not expand volumes".into(),
            at: self.now,
        };
        let fresh = self.fresh("v");
        let mut volumes = self.objects.volumes.values_mut();
        let volume = volumes.find(|volume| volume.member == member);
        let volume = volume.ok_or(Refused("no volume"))?;
        guarded(&volume.version, version)?;
        assert!(bytes > volume.requested_bytes, "a volume only grows");
        assert!(volume.capacity_bytes.is_some(), "only a bound claim grows");
        if self.has_fixed_volumes {
            self.objects.refused_growth.insert(member, refused);
            return Ok(());
        }
        (volume.version, volume.requested_bytes) = (fresh, bytes);
        Ok(())
    }

    fn hand_volume(&mut self, from: MemberId, to: MemberId, version: &str) -> Outcome {
        let fresh = self.fresh("v");
        let has_pod = self.objects.pod_of(from).is_some();
        let has_volume = self.objects.volume_of(to).is_some();
        let mut volumes = self.objects.volumes.values_mut();
        let volume = volumes.find(|volume| volume.member == from);
        let volume = volume.ok_or(Refused("no volume"))?;
        guarded(&volume.version, version)?;
        assert!(!has_pod, "{from} still has a pod");
        assert!(!has_volume, "{to} has a volume");
        (volume.version, volume.member) = (fresh, to);
        Ok(())
    }

    fn label_pod(&mut self, member: MemberId, version: &str) -> Outcome {
        let fresh = self.fresh("v");
        let pod = self
            .objects
            .pods
            .values_mut()
            .find(|pod| pod.member == member)
            .ok_or(Refused("no pod"))?;
        guarded(&pod.version, version)?;
        pod.version = fresh;
        pod.is_voter = true;
        Ok(())
    }

    fn initialize(&mut self, on: MemberId, voters: &[MemberId]) -> Outcome {
        let set: BTreeSet<MemberId> = voters.iter().copied().collect();
        if let Some(config) = &self.raft.config {
            assert_eq!(
                config.voters, set,
                "initialize is only ever repeated with the same set"
            );
            return Ok(());
        }
        for voter in voters {
            let volume = self
                .objects
                .volume_of(*voter)
                .expect("every founder has a volume");
            assert_eq!(
                volume.state,
                VolumeState::Formatted,
                "every founder's volume is labelled first"
            );
            assert!(
                self.disks[&volume.uid].stamped,
                "every founder's volume is stamped first"
            );
        }
        self.raft.term = 1;
        self.raft.commit(Membership {
            voters: set,
            ..Membership::default()
        });
        let volume = self.objects.volume_of(on).ok_or(Refused("no volume"))?;
        if let Some(disk) = self.disks.get_mut(&volume.uid) {
            disk.known.clone_from(&self.raft.config);
        }
        Ok(())
    }

    fn reserve(&mut self, seen: &TaskStoreCluster, count: u32) -> Outcome {
        let mut status = seen.status.clone().unwrap_or_default();
        let operation = status.operation.as_mut().ok_or(Refused("no operation"))?;
        // A member knows its log and nothing of volumes: every id of any configuration it ever applied counts.
        let highest = self.raft.given.last().map_or(0, |member| member.0);
        if operation.kind == OperationKind::Replace {
            let begun = operation.started_at.0;
            self.replacements.insert(operation.id.clone(), begun);
            let is_near =
                |at: &&Timestamp| at.duration_since(begun).abs() < SignedDuration::from_hours(1);
            let near = self.replacements.values().filter(is_near).count();
            let most = usize::try_from(seen.spec.replacement.max_per_hour).unwrap_or(0);
            assert!(near <= most, "{near} replacements begin within an hour");
        }
        let numbers = self
            .raft
            .reserved
            .entry(operation.id.clone())
            .or_insert_with(|| {
                (1..=u64::from(count))
                    .map(|n| MemberId(highest + n))
                    .collect()
            })
            .clone();
        self.raft.given.extend(&numbers);
        operation.members = numbers;
        operation.step = crds::status::Step::CreateMembers;
        self.recheck_cluster(seen)?;
        self.write_status(status);
        Ok(())
    }

    fn commit(&mut self, next: Membership) {
        self.raft.commit(next);
        self.raft.spread(&self.objects, &mut self.disks);
    }

    fn guarded_config(&self, guard: Guard) -> Result<Membership, Refused> {
        let config = self
            .raft
            .config
            .clone()
            .ok_or(Refused("no configuration"))?;
        let leads = |leader| serves(&self.objects, &self.disks, leader);
        let holds = self.raft.leader.is_some_and(leads)
            && has_quorum(&self.objects, &self.disks, &config)
            && self.raft.term == guard.term
            && config.log_id == guard.log_id;
        if holds {
            Ok(config)
        } else {
            Err(Refused("the configuration or the term moved"))
        }
    }

    fn set_voters(&mut self, voters: &BTreeSet<MemberId>, guard: Guard) -> Outcome {
        let mut next = self.guarded_config(guard)?;
        let added: Vec<MemberId> = voters.difference(&next.voters).copied().collect();
        let removed: Vec<MemberId> = next.voters.difference(voters).copied().collect();
        self.referee_change(&added, &removed);
        for member in &added {
            assert!(
                next.learners.contains(member),
                "{member} was not a learner before"
            );
            // Gone since the decision was made, it counts for nothing until it is made again.
            if let Some(pod) = self.objects.pod_of(*member) {
                assert!(pod.is_voter, "a new voter is counted by the budget first");
            }
        }
        let leader = self.raft.leader.expect("guarded");
        assert!(
            !removed.contains(&leader),
            "a leader hands over before it goes"
        );
        let budget = self
            .objects
            .budget
            .as_ref()
            .expect("a change needs a budget");
        let counted = self
            .objects
            .pods
            .values()
            .filter(|pod| pod.is_voter && pod.ready);
        assert!(
            budget.disruptions_allowed == 0 && budget.min_available as usize >= counted.count(),
            "the voters are changed with an open budget"
        );
        next.learners.retain(|learner| !voters.contains(learner));
        next.voters.clone_from(voters);
        next.outgoing.clear();
        self.commit(next);
        self.referee_quorum("the voters were set");
        Ok(())
    }
}

impl World {
    /// A scale only adds or only removes; a replacement does one of each, and takes only who was lost.
    fn referee_change(&self, added: &[MemberId], removed: &[MemberId]) {
        if added.is_empty() || removed.is_empty() {
            return;
        }
        let status = self.cluster.as_ref().and_then(|known| known.status.clone());
        let operation = status.and_then(|status| status.operation);
        let operation = operation.expect("voters are exchanged by an operation");
        assert_eq!(operation.kind, OperationKind::Replace);
        assert_eq!((added.len(), removed.len()), (1, 1), "one for one");
        assert_eq!(added, operation.members.as_slice());
        assert_eq!(operation.replaces.as_ref(), removed.first());
        assert!(
            self.lost.contains(&removed[0]),
            "{} is replaced and was never lost",
            removed[0]
        );
    }
}

/// No node has as much as this.
fn asks_too_much(pod: &Pod) -> bool {
    let requests = pod.spec.as_ref().and_then(|spec| {
        let resources = resources::pod::member_container(spec)?.resources.as_ref()?;
        resources.requests.as_ref()?.get("cpu")
    });
    requests
        .and_then(crds::quantity::units)
        .is_some_and(|cpus| cpus > 64)
}

pub fn guarded(now: &str, seen: &str) -> Outcome {
    if now == seen {
        Ok(())
    } else {
        Err(Refused("the object moved"))
    }
}
