//! Orders about backups, which are given here and followed beside the passes, and the objects that tell of them.

use std::collections::BTreeSet;

use crds::backup::{TaskStoreBackupSpec, TaskStoreBackupStatus};
use crds::destination::Lineage;
use crds::names;
use crds::{BackupPolicy, MemberId, TaskStoreBackup, quantity};
use k8s_openapi::api::core::v1::Pod;
use taskstore_api::v1;

use super::{Scope, objects};
use crate::clients::members::Target;
use crate::clients::objects::replace_status;
use crate::clients::orders::Asked;
use crate::error::Error;
use crate::observe::streams;
use crate::resources;
use crate::resources::backup::CREDENTIALS;
use crate::resources::labels;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// An order to a member, with what it takes to reach it.
pub fn asked(
    scope: &Scope<'_>,
    member: MemberId,
    about: &str,
    failures: u32,
) -> Result<Asked, Error> {
    let doing = "order about backups";
    let tls = scope.ctx.held(&scope.key(), |held| held.tls.clone());
    match (target(scope, member), tls) {
        (Some(target), Some(tls)) => Ok(Asked {
            about: about.to_owned(),
            member,
            failures,
            target,
            tls,
        }),
        _ => Err(Error::NotConnected { member, doing }),
    }
}

fn target(scope: &Scope<'_>, member: MemberId) -> Option<Target> {
    streams::target(scope.observed.pod_of(member)?)
}

fn policy<'a>(scope: &Scope<'a>) -> Result<&'a BackupPolicy, Error> {
    let doing = "spec.backup";
    scope
        .cluster
        .spec
        .backup
        .as_ref()
        .ok_or(Error::Stale { doing })
}

pub fn check(scope: &Scope<'_>, asked: Asked) -> Result<(), Error> {
    let destination = destination(policy(scope)?);
    scope.ctx.orders.check(&scope.key(), asked, destination);
    Ok(())
}

pub fn order(
    scope: &Scope<'_>,
    asked: Asked,
    name: &str,
    previous: Option<&(String, String)>,
) -> Result<(), Error> {
    let policy = policy(scope)?;
    let bound = policy.bytes_per_second_max.as_ref();
    let request = v1::BackupRequest {
        destination: Some(destination(policy)),
        name: name.to_owned(),
        previous: previous.map(|(name, checksum)| v1::BackupRef {
            name: name.clone(),
            checksum: checksum.clone(),
        }),
        bytes_per_second_max: bound.and_then(quantity::units).unwrap_or(0),
    };
    scope.ctx.orders.back_up(&scope.key(), asked, request);
    Ok(())
}

pub fn prune(scope: &Scope<'_>, asked: Asked, in_use: &BTreeSet<String>) -> Result<(), Error> {
    let policy = policy(scope)?;
    let days = policy.keep.days.and_then(|days| u64::try_from(days).ok());
    let request = v1::PruneBackupsRequest {
        destination: Some(destination(policy)),
        // Never 0, which would keep any number.
        keep_count: u64::try_from(policy.keep.count).unwrap_or(1).max(1),
        keep_age_ms: days.map_or(0, |days| days * DAY_MS),
        in_use: in_use.iter().cloned().collect(),
    };
    scope.ctx.orders.prune(&scope.key(), asked, request);
    Ok(())
}

pub fn ship(scope: &Scope<'_>, asked: Asked, instead_of: Option<MemberId>) -> Result<(), Error> {
    let destination = destination(policy(scope)?);
    let before = instead_of.and_then(|member| target(scope, member));
    let orders = &scope.ctx.orders;
    orders.ship(&scope.key(), asked, destination, before);
    Ok(())
}

pub fn stop_shipping(scope: &Scope<'_>, asked: Asked) -> Result<(), Error> {
    scope.ctx.orders.stop_shipping(&scope.key(), asked);
    Ok(())
}

pub async fn create(scope: &Scope<'_>, name: &str) -> Result<(), Error> {
    let mut backup = object(scope, name);
    backup.metadata.labels = Some(labels(scope.cluster));
    objects::create(scope, "create backup", &backup, "TaskStoreBackup").await
}

pub async fn note(
    scope: &Scope<'_>,
    name: &str,
    version: &str,
    status: &TaskStoreBackupStatus,
) -> Result<(), Error> {
    let mut backup = object(scope, name);
    backup.metadata.resource_version = Some(version.to_owned());
    backup.status = Some(status.clone());
    replace_status(&scope.ctx.client, "status of a backup", &backup).await
}

pub async fn delete(scope: &Scope<'_>, name: &str, uid: &str) -> Result<(), Error> {
    objects::delete::<TaskStoreBackup>(scope, "delete backup", name, uid, None).await
}

/// Another operator's is as good.
pub async fn drill(scope: &Scope<'_>, about: &str, lineage: &Lineage) -> Result<(), Error> {
    let from = &policy(scope)?.destination;
    let image = resources::pod::image(scope.cluster, &scope.observed.default_image);
    let pod = resources::drill::build(scope.cluster, from, lineage, about, image);
    objects::create(scope, "create drill", &pod, "Pod").await
}

pub async fn end_drill(scope: &Scope<'_>, uid: &str) -> Result<(), Error> {
    let name = names::drill(scope.name());
    objects::delete::<Pod>(scope, "delete drill", &name, uid, None).await
}

fn object(scope: &Scope<'_>, name: &str) -> TaskStoreBackup {
    let spec = TaskStoreBackupSpec {
        cluster: scope.name().to_owned(),
    };
    let mut backup = TaskStoreBackup::new(name, spec);
    backup.metadata.namespace = Some(scope.namespace().to_owned());
    backup
}

fn destination(policy: &BackupPolicy) -> v1::BackupDestination {
    let destination = policy.destination.clone();
    let credentials = destination.credentials.map(|_| CREDENTIALS.into());
    v1::BackupDestination {
        url: destination.url,
        endpoint: destination.endpoint.unwrap_or_default(),
        region: destination.region.unwrap_or_default(),
        path_style: destination.path_style,
        account: destination.account.unwrap_or_default(),
        ca_pem: destination.ca_bundle.unwrap_or_default(),
        credentials: credentials.unwrap_or_default(),
    }
}
