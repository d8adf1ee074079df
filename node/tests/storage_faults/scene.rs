//! The volumes that are damaged: each is brought about by a real log and real snapshots, once for the
//! member's cluster and once for a foreign one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use taskstore::storage::codec::log_id;
use taskstore::storage::identity::Identity;
use taskstore::storage::log::Geometry;
use taskstore::storage::log::disk::SystemDisk;
use taskstore::storage::log_store::LogOptions;
use taskstore::storage::machine::{Machine, with_meta};
use taskstore::storage::start::StartError;
use taskstore::storage::types::{Entry, EntryBytes, MemberName, Membership, Vote};
use taskstore::task::command::{
    Claim, Command, Create, Entry as Commands, Lease, NewTask, Settle, SettleAction,
};
use taskstore::task::hash::of_payload;
use taskstore::task::id::{Name, TaskId, Token};
use tempfile::TempDir;

use crate::faults::scratch;
use crate::volume::{self, Opened};

pub const TERM: u64 = 2;
pub const HOME: &str = "store-1";
/// Cuts, and where the logs end, in entries from 0.
pub const OLDER: u64 = 15;
pub const NEWEST: u64 = 30;
pub const END: u64 = 45;
/// Where a member is after a while more.
pub const LATER: u64 = 53;
/// Of the snapshot that a leader sends, and of the log behind it.
pub const SENT: u64 = 60;
pub const SENT_END: u64 = 70;
const GEOMETRY: Geometry = Geometry {
    segment_bytes: 16 << 10,
    segments: 12,
};

/// A volume's files by their path in it.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Fresh,
    NoSnapshot,
    OneSnapshot,
    TwoSnapshots,
    PurgedBehindOlder,
    PurgedBehindNewest,
    /// An install was cut off before the older log was dropped.
    Installing,
    Installed,
    /// The same, and the marker is still there.
    InstalledMarked,
}

pub const KINDS: [Kind; 9] = [
    Kind::Fresh,
    Kind::NoSnapshot,
    Kind::OneSnapshot,
    Kind::TwoSnapshots,
    Kind::PurgedBehindOlder,
    Kind::PurgedBehindNewest,
    Kind::Installing,
    Kind::Installed,
    Kind::InstalledMarked,
];

#[derive(Clone)]
pub struct Scene {
    pub kind: Kind,
    pub files: Files,
    /// The same files of another cluster's member.
    pub foreign: Files,
    /// By the last entry: the state's hash and the id of a snapshot of it.
    pub ends: BTreeMap<u64, End>,
}

pub type End = (u128, String);

pub fn identity() -> Identity {
    Identity {
        cluster_id: "c".into(),
        incarnation: 1,
        member_id: (1 << 32) | 3,
        volume_uid: "v".into(),
    }
}

fn foreign() -> Identity {
    Identity {
        cluster_id: "other".into(),
        ..identity()
    }
}

pub fn snapshot_path(index: u64) -> PathBuf {
    PathBuf::from(format!("{HOME}/snapshots/{TERM:020}-{index:020}.snapshot"))
}

pub fn marker_path() -> PathBuf {
    PathBuf::from(format!("{HOME}/snapshots/installing"))
}

pub fn identity_path() -> PathBuf {
    PathBuf::from(format!("{HOME}/identity"))
}

pub fn current_path() -> PathBuf {
    PathBuf::from("CURRENT")
}

pub async fn open(root: &Path) -> Result<Option<Opened<SystemDisk>>, StartError> {
    open_as(root, &identity()).await
}

async fn open_as(
    root: &Path,
    identity: &Identity,
) -> Result<Option<Opened<SystemDisk>>, StartError> {
    let fatal = Arc::new(|what: &'static str, error: &std::io::Error| panic!("{what}: {error}"));
    volume::open(root, identity, SystemDisk, LogOptions::default(), fatal).await
}

impl Scene {
    pub async fn new(kind: Kind) -> Scene {
        let files = build(kind, &identity()).await;
        let mut ends = BTreeMap::new();
        if kind != Kind::Fresh {
            ends.extend([end_of(&files, None).await]);
        }
        if ends.contains_key(&END) {
            ends.extend([end_of(&files, Some(LATER)).await]);
        }
        if kind == Kind::Installing {
            // The member as it was before the leader's snapshot came.
            let before = build(Kind::PurgedBehindOlder, &identity()).await;
            ends.extend([end_of(&before, None).await]);
        }
        Scene {
            kind,
            foreign: build(kind, &foreign()).await,
            files,
            ends,
        }
    }
}

/// What an undamaged volume holds, at once or some entries later.
async fn end_of(files: &Files, later: Option<u64>) -> (u64, End) {
    let root = written(files);
    let mut member = open(root.path()).await.unwrap().unwrap();
    assert!(member.replay().await);
    if let Some(later) = later {
        grow(&mut member, END + 1..=later).await;
    }
    member.cut().await;
    let newest = member.store.snapshots().newest().unwrap();
    let end = member.applied().unwrap().index;
    assert_eq!(newest.position().index, end);
    let name = |text: &str| Name::parse(text).unwrap();
    let stats = member
        .store
        .read(|state| state.queue_stats(&name("n"), &name("q"), 0));
    assert_eq!(stats.unwrap().completed, (end + 1) / 4);
    (end, (newest.header.state_hash, newest.id))
}

/// Without the image, which is damaged in trials of its own: a good one would hide what is wrong elsewhere.
pub fn written(files: &Files) -> TempDir {
    let root = scratch();
    let is_image = |path: &Path| path.components().any(|part| part.as_os_str() == "image");
    for (path, bytes) in files.iter().filter(|(path, _)| !is_image(path.as_ref())) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    root
}

pub fn read(root: &Path) -> Files {
    let mut files = Files::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    files
}

async fn build(kind: Kind, identity: &Identity) -> Files {
    let root = scratch();
    volume::format(root.path(), identity, GEOMETRY);
    if kind == Kind::Fresh {
        return read(root.path());
    }
    let mut member = open_as(root.path(), identity).await.unwrap().unwrap();
    member.log.save_vote(&Vote::new(TERM, 3)).await.unwrap();
    let (first, second, purge) = match kind {
        Kind::Fresh | Kind::NoSnapshot => (None, None, None),
        Kind::OneSnapshot => (Some(NEWEST), None, None),
        Kind::TwoSnapshots => (Some(OLDER), Some(NEWEST), None),
        Kind::PurgedBehindOlder => (Some(OLDER), Some(NEWEST), Some(OLDER)),
        Kind::PurgedBehindNewest => (Some(OLDER), Some(NEWEST), Some(NEWEST)),
        Kind::Installing | Kind::Installed | Kind::InstalledMarked => {
            (Some(OLDER), Some(NEWEST), Some(OLDER))
        }
    };
    let mut next = 0;
    for cut in [first, second].into_iter().flatten() {
        grow(&mut member, next..=cut).await;
        assert_eq!(member.cut().await, Some(log_id(TERM, cut)));
        next = cut + 1;
    }
    grow(&mut member, next..=END).await;
    if let Some(purge) = purge {
        member.log.purge(log_id(TERM, purge)).await.unwrap();
    }
    let mut marker = None;
    if matches!(
        kind,
        Kind::Installing | Kind::Installed | Kind::InstalledMarked
    ) {
        install(&member, identity).await;
        marker = Some(fs::read(root.path().join(marker_path())).unwrap());
    }
    if matches!(kind, Kind::Installed | Kind::InstalledMarked) {
        // As openraft does after an install beyond the log's end.
        let purged = log_id(TERM, OLDER);
        member.log.truncate_after(Some(purged)).await.unwrap();
        member.log.purge(log_id(TERM, SENT)).await.unwrap();
        grow(&mut member, SENT + 1..=SENT_END).await;
    }
    member.log.close();
    let mut files = read(root.path());
    if kind == Kind::InstalledMarked {
        files.insert(marker_path(), marker.unwrap());
    }
    files
}

/// Appends and applies real work.
pub async fn grow(member: &mut Opened<SystemDisk>, indexes: std::ops::RangeInclusive<u64>) {
    let entries: Vec<Entry> = indexes.map(work).collect();
    member.append(entries.clone()).await.unwrap();
    member
        .log
        .save_committed(entries.last().map(|last| last.log_id))
        .await
        .unwrap();
    member.apply(entries).await;
}

/// A leader that is ahead sends its snapshot.
async fn install(member: &Opened<SystemDisk>, identity: &Identity) {
    let root = scratch();
    let leader = leader(root.path(), identity).await;
    let sent = with_meta(leader.store.snapshots().newest().unwrap()).unwrap();
    let mut machine = Machine::new(member.store.clone());
    machine
        .install_snapshot(&sent.meta, sent.snapshot)
        .await
        .unwrap();
}

/// Another member of the same cluster, with a snapshot at `SENT`.
pub async fn leader(root: &Path, identity: &Identity) -> Opened<SystemDisk> {
    let identity = Identity {
        member_id: identity.member_id + 1,
        ..identity.clone()
    };
    volume::format(root, &identity, GEOMETRY);
    let mut leader = open_as(root, &identity).await.unwrap().unwrap();
    grow(&mut leader, 0..=SENT).await;
    leader.cut().await.unwrap();
    leader
}

/// Entry 0 is the membership; then two tasks are created, one is claimed and completed, and again.
fn work(index: u64) -> Entry {
    let payload = match index {
        0 => {
            let voters = BTreeSet::from([identity().member_id]);
            let names = voters.iter().map(|id| (*id, MemberName("m".into())));
            let names: BTreeMap<u64, MemberName> = names.collect();
            EntryPayload::Membership(Membership::new(vec![voters], names).unwrap())
        }
        _ => EntryPayload::Normal(EntryBytes(commands(index).into())),
    };
    Entry {
        log_id: log_id(TERM, index),
        payload,
    }
}

fn commands(index: u64) -> Vec<u8> {
    let name = |text: &str| Name::parse(text).unwrap();
    let id = |number: u64| TaskId::parse(&format!("t{number}")).unwrap();
    let (round, step) = (index / 4, index % 4);
    let command = match step {
        0 | 1 => Command::Create(Create {
            namespace: name("n"),
            queue: name("q"),
            tasks: vec![NewTask {
                id: id(index),
                kind: "mail".into(),
                content_type: String::new(),
                priority: 0,
                not_before_ms: 0,
                lease_ms: 60_000,
                attempts_max: 3,
                payload_hash: of_payload(&[index as u8; 1_200]),
                payload: Bytes::from(vec![index as u8; 1_200]),
            }],
        }),
        2 => Command::Claim(Claim {
            namespace: name("n"),
            queues: vec![name("q")],
            tasks_max: 1,
            bytes_max: 1 << 20,
            lease_ms: 0,
            claim_id: format!("c{index}"),
            worker: String::new(),
        }),
        _ => Command::Settle(vec![Settle {
            lease: Lease {
                namespace: name("n"),
                // The oldest is given first: t1, t4, t5, t8, …
                id: id(if round.is_multiple_of(2) {
                    2 * round + 1
                } else {
                    2 * round + 2
                }),
                token: Token::new(1, index - 1),
            },
            action: SettleAction::Complete {
                result: Bytes::from(vec![index as u8; 100]),
            },
        }]),
    };
    let entry = Commands {
        lease_time_ms: index,
        wall_time_ms: 1_700_000_000_000 + index,
        commands: vec![command],
    };
    postcard::to_stdvec(&entry).unwrap()
}
