//! Snapshots of small worlds, buckets in memory, and a store between them that a test tells what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tempfile::TempDir;

use crate::backup::bucket::Bucket;
use crate::backup::error::Access;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::list::{State, backups};
use crate::backup::manifest::{Creator, Manifest};
use crate::backup::progress::Noted;
use crate::backup::verify::verify;
use crate::backup::write::Order;
use crate::storage::codec;
use crate::storage::snapshot::{
    Frozen, Look, PayloadSource, Position, SnapshotHandle, SnapshotIdentity, Snapshots, survey,
};
use crate::storage::types::{MemberName, Membership, StoredMembership};
use crate::task::command::NewTask;
use crate::task::row::TaskRow;
use crate::task::tests::{START_MS, World, task};

/// With a store that never answers. What does answer is in memory.
const PATIENCE: Duration = Duration::from_millis(50);

/// Between the objects of a slow list.
pub const SLOW: Duration = Duration::from_millis(20);

pub const CLUSTER: &str = "c-1";

pub fn lineage() -> Lineage {
    Lineage::new(CLUSTER, 1).expect("a lineage")
}

pub fn name(text: &str) -> BackupName {
    BackupName::parse(text).expect("a name")
}

pub fn order(text: &str) -> Order {
    Order {
        name: name(text),
        previous: None,
        created_at_ms: START_MS,
        created_by: Creator {
            member_id: (1 << 32) + 2,
            version: "0.1.0".into(),
        },
        bytes_per_second_max: None,
    }
}

/// A verified snapshot in a folder that lives as long.
pub struct Cut {
    pub handle: SnapshotHandle,
    _folder: TempDir,
}

/// Of a world with so many tasks of 1 MiB, told apart by `salt`.
pub fn cut(salt: &str, large: usize) -> Cut {
    let mut world = World::new();
    world.create("q", (0..20).map(|n| task(&format!("{salt}-{n}"))).collect());
    for n in 0..large {
        let mut payload = vec![n as u8; 1 << 20];
        payload[..salt.len()].copy_from_slice(salt.as_bytes());
        let large = NewTask {
            payload_hash: crate::task::hash::of_payload(&payload),
            payload: payload.into(),
            ..task(&format!("{salt}-large-{n}"))
        };
        world.create("large", vec![large]);
    }
    cut_of(&world)
}

fn cut_of(world: &World) -> Cut {
    let folder = tempfile::tempdir().expect("a folder");
    let identity = SnapshotIdentity {
        cluster_id: CLUSTER.into(),
        incarnation: 1,
    };
    let surveyed = survey(folder.path(), &identity, Look::Whole).expect("surveyed");
    let snapshots = Snapshots::open(folder.path(), identity, surveyed).expect("opened");
    let members = BTreeMap::from([((1 << 32) + 1, MemberName("demo-1-1.demo-peers".into()))]);
    let voters = BTreeSet::from([(1 << 32) + 1]);
    let membership = Membership::new(vec![voters], members).expect("a configuration");
    let stored = StoredMembership::new(Some(codec::log_id(1, 1)), membership);
    let mut encoded = Vec::new();
    codec::put_stored_membership(&stored, &mut encoded);
    let frozen = Frozen {
        position: Position {
            term: 3,
            index: world.index,
        },
        membership: encoded,
        tables: world.state.tables().clone(),
    };
    let written = snapshots
        .write(&frozen, &mut Payloads(&world.payloads))
        .expect("written");
    Cut {
        handle: snapshots.publish(written).expect("published"),
        _folder: folder,
    }
}

struct Payloads<'a>(&'a BTreeMap<u64, Bytes>);

impl PayloadSource for Payloads<'_> {
    fn payload(&mut self, row: &TaskRow) -> std::io::Result<Bytes> {
        Ok(self.0[&row.seq].clone())
    }
}

pub fn bucket_over(store: Arc<dyn ObjectStore>) -> Bucket {
    Bucket::new(store, Path::from("team/a"), "s3://bucket/team/a").with_patience(PATIENCE)
}

/// The names of whole backups, each proven; what is listed and is no good backup fails the test.
pub async fn proven(store: &Arc<InMemory>) -> Vec<Manifest> {
    let bucket = bucket_over(store.clone());
    let mut whole = Vec::new();
    for listed in backups(&bucket, &lineage()).await.expect("listed") {
        match listed.state {
            State::Complete(manifest) => {
                let read = verify(&bucket, &lineage(), &listed.name, &Noted::default()).await;
                assert_eq!(read.expect("what is listed is good"), *manifest);
                whole.push(*manifest);
            }
            State::Unfinished { .. } => {}
            State::Unreadable(error) => panic!("{error}"),
        }
    }
    whole
}

pub async fn objects(store: &InMemory) -> BTreeMap<Path, Bytes> {
    let metas: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("listed");
    let mut found = BTreeMap::new();
    for meta in metas {
        let got = store.get(&meta.location).await.expect("there");
        found.insert(meta.location, got.bytes().await.expect("whole"));
    }
    found
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Fine,
    /// Refused before anything happened: throttled, or an error of the server.
    Refused,
    /// Done, and the answer is lost.
    Unanswered,
    /// No answer ever comes, and nothing is done.
    Silent,
    /// A read's body ends early.
    Truncated,
    /// A list shows nothing that was written lately.
    Stale,
    /// Each object of a list takes its time.
    Slow,
    /// The bucket is not there.
    NoBucket,
    /// Whoever asks has no right to.
    Forbidden,
    /// The condition of a write is not looked at.
    Unconditional,
}

type Plan = dyn Fn(Access, &Path) -> Fate + Send + Sync;

/// A store in memory where each request meets its fate.
pub struct Fated {
    pub inner: Arc<InMemory>,
    plan: Box<Plan>,
}

impl Fated {
    pub fn new(
        inner: Arc<InMemory>,
        plan: impl Fn(Access, &Path) -> Fate + Send + Sync + 'static,
    ) -> Arc<Fated> {
        Arc::new(Fated {
            inner,
            plan: Box::new(plan),
        })
    }

    /// Runs the request, or what its fate makes of it.
    async fn meet<T>(
        &self,
        access: Access,
        path: &Path,
        request: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match (self.plan)(access, path) {
            Fate::Refused => Err(failed("503 slow down")),
            Fate::Unanswered => {
                let _ = request.await;
                Err(failed("the connection was reset"))
            }
            Fate::Silent => std::future::pending().await,
            Fate::Forbidden => Err(object_store::Error::PermissionDenied {
                path: path.to_string(),
                source: "403 access denied".into(),
            }),
            Fate::NoBucket => Err(no_bucket(path)),
            Fate::Fine | Fate::Truncated | Fate::Stale | Fate::Slow | Fate::Unconditional => {
                request.await
            }
        }
    }
}

pub fn failed(reason: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "test",
        source: reason.into(),
    }
}

fn no_bucket(path: &Path) -> object_store::Error {
    object_store::Error::NotFound {
        path: path.to_string(),
        source: "404 NoSuchBucket".into(),
    }
}

impl fmt::Debug for Fated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fated")
    }
}

impl fmt::Display for Fated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fated")
    }
}

#[async_trait]
impl ObjectStore for Fated {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let access = match options.mode {
            PutMode::Create => Access::Create,
            _ => Access::Write,
        };
        if (self.plan)(access, location) == Fate::Unconditional {
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(location, payload, options);
        self.meet(access, location, put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = (self.plan)(Access::Read, location);
        if fate == Fate::Truncated {
            let mut got = self.inner.get_opts(location, options).await?;
            let kept = got.meta.size / 2;
            let bytes = Bytes::from(vec![0; kept as usize]);
            let half = futures::stream::once(async move { Ok(bytes) });
            got.payload = GetResultPayload::Stream(half.boxed());
            return Ok(got);
        }
        let get = self.inner.get_opts(location, options);
        self.meet(Access::Read, location, get).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // One by one, with its own fate: the fate is drawn before, as the stream outlives this borrow.
        let inner = self.inner.clone();
        let mut locations = locations;
        let mut fates = Vec::new();
        while let Some(Some(Ok(location))) = futures::FutureExt::now_or_never(locations.next()) {
            fates.push(((self.plan)(Access::Delete, &location), location));
        }
        futures::stream::iter(fates)
            .then(move |(fate, location)| {
                let inner = inner.clone();
                async move {
                    match fate {
                        Fate::Refused => Err(failed("503 slow down")),
                        Fate::Silent => std::future::pending().await,
                        Fate::Forbidden => Err(object_store::Error::PermissionDenied {
                            path: location.to_string(),
                            source: "403 access denied".into(),
                        }),
                        fate => {
                            inner.delete(&location).await?;
                            match fate {
                                Fate::Unanswered => Err(failed("the connection was reset")),
                                _ => Ok(location),
                            }
                        }
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = prefix.cloned().unwrap_or_default();
        match (self.plan)(Access::List, &path) {
            Fate::Stale => futures::stream::empty().boxed(),
            Fate::Refused | Fate::Unanswered => {
                futures::stream::once(async { Err(failed("503 slow down")) }).boxed()
            }
            Fate::Silent => futures::stream::pending().boxed(),
            Fate::NoBucket => futures::stream::once(async move { Err(no_bucket(&path)) }).boxed(),
            Fate::Slow => {
                let late = |found| async {
                    tokio::time::sleep(SLOW).await;
                    found
                };
                self.inner.list(prefix).then(late).boxed()
            }
            Fate::Forbidden => {
                let denied = object_store::Error::PermissionDenied {
                    path: path.to_string(),
                    source: "403 access denied".into(),
                };
                futures::stream::once(async { Err(denied) }).boxed()
            }
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        if (self.plan)(Access::List, &path) == Fate::Stale {
            return Ok(ListResult {
                common_prefixes: Vec::new(),
                objects: Vec::new(),
                extensions: Default::default(),
            });
        }
        let list = self.inner.list_with_delimiter(prefix);
        self.meet(Access::List, &path, list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
