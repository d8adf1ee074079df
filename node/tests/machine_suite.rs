//! openraft's own conformance suite on our log and state machine together, as they are and with both closed
//! and opened again after every change, the state machine from a snapshot.

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::Stream;
use openraft::StorageError;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use support::Reopening;
use taskstore::storage::log_store::LogStore;
use taskstore::storage::machine::{Builder, Machine};
use taskstore::storage::snapshot::{SnapshotHandle, SnapshotIdentity, list};
use taskstore::storage::store::Store;
use taskstore::storage::types::{LogId, StoredMembership, TypeConfig};
use taskstore::task::state::Bounds;
use tempfile::TempDir;

fn store(directory: &Path, from: Option<&Path>) -> Arc<Store> {
    let identity = SnapshotIdentity {
        cluster_id: "suite".into(),
        incarnation: 1,
    };
    Store::open(directory, identity, from, Bounds::default()).expect("opened")
}

struct ReopeningMachine {
    directory: PathBuf,
    /// None while it is opened again.
    open: Option<(Machine, Arc<Store>)>,
}

impl ReopeningMachine {
    fn new(directory: &Path, from: Option<&Path>) -> ReopeningMachine {
        let store = store(directory, from);
        ReopeningMachine {
            directory: directory.to_owned(),
            open: Some((Machine::new(store.clone()), store)),
        }
    }

    fn machine(&mut self) -> &mut Machine {
        &mut self.open.as_mut().expect("it is open").0
    }

    fn reopen(&mut self) -> io::Result<()> {
        let newest = list(&self.directory.join("snapshots"))?.remove(0);
        self.open = None;
        *self = ReopeningMachine::new(&self.directory, Some(&newest.path));
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for ReopeningMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.machine().applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        self.machine().apply(entries).await?;
        let (_, store) = self.open.as_ref().expect("it is open");
        store.cut_snapshot(|_| std::future::ready(Ok(()))).await?;
        self.reopen()
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        self.machine().try_create_snapshot_builder(force).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.machine().get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        handle: SnapshotHandle,
    ) -> io::Result<()> {
        self.machine().install_snapshot(meta, handle).await?;
        self.reopen()
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotHandle>>> {
        self.machine().get_current_snapshot().await
    }
}

fn fresh() -> TempDir {
    let directory = TempDir::new().expect("a folder");
    support::format(&directory.path().join("log"));
    directory
}

struct Plain;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Plain {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let directory = fresh();
        let log = support::open(&directory.path().join("log"));
        let store = store(directory.path(), None);
        Ok((directory, log, Machine::new(store)))
    }
}

struct Reopened;

impl StoreBuilder<TypeConfig, Reopening, ReopeningMachine, TempDir> for Reopened {
    async fn build(
        &self,
    ) -> Result<(TempDir, Reopening, ReopeningMachine), StorageError<TypeConfig>> {
        let directory = fresh();
        let log = Reopening::new(&directory.path().join("log"));
        let machine = ReopeningMachine::new(directory.path(), None);
        Ok((directory, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_and_state_machine_pass_the_conformance_suite() {
    Suite::test_all(Plain)
        .await
        .expect("every test of the suite");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_and_state_machine_pass_the_conformance_suite_reopened_after_every_change() {
    Suite::test_all(Reopened)
        .await
        .expect("every test of the suite");
}
