//! Everything the operator can do, each with why it is safe and the version of the world it was decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crds::MemberId;
use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::destination::Lineage;
use crds::status::{LogId, Survivor};

use crate::observe::Start;

/// The world a membership change was decided in; the change is refused unless both still hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    pub term: u64,
    pub log_id: LogId,
}

/// Objects that are made once and carry no state of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    ServiceAccount,
    PeerService,
    ClientService,
}

/// What carries an owner reference that may have to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    Volume,
    Pod,
    Fixture(Fixture),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Goes with the cluster.
    Cluster,
    /// Stays when the cluster is deleted.
    Nobody,
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodEnd {
    /// It ended and only holds its name.
    Ended,
    /// The whole cluster is laid to rest.
    Hibernated,
    /// It was started to inspect its volume, and has answered.
    Inspected,
    /// Its member left the configuration and its volume is retired.
    Retired,
    /// A majority is lost, and the user has acknowledged what goes with it.
    MajorityLost,
    /// It was started to rewrite its volume, or to fill it, and has done so.
    Rewritten,
}

/// What a change of a member's pod takes from the store while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// It does not run, or it does not vote.
    Nothing,
    /// One vote of these members.
    Vote { of: BTreeSet<MemberId> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    EnsureAuthority,
    EnsureClientCertificate,
    EnsureCertificate {
        member: MemberId,
    },
    DeleteCertificate {
        member: MemberId,
    },
    CreateFixture(Fixture),
    RepairFixture {
        fixture: Fixture,
        version: String,
    },
    SetOwner {
        kind: Owned,
        name: String,
        version: String,
        owner: Ownership,
    },
    CreateBudget {
        min_available: u32,
    },
    SetBudget {
        min_available: u32,
        version: String,
    },
    DeleteBudget {
        uid: String,
    },
    CreateVolume {
        member: MemberId,
    },
    MarkFormatted {
        member: MemberId,
        version: String,
    },
    RetireVolume {
        member: MemberId,
        version: String,
    },
    DeleteVolume {
        member: MemberId,
        uid: String,
    },
    /// Asks for a larger volume. What the class cannot do is refused and remembered.
    GrowVolume {
        member: MemberId,
        /// A quantity.
        size: String,
        version: String,
    },
    /// A member of a new incarnation takes over the volume of one that is no more.
    HandVolume {
        from: MemberId,
        to: MemberId,
        version: String,
    },
    /// Asks the survivors of a lost majority again, and changes nothing.
    ConfirmLoss {
        survivors: Vec<Survivor>,
    },
    CreatePod {
        member: MemberId,
        volume_uid: String,
        start: Start,
        is_voter: bool,
    },
    MarkVoter {
        member: MemberId,
        version: String,
    },
    DeletePod {
        member: MemberId,
        uid: String,
        why: PodEnd,
    },
    /// Another image in the pod as it is: only the container restarts.
    SetImage {
        member: MemberId,
        image: String,
        version: String,
        /// The container that is to go.
        replaces: Option<String>,
        cost: Cost,
    },
    /// Other images of the containers around a member, in the pod as it is: the member runs on.
    SetAppImages {
        member: MemberId,
        /// By container.
        images: BTreeMap<String, String>,
        version: String,
        /// The containers that are to go.
        replaces: Vec<String>,
    },
    /// Deletes a pod that is outdated; another one is made for the same member and volume.
    RenewPod {
        member: MemberId,
        uid: String,
        version: String,
        cost: Cost,
    },
    Format {
        member: MemberId,
        volume_uid: String,
    },
    Initialize {
        on: MemberId,
        voters: Vec<MemberId>,
    },
    ReserveMembers {
        leader: MemberId,
        count: u32,
    },
    AddLearners {
        leader: MemberId,
        members: Vec<MemberId>,
        guard: Guard,
    },
    RemoveLearners {
        leader: MemberId,
        members: Vec<MemberId>,
        guard: Guard,
    },
    SetVoters {
        leader: MemberId,
        voters: BTreeSet<MemberId>,
        guard: Guard,
    },
    TransferLeader {
        leader: MemberId,
        to: MemberId,
        term: u64,
    },
    SetFenced {
        member: MemberId,
        fenced: bool,
    },
    /// A member is to look whether backups can be written where the spec says.
    CheckDestination {
        member: MemberId,
        about: String,
        failures: u32,
    },
    /// A run of the schedule.
    CreateBackup {
        name: String,
    },
    /// A member is to write a backup, or to find it.
    OrderBackup {
        name: String,
        uid: String,
        member: MemberId,
        /// Name and checksum of the one before it.
        previous: Option<(String, String)>,
        failures: u32,
    },
    /// What a TaskStoreBackup says of itself.
    NoteBackup {
        name: String,
        version: String,
        status: Box<TaskStoreBackupStatus>,
    },
    /// A member is to delete in the bucket what need not be kept.
    PruneBackups {
        member: MemberId,
        about: String,
        in_use: BTreeSet<String>,
        failures: u32,
    },
    /// The object of a backup that is no more in the bucket.
    DeleteBackup {
        name: String,
        uid: String,
    },
    /// Restores what lies in this folder, in a pod of its own.
    CreateDrill {
        about: String,
        lineage: Lineage,
    },
    DeleteDrill {
        uid: String,
    },
    ShipLog {
        member: MemberId,
        about: String,
        /// Who did so before.
        instead_of: Option<MemberId>,
        failures: u32,
    },
    StopShipping {
        member: MemberId,
        failures: u32,
    },
}

/// What `apply` reads again, uncached, right before it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// Nothing: the write itself is refused when the world moved.
    Nothing,
    /// The cluster object must still be the version the plan was made for, so that no operator that
    /// came later has recorded an operation that needs what is about to go.
    Cluster,
    /// The cluster object as above, and the disruption budget with the pods that it counts: closed for
    /// certain. What a cache shows closed may have been opened since.
    Quorum,
    /// The cluster object as above, and the volume: there with the same UID, not retired. A pod that is made
    /// late may be one of many that vote together once more.
    Volume,
}

impl Recheck {
    pub fn of_cluster(self) -> bool {
        self != Self::Nothing
    }
}

impl Action {
    /// The reason this can do no harm, even when planned twice, late, or by a second operator.
    pub fn is_safe_because(&self) -> &'static str {
        match self {
            Self::EnsureAuthority
            | Self::EnsureClientCertificate
            | Self::EnsureCertificate { .. } => {
                "a create that exists already is read instead, a replace carries the resourceVersion"
            }
            Self::DeleteCertificate { .. } => {
                "the member's volume is retired, it never starts again"
            }
            Self::CreateFixture(_) | Self::CreateBudget { .. } => {
                "a create that exists already changes nothing"
            }
            Self::RepairFixture { .. } | Self::SetOwner { .. } => {
                "the patch tests the resourceVersion it was decided on"
            }
            Self::SetBudget { .. } => {
                "the write tests the resourceVersion, and no operation was recorded since it was decided"
            }
            Self::DeleteBudget { .. } => "a single voter has no quorum to protect; deleted by UID",
            Self::CreateVolume { .. } => "its member never had a volume and is in no configuration",
            Self::MarkFormatted { .. } => "the member reported the stamp of this very volume",
            Self::RetireVolume { .. } => {
                "its member is in no committed configuration and in no operation"
            }
            Self::HandVolume { .. } => {
                "no pod of the earlier incarnation is left on it, and the patch tests the resourceVersion"
            }
            Self::ConfirmLoss { .. } => "it only asks",
            Self::GrowVolume { .. } => {
                "a volume grows under a running member, and the patch tests the resourceVersion"
            }
            Self::DeleteVolume { .. } => "it is retired, its pod is gone, and the spec says Delete",
            Self::CreatePod { .. } => "its volume was read again: the same UID, not retired",
            Self::MarkVoter { .. } => "counting one more pod only closes the budget further",
            Self::DeletePod {
                why: PodEnd::Ended, ..
            } => "it has ended by itself; deleted by UID",
            Self::DeletePod {
                why: PodEnd::Inspected,
                ..
            } => "it neither votes nor serves; deleted by UID",
            Self::DeletePod {
                why: PodEnd::Retired,
                ..
            } => "its member left the committed configuration; deleted by UID",
            Self::DeletePod {
                why: PodEnd::Hibernated,
                ..
            } => "the spec asks for it and was read again; its volume stays; deleted by UID",
            Self::DeletePod {
                why: PodEnd::MajorityLost,
                ..
            } => "the user acknowledged it and the survivors were asked again; deleted by UID",
            Self::DeletePod {
                why: PodEnd::Rewritten,
                ..
            } => "it neither votes nor serves; deleted by UID",
            Self::SetImage {
                cost: Cost::Nothing,
                ..
            }
            | Self::RenewPod {
                cost: Cost::Nothing,
                ..
            } => {
                "nothing that votes stops for it, and the change is refused when the pod has moved"
            }
            Self::SetImage { .. } | Self::RenewPod { .. } => {
                "all other voters run under a closed budget, and the change is refused when the pod has moved"
            }
            Self::SetAppImages { .. } => {
                "the member is not touched, and the change is refused when the pod has moved"
            }
            Self::Format { .. } => {
                "the member refuses unless its directory is empty and all four values match"
            }
            Self::Initialize { .. } => {
                "the same recorded set every time, on empty stamped disks only"
            }
            Self::ReserveMembers { .. } => "the same operation gets the same numbers",
            Self::AddLearners { .. } | Self::RemoveLearners { .. } => {
                "learners do not vote, and the change is refused when the configuration moved"
            }
            Self::SetVoters { .. } => {
                "one joint change under a closed budget, refused when the configuration or the term moved"
            }
            Self::SetFenced { fenced: true, .. } => {
                "it keeps its seat and its vote, another voter that can lead is there, and the spec was read again"
            }
            Self::SetFenced { fenced: false, .. } => "the spec was read again",
            Self::CheckDestination { .. } => "it leaves nothing behind",
            Self::CreateBackup { .. } => "every operator gives this run the same name",
            Self::OrderBackup { .. } => {
                "the same name again finds what is there, and a backup is whole or none"
            }
            Self::NoteBackup { .. } => "the write tests the resourceVersion it was decided on",
            Self::PruneBackups { .. } => {
                "the spec was read again, and the newest and those that a restore reads stay"
            }
            Self::DeleteBackup { .. } => "its data is gone, or it never had any; deleted by UID",
            Self::CreateDrill { .. } => "it reads the bucket and knows no member",
            Self::DeleteDrill { .. } => "it keeps nothing; deleted by UID",
            Self::ShipLog { .. } => "two that ship the same log leave the same entries behind",
            Self::StopShipping { .. } => "the spec was read again",
            Self::TransferLeader { .. } => {
                "Raft elects; the term it was decided in must still hold"
            }
        }
    }

    pub fn recheck(&self) -> Recheck {
        match self {
            Self::CreatePod { .. } => Recheck::Volume,
            Self::RetireVolume { .. }
            | Self::DeleteVolume { .. }
            | Self::DeleteCertificate { .. }
            | Self::CreateVolume { .. }
            | Self::SetBudget { .. }
            | Self::DeleteBudget { .. }
            | Self::RemoveLearners { .. }
            | Self::Initialize { .. }
            | Self::SetFenced { .. }
            | Self::CreateBackup { .. }
            | Self::PruneBackups { .. }
            | Self::DeleteBackup { .. }
            | Self::ShipLog { .. }
            | Self::StopShipping { .. }
            | Self::HandVolume { .. }
            | Self::DeletePod {
                why: PodEnd::Retired | PodEnd::Hibernated | PodEnd::MajorityLost,
                ..
            }
            | Self::SetAppImages { .. }
            | Self::SetImage {
                cost: Cost::Nothing,
                ..
            }
            | Self::RenewPod {
                cost: Cost::Nothing,
                ..
            } => Recheck::Cluster,
            Self::SetVoters { .. } | Self::SetImage { .. } | Self::RenewPod { .. } => {
                Recheck::Quorum
            }
            _ => Recheck::Nothing,
        }
    }

    /// With what a survivor's volume is taken over: the member that had it, and who gets it. No pod of an earlier
    /// incarnation may be left then, but those that the user has accepted; they are listed uncached.
    pub fn succession(&self) -> Option<(MemberId, MemberId)> {
        match self {
            Self::HandVolume { from, to, .. } => Some((*from, *to)),
            Self::CreatePod {
                member,
                start: Start::Rewrite { from },
                ..
            } => Some((*from, *member)),
            _ => None,
        }
    }

    /// One word for events and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EnsureAuthority => "EnsureAuthority",
            Self::EnsureClientCertificate => "EnsureClientCertificate",
            Self::EnsureCertificate { .. } => "EnsureCertificate",
            Self::DeleteCertificate { .. } => "DeleteCertificate",
            Self::CreateFixture(_) => "CreateFixture",
            Self::RepairFixture { .. } => "RepairFixture",
            Self::SetOwner { .. } => "SetOwner",
            Self::CreateBudget { .. } => "CreateBudget",
            Self::SetBudget { .. } => "SetBudget",
            Self::DeleteBudget { .. } => "DeleteBudget",
            Self::CreateVolume { .. } => "CreateVolume",
            Self::MarkFormatted { .. } => "MarkFormatted",
            Self::RetireVolume { .. } => "RetireVolume",
            Self::DeleteVolume { .. } => "DeleteVolume",
            Self::HandVolume { .. } => "HandVolume",
            Self::ConfirmLoss { .. } => "ConfirmLoss",
            Self::GrowVolume { .. } => "GrowVolume",
            Self::CreatePod { .. } => "CreatePod",
            Self::MarkVoter { .. } => "MarkVoter",
            Self::DeletePod { .. } => "DeletePod",
            Self::SetImage { .. } => "SetImage",
            Self::SetAppImages { .. } => "SetAppImages",
            Self::RenewPod { .. } => "RenewPod",
            Self::Format { .. } => "Format",
            Self::Initialize { .. } => "Initialize",
            Self::ReserveMembers { .. } => "ReserveMembers",
            Self::AddLearners { .. } => "AddLearners",
            Self::RemoveLearners { .. } => "RemoveLearners",
            Self::SetVoters { .. } => "SetVoters",
            Self::TransferLeader { .. } => "TransferLeader",
            Self::SetFenced { .. } => "SetFenced",
            Self::CheckDestination { .. } => "CheckDestination",
            Self::CreateBackup { .. } => "CreateBackup",
            Self::OrderBackup { .. } => "OrderBackup",
            Self::NoteBackup { status, .. } => match status.phase {
                BackupPhase::Completed => "CompleteBackup",
                BackupPhase::Failed => "FailBackup",
                _ => "NoteBackup",
            },
            Self::PruneBackups { .. } => "PruneBackups",
            Self::DeleteBackup { .. } => "DeleteBackup",
            Self::CreateDrill { .. } => "CreateDrill",
            Self::DeleteDrill { .. } => "DeleteDrill",
            Self::ShipLog { .. } => "ShipLog",
            Self::StopShipping { .. } => "StopShipping",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnsureAuthority => write!(f, "ensure certificate authority"),
            Self::EnsureClientCertificate => write!(f, "ensure client certificate"),
            Self::EnsureCertificate { member } => {
                write!(f, "ensure certificate of {}", short(*member))
            }
            Self::DeleteCertificate { member } => {
                write!(f, "delete certificate of {}", short(*member))
            }
            Self::CreateFixture(fixture) => write!(f, "create {fixture:?}"),
            Self::RepairFixture { fixture, .. } => write!(f, "repair {fixture:?}"),
            Self::SetOwner { name, owner, .. } => write!(f, "set owner of {name} to {owner:?}"),
            Self::CreateBudget { min_available } => write!(f, "create budget min={min_available}"),
            Self::SetBudget { min_available, .. } => write!(f, "set budget min={min_available}"),
            Self::DeleteBudget { .. } => write!(f, "delete budget"),
            Self::CreateVolume { member } => write!(f, "create volume of {}", short(*member)),
            Self::MarkFormatted { member, .. } => {
                write!(f, "mark volume of {} formatted", short(*member))
            }
            Self::RetireVolume { member, .. } => write!(f, "retire volume of {}", short(*member)),
            Self::DeleteVolume { member, .. } => write!(f, "delete volume of {}", short(*member)),
            Self::GrowVolume { member, size, .. } => {
                write!(f, "grow volume of {} to {}", short(*member), size)
            }
            Self::HandVolume { from, to, .. } => {
                write!(f, "hand volume of {} to {}", short(*from), short(*to))
            }
            Self::ConfirmLoss { survivors } => {
                let ids = survivors.iter().map(|survivor| &survivor.id);
                write!(f, "confirm that only {} are left", list(ids))
            }
            Self::CreatePod {
                member,
                start,
                is_voter,
                ..
            } => {
                let role = if *is_voter { "voter" } else { "not a voter" };
                write!(f, "create pod of {} ({start:?}, {role})", short(*member))
            }
            Self::MarkVoter { member, .. } => write!(f, "mark {} a voter", short(*member)),
            Self::DeletePod { member, why, .. } => {
                write!(f, "delete pod of {} ({why:?})", short(*member))
            }
            Self::SetImage { member, image, .. } => {
                write!(f, "set image of {} to {image}", short(*member))
            }
            Self::SetAppImages { member, images, .. } => {
                let images: Vec<String> = images
                    .iter()
                    .map(|(container, image)| format!("{container} to {image}"))
                    .collect();
                let images = images.join(", ");
                write!(f, "set images beside {}: {images}", short(*member))
            }
            Self::RenewPod { member, .. } => {
                write!(f, "delete pod of {} (Outdated)", short(*member))
            }
            Self::Format { member, .. } => write!(f, "format {}", short(*member)),
            Self::Initialize { on, voters } => {
                write!(f, "initialize on {} with {}", short(*on), list(voters))
            }
            Self::ReserveMembers { leader, count } => {
                write!(f, "reserve {count} members at {}", short(*leader))
            }
            Self::AddLearners { members, guard, .. } => {
                write!(f, "add learners {} at {}", list(members), at(*guard))
            }
            Self::RemoveLearners { members, guard, .. } => {
                write!(f, "remove learners {} at {}", list(members), at(*guard))
            }
            Self::SetVoters { voters, guard, .. } => {
                write!(f, "set voters {} at {}", list(voters), at(*guard))
            }
            Self::SetFenced { member, fenced } => {
                let verb = if *fenced { "fence" } else { "unfence" };
                write!(f, "{verb} {}", short(*member))
            }
            Self::CheckDestination { member, .. } => {
                write!(f, "look at the destination from {}", short(*member))
            }
            Self::CreateBackup { name } => write!(f, "create backup {name}"),
            Self::OrderBackup { name, member, .. } => {
                write!(f, "order backup {name} of {}", short(*member))
            }
            Self::NoteBackup { name, status, .. } => {
                write!(f, "note backup {name} {:?}", status.phase)?;
                if let Some(percent) = status.progress_percent {
                    write!(f, " {percent}%")?;
                }
                match &status.message {
                    Some(message) => write!(f, ": {message}"),
                    None => Ok(()),
                }
            }
            Self::PruneBackups { member, in_use, .. } => {
                write!(f, "prune backups from {}", short(*member))?;
                match in_use.is_empty() {
                    true => Ok(()),
                    false => write!(f, " but {in_use:?}"),
                }
            }
            Self::DeleteBackup { name, .. } => write!(f, "delete backup {name}"),
            Self::CreateDrill { .. } => write!(f, "restore the backups in a drill"),
            Self::DeleteDrill { .. } => write!(f, "delete the pod of the drill"),
            Self::ShipLog {
                member, instead_of, ..
            } => {
                write!(f, "ship log from {}", short(*member))?;
                match instead_of {
                    Some(before) => write!(f, " instead of {}", short(*before)),
                    None => Ok(()),
                }
            }
            Self::StopShipping { member, .. } => {
                write!(f, "stop shipping log from {}", short(*member))
            }
            Self::TransferLeader { leader, to, .. } => {
                write!(
                    f,
                    "transfer leadership from {} to {}",
                    short(*leader),
                    short(*to)
                )
            }
        }
    }
}

/// `m3`, and `i2m3` in later incarnations.
pub fn short(member: MemberId) -> String {
    match member.incarnation() {
        1 => format!("m{}", member.number()),
        later => format!("i{later}m{}", member.number()),
    }
}

pub fn list<'a>(members: impl IntoIterator<Item = &'a MemberId>) -> String {
    members
        .into_iter()
        .map(|member| short(*member))
        .collect::<Vec<_>>()
        .join(",")
}

fn at(guard: Guard) -> String {
    format!("{}.{}", guard.log_id.term, guard.log_id.index)
}
