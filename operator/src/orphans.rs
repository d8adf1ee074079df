//! TaskStoreBackups whose cluster is not there, or not any more: they fail after a grace, and say why.

use std::time::Duration;

use crds::TaskStoreBackup;
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use crate::clients::members::Key;
use crate::error::{Error, kubernetes};
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
    let api: Api<TaskStoreBackup> = Api::namespaced(client.clone(), namespace);
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
        let name = object.name_any();
        match api
            .replace_status(&name, &PostParams::default(), &wanted)
            .await
        {
            Ok(_) => {}
            // The change that made it so comes as an event.
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => {}
            Err(error) => return Err(kubernetes("status of a backup")(error)),
        }
    }
    Ok(wait)
}
