//! A store that is kept in its image, thrown away and opened again.

use std::future::ready;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::db::Db;
use super::watch::{Watch, WatchThread};
use super::{Image, open};
use crate::storage::codec::log_id;
use crate::storage::log::FatalHook;
use crate::storage::machine::with_meta;
use crate::storage::snapshot::{Look, Position, SnapshotIdentity, Snapshots, survey};
use crate::storage::store::{Decoded, Kept, Origin, Step, Store};
use crate::task::command::{Command, Create, Entry, Lease, NewTask, Settle, TaskState};
use crate::task::hash;
use crate::task::id::{TaskId, Token};
use crate::task::state::Bounds;
use crate::task::tests::{START_MS, claim_of, complete, id, name, task};

/// Around the size of a piece, and several pieces.
const SIZES: [usize; 7] = [0, 5, 16_383, 16_384, 16_385, 32_768, 100_000];

fn identity() -> SnapshotIdentity {
    SnapshotIdentity {
        cluster_id: "c-1".into(),
        incarnation: 1,
    }
}

struct Member {
    root: TempDir,
    store: Arc<Store>,
    index: u64,
    /// What would have ended the process.
    fatal: Arc<Mutex<Vec<String>>>,
}

/// A start as the table has it: the image if it is good, else the newest snapshot.
fn start(root: &Path, fatal: FatalHook) -> Arc<Store> {
    let dir = root.join("snapshots");
    let image_dir = root.join("image");
    let image = open(&image_dir, &identity(), Bounds::default()).expect("no hang");
    let surveyed = survey(&dir, &identity(), Look::Whole).expect("surveyed");
    let newest = surveyed.first().and_then(|newest| newest.good.clone());
    let snapshots = Snapshots::open(&dir, identity(), surveyed).expect("opened");
    let origin = match (image, newest) {
        (Some(image), _) => Origin::Image(Box::new(image)),
        (None, Some(newest)) => Origin::Snapshot(newest),
        (None, None) => Origin::Nothing,
    };
    Store::with(snapshots, &image_dir, origin, Bounds::default(), fatal).expect("started")
}

impl Member {
    fn new() -> Member {
        Member::on(tempfile::tempdir().expect("a folder"))
    }

    fn on(root: TempDir) -> Member {
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let noted = fatal.clone();
        let hook: FatalHook = Arc::new(move |doing, error| {
            noted
                .lock()
                .expect("no panic")
                .push(format!("{doing}: {error}"));
        });
        let store = start(root.path(), hook);
        let index = store.applied_state().0.map_or(0, |applied| applied.index());
        Member {
            root,
            store,
            index,
            fatal,
        }
    }

    fn restart(self) -> Member {
        let Member { root, store, .. } = self;
        drop(store);
        Member::on(root)
    }

    fn apply(&mut self, commands: Vec<Command>) {
        self.index += 1;
        let step = Step {
            log_id: log_id(1, self.index),
            content: Decoded::Commands(Entry {
                lease_time_ms: 0,
                wall_time_ms: START_MS,
                commands,
            }),
        };
        self.store.apply(vec![step]).expect("applied");
    }

    /// Tasks `t{n}` whose payloads tell them apart.
    fn create(&mut self, numbers: std::ops::Range<usize>) {
        self.create_in("q", numbers);
    }

    fn create_in(&mut self, queue: &str, numbers: std::ops::Range<usize>) {
        let tasks = numbers.map(|n| NewTask {
            payload_hash: hash::of_payload(&payload(n)),
            payload: payload(n),
            ..task(&format!("t{n}"))
        });
        let create = Create {
            namespace: name("ns"),
            queue: name(queue),
            tasks: tasks.collect(),
        };
        self.apply(vec![Command::Create(create)]);
    }

    /// Completes so many available tasks, the oldest first.
    fn finish(&mut self, count: u32) {
        let mut left = count;
        while left > 0 {
            let claim = claim_of(&["q"], &format!("c{}", self.index), left);
            self.apply(vec![Command::Claim(claim)]);
            let settles: Vec<Settle> = self.store.read(|state| {
                let rows = state.tables().tasks.values();
                let running = rows.filter(|row| row.state() == TaskState::Running);
                running
                    .map(|row| settle(&row.id, row.past().token))
                    .collect()
            });
            left -= settles.len() as u32;
            self.apply(vec![Command::Settle(settles)]);
        }
    }

    async fn keep(&self) -> Kept {
        let kept = self.store.write_behind(|_| ready(Ok(()))).await;
        kept.expect("kept")
    }

    async fn keep_all(&self) {
        while self.keep().await == Kept::Rebuilding {}
    }

    fn hash(&self) -> u128 {
        self.store.read(|state| state.hash())
    }

    async fn payload(&self, n: usize) -> std::io::Result<Option<Bytes>> {
        let task = self
            .store
            .read(|state| state.get(&name("ns"), &id(&format!("t{n}"))));
        Ok(self.store.payloads(task.iter()).await?.remove(0))
    }

    fn seq(&self, n: usize) -> u64 {
        let task = self
            .store
            .read(|state| state.get(&name("ns"), &id(&format!("t{n}"))));
        task.expect("it is there").seq
    }

    fn fatal(&self) -> Vec<String> {
        self.fatal.lock().expect("no panic").clone()
    }
}

fn settle(id: &TaskId, token: u64) -> Settle {
    Settle {
        lease: Lease {
            namespace: name("ns"),
            id: id.clone(),
            token: Token(token),
        },
        action: complete(),
    }
}

fn payload(n: usize) -> Bytes {
    let bytes = SIZES[n % SIZES.len()];
    Bytes::from(vec![n as u8; bytes])
}

#[tokio::test]
async fn the_image_lags_by_what_was_applied_since_its_last_batch() {
    let mut member = Member::new();
    member.create(0..3);
    member.create(3..5);
    assert_eq!(member.store.image_lag_entries(), 2, "there is none yet");
    assert!(member.store.image_dirty_bytes() > 0);
    member.keep_all().await;
    assert_eq!(member.store.image_lag_entries(), 0);
    assert_eq!(member.store.image_dirty_bytes(), 0);
    member.finish(1);
    assert_eq!(member.store.image_lag_entries(), 2, "a claim and a settle");
}

#[tokio::test]
async fn the_image_gives_the_state_of_its_last_batch_back_with_every_payload() {
    let mut member = Member::new();
    member.create(0..50);
    member.finish(9);
    assert!(matches!(member.keep().await, Kept::UpTo(_)));
    member.create(50..70);
    member.finish(15);
    member.keep().await;
    assert_eq!(member.keep().await, Kept::Nothing, "nothing changed since");
    let (hash, index) = (member.hash(), member.index);
    member.create(70..80);
    let member = member.restart();
    assert_eq!((member.hash(), member.index), (hash, index));
    for n in 0..70 {
        let expected = (n >= 24).then(|| payload(n));
        assert_eq!(
            member.payload(n).await.expect("read"),
            expected,
            "of task {n}"
        );
    }
    member.keep_all().await;
    assert_eq!(member.fatal(), [""; 0]);
}

#[tokio::test]
async fn a_snapshot_is_cut_from_the_image_and_is_the_same_on_a_member_that_never_left_memory() {
    let (mut one, mut other) = (Member::new(), Member::new());
    for member in [&mut one, &mut other] {
        member.create(0..40);
        member.finish(5);
    }
    one.keep().await;
    let mut one = one.restart();
    for member in [&mut one, &mut other] {
        member.create(40..50);
        member.finish(5);
    }
    let mut ids = Vec::new();
    for member in [&one, &other] {
        let cut = member.store.cut_snapshot(|_| ready(Ok(()))).await;
        ids.push(cut.expect("cut").expect("something new").id);
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn while_the_image_is_rebuilt_payloads_come_from_the_snapshot_and_changes_go_on() {
    let mut member = Member::new();
    for from in (0..5_000).step_by(500) {
        member.create(from..from + 500);
    }
    member.finish(700);
    member
        .store
        .cut_snapshot(|_| ready(Ok(())))
        .await
        .expect("cut")
        .expect("something new");
    std::fs::remove_dir_all(member.root.path().join("image")).expect("removed");
    let mut member = member.restart();
    assert_eq!(
        member.payload(4_999).await.expect("read"),
        Some(payload(4_999))
    );
    assert_eq!(member.keep().await, Kept::Rebuilding);
    // Some are behind the rebuild, some before it.
    member.finish(900);
    member.create(5_000..5_010);
    assert_eq!(member.keep().await, Kept::Rebuilding);
    assert_eq!(member.payload(700).await.expect("read"), None);
    assert_eq!(
        member.payload(4_998).await.expect("read"),
        Some(payload(4_998))
    );
    // One that was cut off counts for nothing: everything is there once it is done again.
    let (hash, member_index) = (member.hash(), member.index);
    let mut again = member.restart();
    assert!(again.index < member_index, "from the snapshot");
    again.finish(900);
    again.create(5_000..5_010);
    again.keep_all().await;
    assert_eq!(again.hash(), hash);
    let from_image = again.restart();
    assert_eq!(from_image.hash(), hash);
    for n in [1_600, 2_500, 4_999, 5_009] {
        assert_eq!(from_image.payload(n).await.expect("read"), Some(payload(n)));
    }
}

/// A full disk cuts a rebuild off in the middle of a payload: what is there of it is worth nothing.
#[tokio::test]
async fn while_the_image_is_rebuilt_nothing_in_it_is_taken_for_a_payload() {
    let mut member = Member::new();
    member.create(0..20);
    let cut = member.store.cut_snapshot(|_| ready(Ok(()))).await;
    cut.expect("cut").expect("something new");
    std::fs::remove_dir_all(member.root.path().join("image")).expect("removed");
    let member = member.restart();
    let (n, image) = (6, member.store.image());
    let half = payload(n).slice(..SIZES[n] / 2);
    let put = image.with(|db| db.put_payload(member.seq(n), &half));
    put.expect("put");
    assert_eq!(member.payload(n).await.expect("read"), Some(payload(n)));
    assert_eq!(member.fatal(), [""; 0]);
    drop(image);
    member.keep_all().await;
    assert_eq!(member.payload(n).await.expect("read"), Some(payload(n)));
}

#[tokio::test]
async fn a_payload_that_the_image_has_lost_or_changed_ends_the_process_and_the_next_start_is_from_the_snapshot()
 {
    for lost in [true, false] {
        let mut member = Member::new();
        member.create(0..20);
        let cut = member.store.cut_snapshot(|_| ready(Ok(()))).await;
        cut.expect("cut").expect("something new");
        let seq = member.seq(9);
        let image = member.store.image();
        let spoilt = image.with(|db| match lost {
            true => db.drop_payload(seq),
            false => db.put_payload(seq, b"other"),
        });
        spoilt.expect("spoilt");
        assert!(member.payload(9).await.is_err());
        assert_eq!(member.fatal().len(), 1, "{:?}", member.fatal());
        let hash = member.hash();
        drop(image);
        let member = member.restart();
        assert_eq!(member.hash(), hash);
        assert_eq!(member.payload(9).await.expect("read"), Some(payload(9)));
    }
}

#[tokio::test]
async fn a_cut_that_meets_a_spoilt_payload_ends_the_process_and_leaves_no_snapshot() {
    let mut member = Member::new();
    member.create(0..20);
    member.keep().await;
    let seq = member.seq(7);
    let spoilt = member
        .store
        .image()
        .with(|db| db.put_payload(seq, b"other"));
    spoilt.expect("spoilt");
    assert!(member.store.cut_snapshot(|_| ready(Ok(()))).await.is_err());
    assert_eq!(member.fatal().len(), 1, "{:?}", member.fatal());
    assert!(member.store.snapshots().newest().is_none());
}

#[tokio::test]
async fn after_a_start_from_the_image_orphans_go_and_a_missing_payload_is_found_unasked() {
    let mut member = Member::new();
    member.create(0..20);
    member.finish(4);
    member.keep().await;
    let (finished, waiting) = (member.seq(1), member.seq(9));
    let image = member.store.image();
    let orphaned = image.with(|db| db.put_payload(finished, b"orphan"));
    orphaned.expect("put");
    drop(image);
    let member = member.restart();
    while member.store.sweep().await.expect("swept") {}
    let image = member.store.image();
    assert_eq!(image.payload(finished).expect("read"), None);
    assert_eq!(member.fatal(), [""; 0]);
    image.with(|db| db.drop_payload(waiting)).expect("dropped");
    drop(image);
    let member = member.restart();
    assert!(member.store.sweep().await.is_err());
    assert_eq!(member.fatal().len(), 1, "{:?}", member.fatal());
}

#[tokio::test]
async fn apply_waits_while_too_much_is_not_yet_in_the_image() {
    let mut member = Member::new();
    let large = Bytes::from(vec![1; 1 << 20]);
    for n in 0..256 {
        let create = Create {
            namespace: name("ns"),
            queue: name("q"),
            tasks: vec![NewTask {
                payload_hash: hash::of_payload(&large),
                payload: large.clone(),
                ..task(&format!("t{n}"))
            }],
        };
        member.apply(vec![Command::Create(create)]);
    }
    let store = member.store.clone();
    let waits = tokio::spawn(async move { store.room().await });
    // What a batch has taken is in memory until it is written.
    let (flush, flushed) = tokio::sync::watch::channel(false);
    let (frozen, mut is_frozen) = tokio::sync::mpsc::unbounded_channel();
    let store = member.store.clone();
    let keep = tokio::spawn(async move {
        let kept = store.write_behind(|_| {
            frozen.send(()).expect("it is waited for");
            let mut flushed = flushed.clone();
            async move {
                flushed
                    .wait_for(|is| *is)
                    .await
                    .map(drop)
                    .map_err(std::io::Error::other)
            }
        });
        kept.await.expect("kept")
    });
    is_frozen.recv().await.expect("a batch");
    tokio::task::yield_now().await;
    assert!(!member.store.has_room() && !waits.is_finished());
    flush.send(true).expect("it is waited for");
    assert!(matches!(keep.await.expect("no panic"), Kept::UpTo(_)));
    waits.await.expect("there is room");
}

/// One blocking thread, held up: the payload is looked for after the install that replaced everything.
#[test]
fn a_payload_that_was_asked_for_before_an_install_is_read_after_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut leader, mut member) = (Member::new(), Member::new());
        for member in [&mut leader, &mut member] {
            member.create(0..20);
        }
        member.keep().await;
        leader.finish(2);
        let sent = leader.store.cut_snapshot(|_| ready(Ok(()))).await;
        let sent = sent.expect("cut").expect("something new");
        let (go_on, held_up) = std::sync::mpsc::channel::<()>();
        let holds_up = tokio::task::spawn_blocking(move || held_up.recv());
        let store = member.store.clone();
        let asked = store.read(|state| state.get(&name("ns"), &id("t9")));
        let mut read = Box::pin(store.payloads(asked.iter()));
        assert!(futures::poll!(&mut read).is_pending());
        let meta = with_meta(sent.clone()).expect("whole").meta;
        member.store.install(meta, sent).await.expect("installed");
        go_on.send(()).expect("it waits");
        assert_eq!(read.await.expect("read"), [Some(payload(9))]);
        assert_eq!(member.fatal(), [""; 0]);
        holds_up.await.expect("no panic").expect("told");
    });
}

#[tokio::test]
async fn an_image_made_anew_holds_the_queues_that_nothing_touched_since() {
    let mut member = Member::new();
    member.create_in("quiet", 0..5);
    member.create(5..10);
    let cut = member.store.cut_snapshot(|_| ready(Ok(()))).await;
    cut.expect("cut").expect("something new");
    std::fs::remove_dir_all(member.root.path().join("image")).expect("removed");
    let mut member = member.restart();
    member.create(10..15);
    member.keep_all().await;
    let (hash, index) = (member.hash(), member.index);
    let member = member.restart();
    assert_eq!((member.hash(), member.index), (hash, index));
    let from_image = *member.store.image_position().borrow();
    assert_eq!(from_image.map(|position| position.index), Some(index));
}

#[tokio::test]
async fn a_call_that_never_returns_ends_the_process_and_the_next_start_makes_the_image_anew() {
    let mut member = Member::new();
    member.create(0..5);
    member.keep().await;
    let Member { root, store, .. } = member;
    drop(store);
    let dir = root.path().join("image");
    let db = Db::open(&dir, Watch::new(Duration::from_millis(100))).expect("opened");
    let image = Arc::new(Image::keep(&dir, db));
    let (ended, end) = channel();
    let fatal: FatalHook = Arc::new(move |_, error| ended.send(error.kind()).expect("waited for"));
    let _watch = WatchThread::start(image.clone(), fatal).expect("started");
    let hangs = image.with(|db| Ok(db.watch.call(|| end.recv())));
    assert_eq!(hangs.expect("open"), Ok(std::io::ErrorKind::TimedOut));
    drop(image);
    let found = open(&dir, &identity(), Bounds::default()).expect("no hang");
    assert!(found.is_none());
}

#[tokio::test]
async fn a_read_that_panics_ends_the_process() {
    let mut member = Member::new();
    member.create(0..20);
    member.keep().await;
    let image = member.store.image();
    let panics = std::thread::spawn(move || {
        let _held = image.db.write();
        panic!("as sled does on a damaged file");
    });
    assert!(panics.join().is_err());
    assert!(member.payload(9).await.is_err());
    assert_eq!(member.fatal().len(), 1, "{:?}", member.fatal());
    assert!(member.root.path().join(super::CONDEMNED).exists());
}

#[tokio::test]
async fn opened_again_it_stands_where_it_stood_or_where_the_batch_that_failed_has_brought_it() {
    let mut member = Member::new();
    member.create(0..5);
    let Kept::UpTo(at) = member.keep().await else {
        panic!("one batch");
    };
    let [before, after] = [at.index - 1, at.index + 1].map(|index| Position { index, ..at });
    let image = member.store.image();
    image
        .reopen(Some(at), after, &identity())
        .expect("it stood there");
    image
        .reopen(Some(before), at, &identity())
        .expect("its head came through");
    assert!(image.reopen(Some(before), after, &identity()).is_err());
}
