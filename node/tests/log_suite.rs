//! openraft's own conformance suite on our log, as it is and with the log closed and opened again after
//! every change. The state machine here only remembers what the suite asks for.

mod support;

use std::io;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use support::Reopening;
use taskstore::storage::log_store::LogStore;
use taskstore::storage::types::{LogId, StoredMembership, TypeConfig};
use tempfile::TempDir;

type Meta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, ()>;

#[derive(Default, Clone)]
struct Remembers {
    applied: (Option<LogId>, StoredMembership),
    snapshot: Option<Meta>,
}

/// Shares what the machine remembers, as a builder must.
#[derive(Default, Clone)]
struct Machine(std::sync::Arc<std::sync::Mutex<Remembers>>);

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let mut machine = self.0.lock().unwrap();
        let (last_log_id, last_membership) = machine.applied.clone();
        let meta = Meta {
            last_log_id,
            last_membership,
        };
        machine.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.0.lock().unwrap().applied.clone())
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            let mut machine = self.0.lock().unwrap();
            machine.applied.0 = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                machine.applied.1 = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, (): ()) -> io::Result<()> {
        let mut machine = self.0.lock().unwrap();
        machine.applied = (meta.last_log_id, meta.last_membership.clone());
        machine.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let snapshot = self.0.lock().unwrap().snapshot.clone();
        Ok(snapshot.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

fn fresh() -> TempDir {
    let directory = TempDir::new().unwrap();
    support::format(&directory.path().join("log"));
    directory
}

struct Plain;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Plain {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let directory = fresh();
        let log = support::open(&directory.path().join("log"));
        Ok((directory, log, Machine::default()))
    }
}

struct Reopened;

impl StoreBuilder<TypeConfig, Reopening, Machine, TempDir> for Reopened {
    async fn build(&self) -> Result<(TempDir, Reopening, Machine), StorageError<TypeConfig>> {
        let directory = fresh();
        let log = Reopening::new(&directory.path().join("log"));
        Ok((directory, log, Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_passes_the_conformance_suite() {
    Suite::test_all(Plain).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_passes_the_conformance_suite_reopened_after_every_change() {
    Suite::test_all(Reopened).await.unwrap();
}
