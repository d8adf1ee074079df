//! A small model of Kubernetes and of Raft that plans are applied to: deterministic, with versions, UIDs
//! and guards, and a referee that fails the test when a plan breaks a promise.
//!
//! Pods and volumes are really rendered and read back, so builders and readers are tested on the way. Members
//! are a faithful abstraction of Raft's membership and liveness: a leader exists while a quorum of every half
//! is up, a change commits at once, and every running member of a configuration knows it.

// Each test program uses its own part of the world.
#![allow(dead_code)]

pub mod backups;
mod bucket;
mod effects;
mod kubernetes;
mod raft;
pub mod server;
pub mod sidecar;
pub mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use crds::cluster::{TaskStoreClusterSpec, VolumePolicy};
use crds::{MemberId, TaskStoreCluster};
use jiff::{SignedDuration, Timestamp};
use operator::error::Error;
use operator::observe::backups::Orders;
use operator::observe::{
    Authority, Budget, ClientSecret, Credentials, Drift, Filled, Life, Object, Observed, Owner,
    Pod, VolumeState,
};
use operator::plan::{Plan, plan};
use operator::status;

pub use effects::Refused;
pub use raft::{Disk, Raft};

pub struct World {
    pub cluster: Option<TaskStoreCluster>,
    pub objects: Observed,
    /// By volume UID: a disk outlives its pod, and never its claim.
    pub disks: BTreeMap<String, Disk>,
    pub raft: Raft,
    pub now: Timestamp,
    /// Nodes that take no new pods.
    pub cordoned: Vec<String>,
    /// Nodes without power: their pods neither run nor vanish.
    pub dead: Vec<String>,
    /// Members that were seen unable to work, as their leader could tell.
    pub lost: BTreeSet<MemberId>,
    /// When each replacement began, by the id of its operation.
    pub replacements: BTreeMap<String, Timestamp>,
    /// Their class lets no volume grow.
    pub has_fixed_volumes: bool,
    pub bucket: backups::Bucket,
    /// Instead of what was asked for.
    pub bucket_says: Option<Filled>,
    /// Secrets of the user's that are there.
    pub secrets: Vec<String>,
    /// By pod UID: the container that a changed image replaces.
    replaced: BTreeMap<String, String>,
    /// Containers of apps that a changed image replaces.
    replaced_apps: BTreeSet<String>,
    /// UIDs of pods that ask for more than any node has.
    too_big: BTreeSet<String>,
    /// A process has just begun: no member has reported to it, and it knows of no Secret.
    is_new_process: bool,
    counter: u64,
}

pub const NODES: [(&str, &str); 4] = [("n1", "a"), ("n2", "b"), ("n3", "c"), ("n4", "a")];

/// A member of the first incarnation.
pub fn m(number: u32) -> MemberId {
    MemberId::new(1, number)
}

impl World {
    /// A cluster of this size that has come to rest.
    pub fn at_rest(size: i32) -> Self {
        let mut world = Self::new();
        world.create(size, VolumePolicy::Retain, VolumePolicy::Retain);
        world.run();
        world
    }

    pub fn new() -> Self {
        Self {
            cluster: None,
            objects: Observed {
                default_image: "taskstore:1".into(),
                ..Observed::default()
            },
            disks: BTreeMap::new(),
            raft: Raft::default(),
            now: Timestamp::from_second(1_795_000_000).unwrap(),
            cordoned: Vec::new(),
            dead: Vec::new(),
            lost: BTreeSet::new(),
            replacements: BTreeMap::new(),
            has_fixed_volumes: false,
            bucket: backups::Bucket::default(),
            bucket_says: None,
            secrets: Vec::new(),
            replaced: BTreeMap::new(),
            replaced_apps: BTreeSet::new(),
            too_big: BTreeSet::new(),
            is_new_process: false,
            counter: 0,
        }
    }

    pub fn create(&mut self, replicas: i32, when_deleted: VolumePolicy, when_scaled: VolumePolicy) {
        let mut spec = TaskStoreClusterSpec {
            replicas,
            ..TaskStoreClusterSpec::default()
        };
        spec.storage.when_deleted = when_deleted;
        spec.storage.when_scaled = when_scaled;
        let mut cluster = TaskStoreCluster::new("demo", spec);
        cluster.metadata.namespace = Some("shop".into());
        cluster.metadata.uid = Some(self.fresh("uid"));
        cluster.metadata.generation = Some(1);
        cluster.metadata.resource_version = Some(self.fresh("v"));
        self.cluster = Some(cluster);
    }

    pub fn fresh(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}", self.counter)
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut TaskStoreCluster)) {
        let version = self.fresh("v");
        let cluster = self.cluster.as_mut().expect("there is a cluster");
        change(cluster);
        cluster.metadata.generation = cluster.metadata.generation.map(|generation| generation + 1);
        cluster.metadata.resource_version = Some(version);
    }

    /// An app of one container beside each member; another command takes other pods.
    pub fn set_template(&mut self, image: &str, command: &str) {
        let template = serde_json::json!({
            "spec": {"containers": [{"name": "app", "image": image, "command": [command]}]},
        });
        let template = serde_json::from_value(template).expect("a template");
        self.edit(|cluster| cluster.spec.template = Some(template));
        let cluster = self.cluster.as_ref().expect("there is a cluster");
        assert_eq!(crds::validate(cluster, None), []);
    }

    pub fn uid(&self) -> String {
        self.cluster
            .as_ref()
            .and_then(|cluster| cluster.metadata.uid.clone())
            .unwrap_or_default()
    }

    /// What an operator sees now.
    pub fn observe(&self) -> Observed {
        let mut observed = self.objects.clone();
        if !self.is_new_process {
            observed.members = self.raft.reports(&self.objects, &self.disks);
        }
        observed.restore = self.restore_seen();
        observed.credentials.client_secret = self.client_secret().map(|name| {
            let state = if self.secrets.contains(&name) {
                ClientSecret::Good
            } else {
                ClientSecret::Missing
            };
            (name, state)
        });
        observed
    }

    fn client_secret(&self) -> Option<String> {
        self.cluster.as_ref()?.spec.tls.secret_name.clone()
    }

    /// The operator dies, and another process takes over.
    pub fn replace_operator(&mut self) {
        self.objects.credentials = Credentials::default();
        self.objects.refused_growth.clear();
        self.objects.backups.orders = Orders::default();
        self.is_new_process = true;
    }

    /// What one operator would do on what it saw.
    pub fn think(&self, seen: &(TaskStoreCluster, Observed)) -> Plan {
        let first = plan(&seen.0, &seen.1, self.now);
        assert_eq!(
            first,
            plan(&seen.0, &seen.1, self.now),
            "the same input gives the same plan"
        );
        first
    }

    pub fn look(&self) -> Option<(TaskStoreCluster, Observed)> {
        Some((self.cluster.clone()?, self.observe()))
    }

    /// One pass of an operator that dies after `effects_max` effects. Answers what it did.
    pub fn pass(&mut self, seen: &(TaskStoreCluster, Observed), effects_max: usize) -> Vec<String> {
        let thought = self.think(seen);
        self.is_new_process = false;
        let mut done = Vec::new();
        if thought.must_record(&seen.0) {
            if effects_max > 0 && self.report(seen, &thought, None).is_ok() {
                done.push(describe(&seen.0, &thought));
            }
            return done;
        }
        for action in thought.actions.iter().take(effects_max) {
            match self.effect(seen, action) {
                Ok(()) => done.push(action.to_string()),
                Err(Refused(why)) => {
                    done.push(format!("{action}: refused, {why}"));
                    break;
                }
            }
        }
        if done.len() < effects_max {
            let _ = self.report(seen, &thought, None);
        }
        done
    }

    /// Writes status onto the version it was made from.
    fn report(
        &mut self,
        seen: &(TaskStoreCluster, Observed),
        thought: &Plan,
        failure: Option<&Error>,
    ) -> Result<(), Refused> {
        let wanted = status::next(&seen.0, &seen.1, thought, failure, self.now);
        self.recheck_cluster(&seen.0)?;
        if seen.0.status.as_ref() != Some(&wanted) {
            self.write_status(wanted);
        }
        Ok(())
    }

    pub fn write_status(&mut self, status: crds::TaskStoreClusterStatus) {
        let version = self.fresh("v");
        if let Some(cluster) = self.cluster.as_mut() {
            cluster.status = Some(status);
            cluster.metadata.resource_version = Some(version);
        }
    }

    /// Everything that happens without us: scheduling, kubelets, garbage collection, elections, the budget's
    /// controller. True when anything changed.
    pub fn turn(&mut self) -> bool {
        let before = (self.objects.clone(), self.raft.clone(), self.disks.clone());
        self.collect_garbage();
        self.schedule();
        self.grow_volumes();
        self.run_pods();
        self.fill_disks();
        self.raft.rewrite(&self.objects, &mut self.disks);
        self.raft.turn(&self.objects, &mut self.disks);
        self.ready_pods();
        self.run_apps();
        self.observe_budget();
        self.note_losses();
        self.run_orders();
        self.run_drill();
        self.number_pods(&before.0);
        before != (self.objects.clone(), self.raft.clone(), self.disks.clone())
    }

    /// The cluster object is gone: what it owned belongs to nobody that exists.
    pub fn delete_cluster(&mut self) {
        self.cluster = None;
        self.objects.credentials = Credentials::default();
        let disown = |owner: &mut Owner| {
            if *owner == Owner::Ours {
                *owner = Owner::Other;
            }
        };
        self.objects
            .pods
            .values_mut()
            .for_each(|pod| disown(&mut pod.owner));
        self.objects
            .volumes
            .values_mut()
            .for_each(|volume| disown(&mut volume.owner));
        for object in [
            &mut self.objects.account,
            &mut self.objects.client_service,
            &mut self.objects.peer_service,
        ]
        .into_iter()
        .flatten()
        {
            disown(&mut object.owner);
        }
        if let Some(budget) = self.objects.budget.as_mut() {
            disown(&mut budget.object.owner);
        }
    }

    /// Whom an operator may find lost: without a word to the leader, or on a volume that is not to be used.
    fn note_losses(&mut self) {
        let Some(config) = &self.raft.config else {
            return;
        };
        let is_lost = |member: &&MemberId| {
            let is_retired = self
                .objects
                .volume_of(**member)
                .is_some_and(|volume| volume.state == VolumeState::Retired);
            is_retired || !raft::serves(&self.objects, &self.disks, **member)
        };
        let lost: Vec<MemberId> = config.voters.iter().filter(is_lost).copied().collect();
        self.lost.extend(lost);
    }

    /// Whether a member is at work.
    pub fn serves(&self, member: MemberId) -> bool {
        raft::serves(&self.objects, &self.disks, member)
    }

    /// Voters up, members on their way out not counted, must be a quorum.
    pub fn referee_quorum(&self, after: &str) {
        let Some(config) = &self.raft.config else {
            return;
        };
        let up = config
            .voters
            .iter()
            .filter(|voter| raft::serves(&self.objects, &self.disks, **voter))
            .count();
        assert!(
            up * 2 > config.voters.len(),
            "{after} and only {up} of {} voters are up",
            config.voters.len()
        );
    }

    /// Passes and turns until nothing moves; the transcript of it.
    pub fn run(&mut self) -> Vec<String> {
        let mut transcript = Vec::new();
        for _ in 0..200 {
            let moved = self.turn();
            let Some(seen) = self.look() else {
                if moved {
                    continue;
                }
                return transcript;
            };
            let done = self.pass(&seen, usize::MAX);
            let wrote = self.look().map(|now| now.0.metadata.resource_version)
                != Some(seen.0.metadata.resource_version);
            if !moved && done.is_empty() && !wrote {
                return transcript;
            }
            transcript.extend(done);
        }
        panic!("nothing settles: {transcript:#?}");
    }

    /// Words of the waits that are left.
    pub fn waits(&self) -> Vec<String> {
        let Some(seen) = self.look() else {
            return Vec::new();
        };
        self.think(&seen)
            .waiting
            .iter()
            .map(|waiting| format!("waits: {}", waiting.words()))
            .collect()
    }

    pub fn label_volume(&mut self, member: MemberId, state: VolumeState) {
        let version = self.fresh("v");
        let volume = self
            .objects
            .volumes
            .values_mut()
            .find(|volume| volume.member == member)
            .expect("the member has a volume");
        (volume.state, volume.version) = (state, version);
    }

    /// Its claim is gone, and its pod with it.
    pub fn lose_volume(&mut self, member: MemberId) {
        let Some(volume) = self.objects.volume_of(member).cloned() else {
            return;
        };
        self.objects.volumes.remove(&volume.name);
        self.disks.remove(&volume.uid);
        self.objects.pods.retain(|_, pod| pod.member != member);
    }

    /// The user puts the nonce of status into the spec.
    pub fn acknowledge(&mut self) {
        let status = self.cluster.as_ref().and_then(|known| known.status.clone());
        let offer = status.and_then(|status| status.recovery);
        let nonce = offer.and_then(|offer| offer.nonce);
        self.edit(|cluster| cluster.spec.recovery.acknowledge = nonce);
    }

    pub fn tick(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn pod_mut(&mut self, member: MemberId) -> &mut Pod {
        let version = self.fresh("v");
        let pod = self
            .objects
            .pods
            .values_mut()
            .find(|pod| pod.member == member)
            .expect("the member has a pod");
        pod.version = version;
        pod
    }

    /// The shape that every run must end in, whatever happened on the way.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for volume in self.objects.volumes.values() {
            let pod = self.objects.pod_of(volume.member);
            let pod = pod.map_or("no pod".to_owned(), |pod| {
                let phase = match pod.life {
                    Life::Present => format!("{:?}", pod.phase),
                    Life::Deleting => "Terminating".to_owned(),
                };
                format!("pod {phase} ready={} voter={}", pod.ready, pod.is_voter)
            });
            lines.push(format!(
                "{} {:?} {:?}, {pod}",
                volume.name, volume.state, volume.owner
            ));
        }
        if let Some(config) = &self.raft.config {
            lines.push(format!(
                "raft voters {} learners {}",
                operator::plan::action::list(&config.voters),
                operator::plan::action::list(&config.learners)
            ));
        }
        if let Some(budget) = &self.objects.budget {
            lines.push(format!("budget min={}", budget.min_available));
        }
        lines.extend(self.summary_of_backups());
        let status = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.status.clone())
            .unwrap_or_default();
        for condition in &status.conditions {
            lines.push(format!(
                "{} {} {}",
                condition.type_, condition.status, condition.reason
            ));
        }
        lines
    }

    /// The same without who the members are.
    pub fn shape(&self) -> Vec<String> {
        let in_use = self.objects.volumes.values();
        let in_use = in_use.filter(|volume| volume.state != VolumeState::Retired);
        let mut lines = vec![
            format!(
                "{} volumes, {} pods",
                in_use.count(),
                self.objects.pods.len()
            ),
            format!(
                "{} ready voters",
                self.objects
                    .pods
                    .values()
                    .filter(|pod| pod.ready && pod.is_voter)
                    .count()
            ),
        ];
        if let Some(config) = &self.raft.config {
            lines.push(format!(
                "raft {} voters {} learners",
                config.voters.len(),
                config.learners.len()
            ));
        }
        let of_objects = |line: &String| line.starts_with("demo-") || line.starts_with("raft ");
        lines.extend(self.summary().into_iter().filter(|line| !of_objects(line)));
        lines
    }

    fn authority(&self) -> Authority {
        let cluster = self.cluster.as_ref().expect("there is a cluster");
        let recorded = cluster
            .status
            .as_ref()
            .and_then(|status| status.identity.as_ref());
        let in_use = self
            .objects
            .volumes
            .values()
            .find(|volume| volume.state != VolumeState::Retired);
        let owner = match cluster.spec.storage.when_deleted {
            VolumePolicy::Delete => Owner::Ours,
            VolumePolicy::Retain => Owner::Nobody,
        };
        Authority {
            cluster_id: recorded
                .map(|identity| identity.cluster_id.clone())
                .or_else(|| in_use.map(|volume| volume.cluster_id.clone()))
                .unwrap_or_else(|| self.uid()),
            owner,
        }
    }

    fn object(&mut self) -> Object {
        Object {
            uid: self.fresh("uid"),
            version: self.fresh("v"),
            owner: Owner::Ours,
            drift: Drift::None,
        }
    }

    fn budget(&mut self, min_available: u32) -> Budget {
        Budget {
            object: self.object(),
            min_available,
            generation: 1,
            observed_generation: 0,
            disruptions_allowed: 0,
            expected: 0,
            healthy: 0,
            disrupted: 0,
        }
    }
}

fn describe(cluster: &TaskStoreCluster, thought: &Plan) -> String {
    let old = operator::plan::Progress::recorded(cluster);
    let new = &thought.progress;
    let mut words = Vec::new();
    if old.identity != new.identity
        && let Some(identity) = &new.identity
    {
        words.push(format!(
            "identity of {} founders, initialized={}",
            identity.founders.len(),
            identity.initialized
        ));
    }
    if old.operation != new.operation {
        words.push(match &new.operation {
            Some(operation) => format!(
                "operation {:?} at {:?} of [{}]",
                operation.kind,
                operation.step,
                operator::plan::action::list(&operation.members)
            ),
            None => "no operation".to_owned(),
        });
    }
    if old.membership != new.membership
        && let Some(membership) = &new.membership
    {
        words.push(format!(
            "voters {} learners {}",
            operator::plan::action::list(&membership.voters),
            operator::plan::action::list(&membership.learners)
        ));
    }
    if old.backup != new.backup {
        let backup = &new.backup;
        let accepted = if backup.accepted.is_some() {
            "accepted"
        } else {
            "not accepted"
        };
        let shipper = backup.shipper.map(operator::plan::action::short);
        let up_to = backup.scheduled_up_to.map(|at| at.to_string());
        words.push(format!(
            "destination {accepted}, log shipped by {}, scheduled up to {}",
            shipper.as_deref().unwrap_or("nobody"),
            up_to.as_deref().unwrap_or("never")
        ));
    }
    if old.recovery != new.recovery {
        words.push(match &new.recovery {
            Some(offer) => match offer.source {
                Some(source) => format!("recovery from {}", operator::plan::action::short(source)),
                None => "a lost majority".to_owned(),
            },
            None => "no recovery".to_owned(),
        });
    }
    if old.backup.drill != new.backup.drill
        && let Some(drill) = &new.backup.drill
    {
        words.push(match &drill.problem {
            Some(problem) => format!("drill failed: {problem}"),
            None => "drill passed".to_owned(),
        });
    }
    if old.restored != new.restored
        && let Some(restored) = &new.restored
    {
        words.push(format!("restored from {}", restored.backup));
    }
    format!("record {}", words.join("; "))
}
