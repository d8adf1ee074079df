//! The state machine as openraft drives it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::storage::snapshot::{SnapshotIdentity, installing, list};
use crate::storage::types::{EntryBytes, MemberName, Membership};
use crate::task::command::{self, Command, Create, Outcome};
use crate::task::state::Bounds;
use crate::task::tests::{START_MS, claim_of, id, name, task};

fn open(dir: &Path, from: Option<&Path>) -> (Machine, Arc<Store>) {
    let identity = SnapshotIdentity {
        cluster_id: "c-1".into(),
        incarnation: 1,
    };
    let store = Store::open(dir, identity, from, Bounds::default()).expect("opened");
    (Machine::new(store.clone()), store)
}

fn entry(index: u64, payload: EntryPayload<EntryBytes, u64, MemberName>) -> Entry {
    Entry {
        log_id: LogId::new_term_index(1, index),
        payload,
    }
}

fn commands(index: u64, commands: Vec<Command>) -> Entry {
    let content = command::Entry {
        lease_time_ms: 0,
        wall_time_ms: START_MS,
        commands,
    };
    entry(
        index,
        EntryPayload::Normal(EntryBytes(
            postcard::to_stdvec(&content).expect("plain values").into(),
        )),
    )
}

fn create(index: u64, text: &str) -> Entry {
    commands(
        index,
        vec![Command::Create(Create {
            namespace: name("ns"),
            queue: name("q"),
            tasks: vec![task(text)],
        })],
    )
}

fn members() -> Membership {
    let names = BTreeMap::from([(1, MemberName("m-1".into())), (2, MemberName("m-2".into()))]);
    Membership::new(vec![BTreeSet::from([1])], names).expect("a voter and a learner")
}

async fn apply(machine: &mut Machine, entries: Vec<Entry>) -> io::Result<()> {
    machine
        .apply(futures::stream::iter(
            entries.into_iter().map(|entry| Ok((entry, None))),
        ))
        .await
}

#[tokio::test]
async fn applied_entries_are_read_with_their_log_id_and_payload() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut machine, store) = open(dir.path(), None);
    let mut progress = store.progress();
    let mut entries = vec![
        entry(0, EntryPayload::Membership(members())),
        entry(1, EntryPayload::Blank),
    ];
    entries.extend((2..200).map(|n| create(n, &format!("t{n}"))));
    apply(&mut machine, entries).await.expect("applied");
    let (applied, membership) = machine.applied_state().await.expect("state");
    assert_eq!(applied, Some(LogId::new_term_index(1, 199)));
    assert_eq!(
        (membership.log_id(), membership.membership()),
        (&Some(LogId::new_term_index(1, 0)), &members())
    );
    assert_eq!(progress.borrow_and_update().applied, applied);
    let view = store.read(|state| state.get(&name("ns"), &id("t7")));
    let payloads = store.payloads(view.iter()).await.expect("read");
    assert_eq!(payloads, [Some(Bytes::from_static(b"t7"))]);
    assert_eq!(
        store.next_gained().await,
        BTreeSet::from([(name("ns"), name("q"))])
    );
}

/// Founders are never reserved, and whoever is removed is in no configuration any more.
#[tokio::test]
async fn a_removed_members_number_is_not_given_again_after_a_snapshot_either() {
    let of = |ids: &[u64]| {
        let names = ids
            .iter()
            .map(|id| (*id, MemberName(format!("m-{id}"))))
            .collect::<BTreeMap<_, _>>();
        let voters = ids.iter().copied().collect();
        EntryPayload::Membership(Membership::new(vec![voters], names).expect("voters"))
    };
    let dir = tempfile::tempdir().expect("a folder");
    let (mut machine, store) = open(dir.path(), None);
    let entries = vec![entry(0, of(&[1, 2, 3, 4, 5])), entry(1, of(&[1, 2, 3]))];
    apply(&mut machine, entries).await.expect("applied");
    store
        .cut_snapshot(|_| std::future::ready(Ok(())))
        .await
        .expect("cut");
    let files = list(store.snapshots().dir()).expect("listed");
    drop((machine, store));
    let (mut machine, store) = open(dir.path(), Some(&files[0].path));
    let reserve = Command::ReserveMembers(command::ReserveMembers {
        operation_id: "grow".into(),
        count: 2,
        above: 3,
    });
    apply(&mut machine, vec![commands(2, vec![reserve])])
        .await
        .expect("applied");
    let given = store.read(|state| state.tables().meta.reservations[0].members.clone());
    assert_eq!(given, [6, 7]);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_or_needs_a_higher_level_is_never_skipped() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut machine, _store) = open(dir.path(), None);
    let garbage = entry(
        1,
        EntryPayload::Normal(EntryBytes(Bytes::from_static(&[0, 0, 1, 99]))),
    );
    let error = apply(&mut machine, vec![garbage])
        .await
        .expect_err("an unknown command");
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let mut longer = postcard::to_stdvec(&(0u64, 0u64, 0u64)).expect("plain values");
    longer.push(0);
    let longer = entry(1, EntryPayload::Normal(EntryBytes(longer.into())));
    assert!(
        apply(&mut machine, vec![longer]).await.is_err(),
        "bytes are left over"
    );
    let error = apply(&mut machine, vec![commands(1, vec![Command::SetLevel(2)])])
        .await
        .expect_err("an unknown level");
    assert!(error.to_string().contains("feature level 2"), "{error}");
}

#[tokio::test]
async fn a_cut_waits_for_the_log_and_is_then_openrafts_snapshot() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut machine, store) = open(dir.path(), None);
    assert!(
        store
            .cut_snapshot(|_| std::future::ready(Ok(())))
            .await
            .expect("nothing to cut")
            .is_none()
    );
    assert!(
        machine.try_create_snapshot_builder(false).await.is_none(),
        "nothing is finished yet"
    );
    apply(
        &mut machine,
        vec![
            entry(0, EntryPayload::Membership(members())),
            create(1, "a"),
        ],
    )
    .await
    .expect("applied");
    let not_flushed = store
        .cut_snapshot(|_| std::future::ready(Err(io::Error::other("the log is gone"))))
        .await;
    assert!(not_flushed.is_err());
    assert!(
        machine
            .get_current_snapshot()
            .await
            .expect("no error")
            .is_none()
    );
    let cut = store.cut_snapshot(|log_id: LogId| {
        assert_eq!(log_id, LogId::new_term_index(1, 1));
        std::future::ready(Ok(()))
    });
    let cut = cut.await.expect("cut").expect("there is something new");
    assert!(
        store
            .cut_snapshot(|_| std::future::ready(Ok(())))
            .await
            .expect("no error")
            .is_none(),
        "nothing new since"
    );
    let mut builder = machine
        .try_create_snapshot_builder(false)
        .await
        .expect("one is finished");
    let built = builder.build_snapshot().await.expect("built");
    assert_eq!(
        (built.snapshot.id, built.meta.last_log_id),
        (cut.id, Some(LogId::new_term_index(1, 1)))
    );
    assert_eq!(built.meta.last_membership.membership(), &members());
}

#[tokio::test]
async fn a_snapshot_moves_to_another_member_and_survives_its_restart() {
    let (leader_dir, follower_dir) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (mut leader, leader_store) = open(leader_dir.path(), None);
    apply(
        &mut leader,
        vec![
            entry(0, EntryPayload::Membership(members())),
            create(1, "a"),
            create(2, "b"),
        ],
    )
    .await
    .expect("applied");
    let cut = leader_store
        .cut_snapshot(|_| std::future::ready(Ok(())))
        .await
        .expect("cut")
        .expect("something");
    let snapshot = with_meta(cut).expect("a membership of ours");

    let (mut follower, follower_store) = open(follower_dir.path(), None);
    apply(&mut follower, vec![create(1, "stale")])
        .await
        .expect("applied");
    follower
        .install_snapshot(&snapshot.meta, snapshot.snapshot)
        .await
        .expect("installed");
    let hash = |store: &Store| store.read(|state| state.hash());
    assert_eq!(hash(&follower_store), hash(&leader_store));
    assert!(
        follower_store
            .read(|state| state.get(&name("ns"), &id("stale")))
            .is_none()
    );
    assert_eq!(
        follower.applied_state().await.expect("state"),
        leader.applied_state().await.expect("state")
    );
    let marker = installing(follower_store.snapshots().dir())
        .expect("read")
        .expect("the log is not purged yet");
    assert_eq!(marker.index, 2);

    let newest = list(follower_store.snapshots().dir())
        .expect("listed")
        .remove(0);
    drop((follower, follower_store));
    let (mut again, store) = open(follower_dir.path(), Some(&newest.path));
    assert_eq!(
        again.applied_state().await.expect("state"),
        leader.applied_state().await.expect("state")
    );
    let claim = commands(3, vec![Command::Claim(claim_of(&["q"], "c", 9))]);
    apply(&mut again, vec![claim.clone()])
        .await
        .expect("applied");
    apply(&mut leader, vec![claim]).await.expect("applied");
    assert_eq!(hash(&store), hash(&leader_store));
    assert_eq!(
        store.progress().borrow().deadlines.lease_time_ms,
        Some(30_000)
    );
}

#[tokio::test]
async fn outcomes_come_one_a_command_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_machine, store) = open(dir.path(), None);
    let step = decode(commands(
        1,
        vec![Command::Tick, Command::Claim(claim_of(&["q"], "c", 1))],
    ))
    .expect("decoded");
    let blank = decode(entry(2, EntryPayload::Blank)).expect("decoded");
    let outcomes = store.apply(vec![step, blank]).expect("applied");
    assert_eq!(
        outcomes,
        [vec![Outcome::Done, Outcome::Claimed(vec![])], vec![]]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_cut_while_entries_are_applied_is_the_state_of_one_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut machine, store) = open(dir.path(), None);
    let entries: Vec<Entry> = (1..400u64)
        .map(|n| match n % 3 {
            0 => commands(
                n,
                vec![Command::Claim(claim_of(&["q"], &format!("c{n}"), 2))],
            ),
            _ => create(n, &format!("t{n}")),
        })
        .collect();
    let all = entries.clone();
    let applying = tokio::spawn(async move {
        for entry in all {
            apply(&mut machine, vec![entry]).await.expect("applied");
            tokio::task::yield_now().await;
        }
    });
    let mut hashes = BTreeMap::new();
    while !applying.is_finished() {
        if let Some(cut) = store
            .cut_snapshot(|_| std::future::ready(Ok(())))
            .await
            .expect("cut")
        {
            hashes.insert(cut.position().index, cut.header.state_hash);
        }
        tokio::task::yield_now().await;
    }
    applying.await.expect("applied");
    let replay_dir = tempfile::tempdir().expect("a folder");
    let (mut replayed, replayed_store) = open(replay_dir.path(), None);
    for entry in entries {
        let index = entry.log_id.index();
        apply(&mut replayed, vec![entry]).await.expect("applied");
        if let Some(hash) = hashes.remove(&index) {
            assert_eq!(
                replayed_store.read(|state| state.hash()),
                hash,
                "at {index}"
            );
        }
    }
    assert!(hashes.is_empty());
}
