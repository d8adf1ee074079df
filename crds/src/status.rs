//! What the operator reports. Only what flips is kept here; moving numbers are metrics.
//!
//! `identity` and `operation` are more than a report: they are written before anything is done, with
//! the object's resourceVersion, so that an operator that dies is picked up by the next one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::Lineage;
use crate::names::MemberId;

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStoreClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Who this cluster is. Written once, before the store is first initialized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Pod of the member that leads; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub leader: Option<String>,
    /// Raft's committed configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
    /// Every member that has a volume in use, ordered by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub members: Vec<MemberStatus>,
    /// The change in flight; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// When the last replacements of lost members began, oldest first: what `replacement.maxPerHour` counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub replacements: Vec<Time>,
    /// What the cluster began with, if a restore made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// What is left once a majority is lost, and the nonce to go on from it; absent while a leader is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryOffer>,
    /// How its backups stand; absent without `spec.backup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// What the running pods were made from. A newer operator goes on rendering with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// Short words for kubectl's columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Label selector of the members' pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Voters in the committed configuration.
    #[serde(default)]
    pub replicas: i32,
    /// Voters whose pod is Ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The state in words: see the condition types and reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Who this cluster is: what is stamped on every disk and checked in every handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// UID of the TaskStoreCluster that bootstrapped.
    #[schemars(length(max = 36))]
    pub cluster_id: String,
    /// Starts at 1; rises with every restore and every recovery from a lost majority.
    pub incarnation: u16,
    /// Member ids of the first voter set. `initialize` is called with exactly these.
    #[schemars(length(max = 7))]
    pub founders: Vec<MemberId>,
    /// Whether `initialize` is known to have succeeded.
    #[serde(default)]
    pub initialized: bool,
}

/// A committed Raft configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// Members that vote, ordered by id.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub voters: Vec<MemberId>,
    /// Members that follow the log and do not vote, ordered by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub learners: Vec<MemberId>,
    /// The outgoing voter set while a change is half done; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub joint: Vec<MemberId>,
    /// Where the configuration stands in the log: the guard of the next change.
    pub log_id: LogId,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct LogId {
    /// Term of the leader that wrote the entry.
    pub term: u64,
    /// Position of the entry in the log.
    pub index: u64,
}

/// One member, as its cluster sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Raft id: incarnation · 2³² + number; never given twice.
    pub id: MemberId,
    /// Name of its pod, and of its volume claim unless a recovery gave it another member's volume.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// UID of the one volume this member has for life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub pvc_uid: Option<String>,
    /// Node that its pod runs on, or ran on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Zone of that node, as the pod's topology label says; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub zone: Option<String>,
    /// What it is in the configuration: Joining, Learner, Voter or Leaving.
    pub role: Role,
    /// How it is, by the leader's word first, then by its own.
    pub health: Health,
    /// Since when role and health are what they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when it is lost without a break: not alive by the leader's word, or without its volume. Absent
    /// while it is well, and while no leader can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
    /// Version of TaskStore that it runs, as it last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Has a volume, is in no configuration yet.
    Joining,
    Learner,
    Voter,
    /// Removed from the configuration; its pod and volume are on their way out.
    Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Health {
    /// Nobody has reported on it. Unknown is never treated as dead.
    Unknown,
    /// Its pod runs; it has not caught up since its start.
    Starting,
    CaughtUp,
    Lagging,
    Unreachable,
    /// It refuses its own disk.
    Damaged,
    /// An empty directory where a formatted volume should be.
    Blank,
}

/// A change in flight. At most one per cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The same id gives the same reserved member numbers, so a retry makes no second set.
    #[schemars(length(max = 64))]
    pub id: String,
    /// What is changed: Bootstrap, Adopt, ScaleOut, ScaleIn, Replace, Rollout, Recover or Restore.
    pub kind: OperationKind,
    /// How far it has come; what it waits for is in the condition Progressing.
    pub step: Step,
    /// The members that come or go; in a rollout the one whose turn it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub members: Vec<MemberId>,
    /// The lost member whose place the new one takes, of a Replace; the survivor whose volume it takes, of a
    /// Recover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MemberId>,
    /// When it was first recorded; it goes on from there under every later operator.
    pub started_at: Time,
    /// When the condition Progressing starts to complain. Nothing is given up then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    Bootstrap,
    /// Takes up the volumes of a cluster that was deleted, or whose status was lost.
    Adopt,
    ScaleOut,
    ScaleIn,
    /// Gives the place of a lost voter to a new one.
    Replace,
    /// Brings a changed image or pod setting to running members, one at a time.
    Rollout,
    /// Goes on from one survivor of a lost majority, as the only voter of a new incarnation.
    Recover,
    /// Begins with what a bucket holds, in the only voter of a new incarnation.
    Restore,
}

/// Where an operation stands; each kind walks down its own column.
///
/// ```text
/// Bootstrap   Adopt    ScaleOut       ScaleIn      Replace        Rollout*     Recover      Restore
/// Format      Inspect  Reserve        CloseBudget  Reserve        CloseBudget  StopMembers  Fill
/// Initialize  Start    CreateMembers  HandOver     CreateMembers  HandOver     Rewrite      Start
///                      AddLearners    Remove       AddLearners    Restart      Start
///                      CatchUp        Retire       CatchUp        Rejoin
///                      CloseBudget                 HandOver
///                      Promote                     Promote
///                                                  Retire         * for each member
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    Format,
    Initialize,
    Inspect,
    Start,
    Reserve,
    CreateMembers,
    AddLearners,
    CatchUp,
    CloseBudget,
    Promote,
    HandOver,
    Remove,
    Retire,
    Restart,
    Rejoin,
    StopMembers,
    Rewrite,
    Fill,
}

/// A moment as it is written: Kubernetes keeps whole seconds, and what is compared with what was written must too.
pub fn whole_seconds(unix_ms: i64) -> Time {
    let at = jiff::Timestamp::from_second(unix_ms.div_euclid(1_000));
    Time(at.unwrap_or(jiff::Timestamp::MAX))
}

/// What a restored cluster began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The store that was backed up.
    pub parent: Lineage,
    /// The backup that was read.
    #[schemars(length(max = 253))]
    pub backup: String,
    /// The last log entry of that store that was restored.
    pub log_id: LogId,
    /// That store's time at this entry: what came later is not there.
    pub restored_to: Time,
    /// Hash of the state at this entry, before anything of it was given to this cluster.
    #[schemars(length(max = 64))]
    pub state_hash: String,
    /// Tasks that were restored.
    pub tasks: i64,
}

/// What is left of a cluster that has lost a majority of its voters. Nobody acts on it without the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryOffer {
    /// Since when a majority is missing without a break.
    pub since: Time,
    /// Put into `spec.recovery.acknowledge` it lets the cluster go on from `source`. Absent at first: members
    /// that only restart are back by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub nonce: Option<String>,
    /// The survivor whose log reaches furthest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<MemberId>,
    /// Members that answer and can read their disks, ordered by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub survivors: Vec<Survivor>,
    /// Members of the configuration that do not, ordered by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub missing: Vec<MemberId>,
    /// In words, what is lost by going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub loss_bound: Option<String>,
}

/// A member that is left, and how far its log reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Survivor {
    pub id: MemberId,
    /// Its last log entry; later ones only lost members can have.
    pub last_log: LogId,
}

/// How a cluster's backups stand. The first three fields are more than a report: they are written before
/// anything is done on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Hash of the destination that a member last found good, with every right that backups need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub accepted: Option<String>,
    /// Runs of the schedule up to this moment were made or made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_up_to: Option<Time>,
    /// The member that ships the log; absent while nobody is told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipper: Option<MemberId>,
    /// When the newest backup was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// What the last drill came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill: Option<Drill>,
    /// When the last drill ended that restored all; no upload alone sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified: Option<Time>,
    /// A restore can go to any moment from here, with the log shipped; without, to the moments of the backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable_from: Option<Time>,
    /// The last moment that a restore can go to, written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable_to: Option<Time>,
}

/// What a drill came to: a restore of what lies in the bucket, into nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// When its pod came to its end.
    pub ended_at: Time,
    /// Whose backups it was about: the destination in short, and the folder in it.
    #[schemars(length(max = 128))]
    pub about: String,
    /// Passed, Failed or Interrupted; the last says nothing about the backups.
    pub outcome: DrillOutcome,
    /// Why it did not pass, with the object of the bucket that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What a restore would have given at that moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable: Option<Restored>,
    /// The backup that led, with the log behind it, to the very state of the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub compared: Option<String>,
    /// The object that the log lacks between the two newest backups, so that they could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub gap: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrillOutcome {
    Passed,
    Failed,
    Interrupted,
}

/// What the running pods were made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Revision of the operator's pod renderer.
    pub renderer_revision: u32,
    /// Hash of the rendered pod without its images.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// Image of the members' container, of the first of them.
    #[schemars(length(max = 512))]
    pub image: String,
}

/// Short words for kubectl's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Healthy voters of all voters, like `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub members: Option<String>,
    /// The version of all members, or the lowest and the highest, like `0.1.0-0.2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 130))]
    pub version: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_after_it_was_written() {
        for unix_ms in [0, 1, 999, 1_769_860_800_123, -1] {
            let moment = whole_seconds(unix_ms);
            let written = serde_json::to_string(&moment).expect("a time is JSON");
            let read: Time = serde_json::from_str(&written).expect("it was written");
            assert_eq!(read, moment, "{unix_ms}");
            assert!(moment.0.as_millisecond() <= unix_ms, "never later");
        }
    }
}
