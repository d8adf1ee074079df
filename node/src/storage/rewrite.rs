//! Rewrites whom a volume belongs to: a state, wherever it comes from, becomes that of the only voter of a new
//! incarnation. For the recovery of a lost majority it comes from the volume itself, see `replay`.
//!
//! ```text
//! state, last log id, highest term ─▶ state of the new incarnation ─▶ snapshot at the last log id
//!                                     empty log, purged up to it, with a vote ─▶ one rename switches
//! ```
//!
//! Log ids go on behind the last one: the vote's term is above every term seen, so the first entry's is, too.
//! It is a vote for the new member itself and no committed one, so nobody leads by it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use openraft::storage::RaftLogStorage;

pub mod payloads;
pub mod replay;
mod spare;

pub use spare::spare;

use super::codec;
use super::identity::{Home, Identity, Volume};
use super::log::disk::SystemDisk;
use super::log::recovery::recover;
use super::log::{FatalHook, Geometry, LogError, LogHooks};
use super::log_store::{LogOptions, LogStore};
use super::snapshot::{Frozen, PayloadSource, SnapshotIdentity, Snapshots};
use super::store::position;
use super::types::{LogId, MemberName, Membership, StoredMembership, Vote};
use crate::task::state::{At, State};

/// Whom the volume is to belong to.
#[derive(Debug, Clone)]
pub struct Successor {
    pub identity: Identity,
    pub name: MemberName,
    pub log: Geometry,
}

/// What a new incarnation begins with.
pub struct Rescued {
    /// With everything in it up to the last entry, under the incarnation before.
    pub state: State,
    pub last: LogId,
    /// The highest term of any entry and any vote.
    pub term: u64,
}

/// Until this returns the volume belongs to whom it belonged; then to the successor. An error leaves what was there
/// as it was; after a full disk, with room for another try.
pub async fn rewrite(
    volume: &Arc<Volume>,
    successor: Successor,
    rescued: Rescued,
    payloads: impl PayloadSource + Send + 'static,
    fatal: FatalHook,
) -> io::Result<()> {
    let identity = successor.identity.clone();
    let written = write(volume, successor, rescued, payloads, fatal).await;
    if written.is_err() {
        let volume = volume.clone();
        if let Err(error) = blocking(move || volume.abandon_home(&identity)).await {
            tracing::warn!(%error, "what was written stays until the next try");
        }
    }
    written
}

async fn write(
    volume: &Arc<Volume>,
    successor: Successor,
    rescued: Rescued,
    mut payloads: impl PayloadSource + Send + 'static,
    fatal: FatalHook,
) -> io::Result<()> {
    let Rescued { state, last, term } = rescued;
    let frozen = frozen(state, last, &successor);
    let Successor { identity, log, .. } = successor;
    let vote = Vote::new(term + 1, identity.member_id);
    let of_snapshots = SnapshotIdentity {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
    };
    let begun = volume.clone();
    let home = blocking(move || {
        let home = begun.begin_home(identity, log).map_err(of_log)?;
        let dir = home.snapshots_directory();
        let snapshots = Snapshots::open(&dir, of_snapshots, Vec::new())?;
        let cut = snapshots.write(&frozen, &mut payloads)?;
        snapshots.publish(cut)?;
        Ok(home)
    });
    let home = home.await?;
    begin_log(&home, last, vote, fatal).await?;
    let volume = volume.clone();
    blocking(move || volume.switch_to(home).map(drop).map_err(of_log)).await
}

fn frozen(mut state: State, last: LogId, successor: &Successor) -> Frozen {
    let identity = &successor.identity;
    let at = At {
        index: last.index,
        incarnation: identity.incarnation,
    };
    state.rewrite(at, identity.member_id);
    let names = BTreeMap::from([(identity.member_id, successor.name.clone())]);
    let voters = vec![BTreeSet::from([identity.member_id])];
    let alone = Membership::new(voters, names).expect("the only voter has a name");
    let mut membership = Vec::new();
    codec::put_stored_membership(&StoredMembership::new(Some(last), alone), &mut membership);
    Frozen {
        position: position(last),
        membership,
        tables: state.tables().clone(),
    }
}

/// Two frames: everything up to the last entry is only in the snapshot, and the vote.
async fn begin_log(home: &Home, last: LogId, vote: Vote, fatal: FatalHook) -> io::Result<()> {
    let stamp = home.stamp();
    let (directory, salt) = (home.log_directory(), stamp.identity.salt());
    let recovered =
        blocking(move || recover(&directory, stamp.log, salt, SystemDisk).map_err(of_log));
    let hooks = LogHooks::only_fatal(fatal);
    let mut log = LogStore::start(recovered.await?, LogOptions::default(), hooks)?;
    log.save_committed(Some(last)).await?;
    log.purge(last).await?;
    log.save_vote(&vote).await?;
    blocking(move || {
        log.close();
        Ok(())
    })
    .await
}

fn of_log(error: LogError) -> io::Error {
    match error {
        LogError::Io(error) => error,
        damage => io::Error::new(io::ErrorKind::InvalidData, damage.to_string()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}
