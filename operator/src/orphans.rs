//! TaskStoreBackups whose cluster is not there, or not any more: they fail after a grace, and say why.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Client, ResourceExt};

use crate::clients::members::Key;
use crate::clients::objects::replace_status;
use crate::error::Error;
use crate::observe::Caches;
use crate::observe::backups::backup;
use crate::plan::backups::{GRACE, failed};

/// Answers after what time to look again, while the grace of one is not over.
pub async fn give_up(
    client: &Client,
    caches: &Caches,
    (namespace, cluster): &Key,
    now: Timestamp,
) -> Result<Option<Duration>, Error> {
    let theirs = caches.backups.state_filter(|backup| {
        backup.namespace().as_deref() == Some(namespace) && backup.spec.cluster == *cluster
    });
    let mut wait = None;
    for object in theirs {
        let Some(seen) = backup(&object).filter(|seen| seen.is_open()) else {
            continue;
        };
        let left = (seen.created + GRACE).duration_since(now);
        if left.is_positive() {
            let left = left.unsigned_abs();
            wait = Some(wait.map_or(left, |known: Duration| known.min(left)));
            continue;
        }
        let words = format!("there is no TaskStoreCluster {cluster} in this namespace");
        let mut wanted = object.as_ref().clone();
        wanted.status = Some(failed(&seen, words));
        match replace_status(client, "status of a backup", &wanted).await {
            // The change that made it so comes as an event.
            Ok(()) | Err(Error::Stale { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wait)
}
