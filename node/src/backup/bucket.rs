//! One bucket and prefix: the few things we ask of a store, each bounded in bytes and time, each error with
//! the object's full name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::error::{Access, Error};
use crate::limits::BACKUPS_LISTED_MAX;

/// One request, or one page of a list, with all its retries.
const REQUEST_PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The destination as people know it.
    url: String,
    patience: Duration,
}

/// The client holds credentials: it is not shown.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.url)
    }
}

/// What a conditional create came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Now,
    /// One is there already; nothing was written.
    Before,
}

/// An object that a listing has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Within the prefix.
    pub path: Path,
    pub modified_ms: u64,
}

impl Bucket {
    /// `url` names bucket and prefix in errors.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, url: impl Into<String>) -> Bucket {
        Bucket {
            store,
            prefix,
            url: url.into(),
            patience: REQUEST_PATIENCE,
        }
    }

    /// How long one request, with all its retries, may take.
    pub fn with_patience(self, patience: Duration) -> Bucket {
        Bucket { patience, ..self }
    }

    /// The full name of an object, for people.
    pub fn name_of(&self, path: &Path) -> String {
        format!("{}/{path}", self.url.trim_end_matches('/'))
    }

    /// The whole object, if it has at most so many bytes.
    pub async fn get(&self, path: &Path, bytes_max: u64) -> Result<Bytes, Error> {
        let object = self.name_of(path);
        let read = async {
            let got = self.store.get(&self.within(path)).await?;
            let bytes = got.meta.size;
            if bytes > bytes_max {
                return Ok(Err(Error::damaged(
                    &object,
                    format!("it has {bytes} bytes, expected were at most {bytes_max}"),
                )));
            }
            let mut content = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or_default());
            let mut chunks = got.into_stream();
            while let Some(chunk) = chunks.try_next().await? {
                content.extend_from_slice(&chunk);
                if content.len() as u64 > bytes {
                    break;
                }
            }
            // The store said how long the object is: this is the connection's fault, not the object's.
            if content.len() as u64 != bytes {
                let reason = format!("{} of {bytes} bytes came", content.len());
                return Ok(Err(Error::unavailable(Access::Read, &object, reason)));
            }
            Ok(Ok(content.freeze()))
        };
        self.asked(Access::Read, &object, read).await?
    }

    pub async fn put(&self, path: &Path, content: Bytes) -> Result<(), Error> {
        let location = self.within(path);
        let put = self.store.put(&location, PutPayload::from_bytes(content));
        self.asked(Access::Write, &self.name_of(path), put)
            .await
            .map(drop)
    }

    /// Writes only if there is none. An error leaves open whether it was written.
    pub async fn create(&self, path: &Path, content: Bytes) -> Result<Created, Error> {
        let object = self.name_of(path);
        let only_new = PutOptions::from(PutMode::Create);
        let location = self.within(path);
        let put = self
            .store
            .put_opts(&location, PutPayload::from_bytes(content), only_new);
        match self.asked(Access::Create, &object, put).await {
            Ok(_) => Ok(Created::Now),
            Err(Error::Taken { .. }) => Ok(Created::Before),
            Err(error) => Err(error),
        }
    }

    pub async fn delete(&self, path: &Path) -> Result<(), Error> {
        self.delete_all(vec![path.clone()]).await
    }

    /// Many in one request where the store can; what is not there is deleted.
    pub async fn delete_all(&self, paths: Vec<Path>) -> Result<(), Error> {
        let names: Vec<String> = paths.iter().map(|path| self.name_of(path)).collect();
        let locations: Vec<_> = paths.iter().map(|path| Ok(self.within(path))).collect();
        let mut deleted = self
            .store
            .delete_stream(futures::stream::iter(locations).boxed());
        for name in names {
            let next = async { deleted.next().await.transpose() };
            match self.asked(Access::Delete, &name, next).await {
                Ok(_) | Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The names of the folders right below this one, in order.
    pub async fn folders(&self, below: &Path) -> Result<Vec<String>, Error> {
        let object = self.name_of(below);
        let location = self.within(below);
        let listed = self.store.list_with_delimiter(Some(&location));
        let listed = self.asked(Access::List, &object, listed).await?;
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(|folder| folder.filename().map(str::to_owned))
            .collect();
        names.sort();
        match names.len() > BACKUPS_LISTED_MAX {
            true => Err(Error::unavailable(
                Access::List,
                object,
                format!("it holds more than {BACKUPS_LISTED_MAX} folders"),
            )),
            false => Ok(names),
        }
    }

    /// Everything in this folder, at any depth; a part of it when that is far more than is ever written.
    pub async fn objects(&self, below: &Path) -> Result<Vec<Found>, Error> {
        self.list(below, BACKUPS_LISTED_MAX, Some).await
    }

    /// What `keep` makes of the objects in this folder, up to so many.
    pub async fn list<T>(
        &self,
        below: &Path,
        objects_max: usize,
        keep: impl Fn(Found) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let object = self.name_of(below);
        let location = self.within(below);
        let found = |meta: ObjectMeta| {
            let parts = meta.location.prefix_match(&self.prefix)?;
            let modified_ms = u64::try_from(meta.last_modified.timestamp_millis());
            keep(Found {
                path: Path::from_iter(parts),
                modified_ms: modified_ms.unwrap_or_default(),
            })
        };
        let mut objects = self.store.list(Some(&location)).take(objects_max);
        let mut kept = Vec::new();
        // Thousands of pages may come: the patience is for each.
        while let Some(meta) = self
            .asked(Access::List, &object, objects.try_next())
            .await?
        {
            kept.extend(found(meta));
        }
        Ok(kept)
    }

    fn within(&self, path: &Path) -> Path {
        Path::from_iter(self.prefix.parts().chain(path.parts()))
    }

    async fn asked<T>(
        &self,
        access: Access,
        object: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.patience, request).await {
            Ok(answer) => answer.map_err(|error| Error::of_store(access, object.into(), &error)),
            Err(_) => {
                let reason = format!("no answer within {:?}", self.patience);
                Err(Error::unavailable(access, object, reason))
            }
        }
    }
}
