//! Secrets with certificates: read by their names, made when absent, issued again when due. What was made
//! or found good is remembered, so that a cluster at rest reads none of them.

use crds::MemberId;
use crds::names::{self, label};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use taskstore_api::admin::ClientTls;

use super::Scope;
use super::objects::{create, delete};
use crate::certificates::{self, LEAF_LIFE, LEAF_RENEW_BEFORE, Pair};
use crate::context::Held;
use crate::error::{Error, kubernetes};
use crate::observe::objects::owner;
use crate::observe::{Authority, Owner, VolumeState};
use crate::resources::secret::{self, entry, pair};

/// The authority of this cluster: kept with its volumes, and made anew when none of them is left.
pub async fn ensure_authority(scope: &Scope<'_>) -> Result<(), Error> {
    let name = names::ca_secret(scope.name());
    let now = Timestamp::now();
    let found = read(scope, &name).await?;
    let held = match found
        .as_ref()
        .and_then(|found| pair(found, secret::CA_CERTIFICATE, secret::CA_KEY))
    {
        Some(known) if is_of_cluster(scope, found.as_ref()) => known,
        _ => {
            let minted = match scope
                .ctx
                .held(&scope.key(), |known| known.authority.clone())
            {
                Some(known) => known,
                None => {
                    check_replaceable(scope, &name).await?;
                    certificates::authority(&scope.cluster_id, now)?
                }
            };
            let wanted = secret::authority(scope.cluster, &scope.cluster_id, &minted);
            write(scope, found.as_ref(), wanted).await?;
            // Another operator may have been first: what is stored counts.
            let stored = read(scope, &name).await?;
            let stored = stored
                .as_ref()
                .and_then(|stored| pair(stored, secret::CA_CERTIFICATE, secret::CA_KEY));
            stored.ok_or(Error::Stale {
                doing: "authority made",
            })?
        }
    };
    let stored_owner = keep_owner(scope, &name, &held).await?;
    publish(scope, &held).await?;
    let leaf = certificates::operator(&held, &scope.cluster_id, now)?;
    scope.ctx.held(&scope.key(), |known| {
        if known.authority.as_ref() != Some(&held) {
            *known = Held {
                cluster_uid: uid(scope).to_owned(),
                ..Held::default()
            };
        }
        known.facts.authority = Some(Authority {
            cluster_id: scope.cluster_id.clone(),
            owner: stored_owner,
        });
        known.tls = Some(ClientTls {
            ca_pem: held.certificate_pem.clone(),
            cert_pem: leaf.certificate_pem,
            key_pem: leaf.key_pem,
        });
        known.authority = Some(held);
    });
    Ok(())
}

/// Members that trust different authorities refuse each other. So a lost one is made anew only while the
/// store was never initialized, or when no member has a certificate of it any more.
async fn check_replaceable(scope: &Scope<'_>, authority: &str) -> Result<(), Error> {
    let status = scope.cluster.status.as_ref();
    let identity = status.and_then(|status| status.identity.as_ref());
    if identity.is_some_and(|identity| !identity.initialized) {
        return Ok(());
    }
    let members = scope.observed.volumes.values().filter(|volume| {
        volume.state != VolumeState::Retired && volume.cluster_id == scope.cluster_id
    });
    for volume in members {
        let certificate = names::member_secret(scope.name(), volume.member);
        let found = read(scope, &certificate).await?;
        if found.is_some_and(|found| is_of_an_authority(&found, uid(scope))) {
            return Err(Error::AuthorityLost {
                name: authority.to_owned(),
                certificate,
            });
        }
    }
    Ok(())
}

/// Certificates of an earlier cluster are about to be collected and hold nobody together.
fn is_of_an_authority(found: &Secret, cluster_uid: &str) -> bool {
    owner(&found.metadata, cluster_uid) != Owner::Other
        && entry(found, secret::CA_CERTIFICATE).is_some()
}

/// The CA that clients trust, in a ConfigMap that anybody of the namespace may read.
async fn publish(scope: &Scope<'_>, held: &Pair) -> Result<(), Error> {
    let mut wanted = secret::ca_config_map(scope.cluster, &held.certificate_pem);
    let name = names::ca_config_map(scope.name());
    let api = scope.api::<ConfigMap>();
    let Some(found) = api.get_opt(&name).await.map_err(kubernetes("CA read"))? else {
        return create(scope, "CA published", &wanted, "ConfigMap").await;
    };
    if owner(&found.metadata, uid(scope)) != Owner::Ours {
        return Err(Error::Earlier {
            kind: "ConfigMap",
            name,
        });
    }
    if found.data != wanted.data {
        wanted.metadata.resource_version = found.metadata.resource_version;
        api.replace(&name, &PostParams::default(), &wanted)
            .await
            .map_err(kubernetes("CA published"))?;
    }
    Ok(())
}

pub async fn ensure_client(scope: &Scope<'_>) -> Result<(), Error> {
    let authority = authority(scope)?;
    let name = names::client_secret(scope.name());
    let must_be_local = scope.cluster.spec.template.is_some();
    let (certificate, expires) = ensure_leaf(
        scope,
        &name,
        secret::CLIENT_CERTIFICATE,
        &authority,
        |pem| !must_be_local || certificates::is_local(pem),
        |now| {
            let minted = certificates::client(&authority, scope.name(), scope.namespace(), now)?;
            Ok(secret::client(
                scope.cluster,
                &authority.certificate_pem,
                &minted,
            ))
        },
    )
    .await?;
    scope.ctx.held(&scope.key(), |held| {
        held.facts.client_expires = Some(expires);
        held.facts.client_is_local = certificates::is_local(&certificate);
    });
    Ok(())
}

pub async fn ensure_member(scope: &Scope<'_>, member: MemberId) -> Result<(), Error> {
    let authority = authority(scope)?;
    let name = names::member_secret(scope.name(), member);
    let (_, expires) = ensure_leaf(
        scope,
        &name,
        secret::PEER_CERTIFICATE,
        &authority,
        |_| true,
        |now| {
            let minted = certificates::member(&authority, &scope.cluster_id, member, now)?;
            Ok(secret::member(
                scope.cluster,
                member,
                &authority.certificate_pem,
                &minted,
            ))
        },
    )
    .await?;
    scope.ctx.held(&scope.key(), |held| {
        held.facts.member_expires.insert(member, expires);
        held.facts.withdrawn.remove(&member);
    });
    Ok(())
}

pub async fn delete_member(scope: &Scope<'_>, member: MemberId) -> Result<(), Error> {
    let name = names::member_secret(scope.name(), member);
    if let Some(found) = read(scope, &name).await? {
        let uid = found.metadata.uid.clone().unwrap_or_default();
        if is_labelled(scope, &found) {
            delete::<Secret>(scope, "certificate deleted", &name, &uid, None).await?;
        }
    }
    scope.ctx.held(&scope.key(), |held| {
        held.facts.member_expires.remove(&member);
        held.facts.withdrawn.insert(member);
    });
    Ok(())
}

/// Finds a leaf of this authority that is not due and holds what it must, or issues one.
async fn ensure_leaf(
    scope: &Scope<'_>,
    name: &str,
    certificate: &str,
    authority: &Pair,
    is_enough: impl FnOnce(&[u8]) -> bool,
    issue: impl FnOnce(Timestamp) -> Result<Secret, Error>,
) -> Result<(Vec<u8>, Timestamp), Error> {
    let now = Timestamp::now();
    let found = read(scope, name).await?;
    if let Some(found) = &found {
        if owner(&found.metadata, uid(scope)) == Owner::Other {
            return Err(Error::Earlier {
                kind: "Secret",
                name: name.to_owned(),
            });
        }
        let is_ours = entry(found, secret::CA_CERTIFICATE).as_deref()
            == Some(authority.certificate_pem.as_str());
        let pem = entry(found, certificate).unwrap_or_default().into_bytes();
        let expires = certificates::expires(&pem).ok();
        let expires = expires.filter(|expires| is_ours && *expires - LEAF_RENEW_BEFORE > now);
        if let Some(expires) = expires.filter(|_| is_enough(&pem)) {
            return Ok((pem, expires));
        }
    }
    let issued = issue(now)?;
    let pem = issued
        .data
        .as_ref()
        .and_then(|data| data.get(certificate))
        .map(|pem| pem.0.clone())
        .unwrap_or_default();
    write(scope, found.as_ref(), issued).await?;
    Ok((pem, now.checked_add(LEAF_LIFE).unwrap_or(now)))
}

fn authority(scope: &Scope<'_>) -> Result<Pair, Error> {
    scope
        .ctx
        .held(&scope.key(), |held| held.authority.clone())
        .ok_or(Error::Stale {
            doing: "authority read",
        })
}

async fn read(scope: &Scope<'_>, name: &str) -> Result<Option<Secret>, Error> {
    scope
        .api::<Secret>()
        .get_opt(name)
        .await
        .map_err(kubernetes("secret read"))
}

/// Creates, or replaces exactly what was read.
async fn write(scope: &Scope<'_>, found: Option<&Secret>, mut wanted: Secret) -> Result<(), Error> {
    let Some(found) = found else {
        return create(scope, "secret created", &wanted, "Secret").await;
    };
    let name = wanted.metadata.name.clone().unwrap_or_default();
    if !is_labelled(scope, found) {
        return Err(Error::NameTaken {
            kind: "Secret",
            name,
        });
    }
    wanted.metadata.resource_version = found.metadata.resource_version.clone();
    scope
        .api::<Secret>()
        .replace(&name, &PostParams::default(), &wanted)
        .await
        .map_err(kubernetes("secret replaced"))?;
    Ok(())
}

/// Whether a Secret was made for a cluster of this name.
fn is_labelled(scope: &Scope<'_>, found: &Secret) -> bool {
    let labels = found.metadata.labels.as_ref();
    labels
        .is_some_and(|labels| labels.get(label::CLUSTER).map(String::as_str) == Some(scope.name()))
}

/// `whenDeleted` decides whether the authority goes with the cluster.
async fn keep_owner(scope: &Scope<'_>, name: &str, held: &Pair) -> Result<Owner, Error> {
    let wanted = secret::authority(scope.cluster, &scope.cluster_id, held);
    let Some(stored) = read(scope, name).await? else {
        return Err(Error::Stale {
            doing: "authority read",
        });
    };
    let is = owner(&stored.metadata, uid(scope));
    if is == Owner::Other {
        return Err(Error::Earlier {
            kind: "Secret",
            name: name.to_owned(),
        });
    }
    let should = owner(&wanted.metadata, uid(scope));
    if is != should {
        write(scope, Some(&stored), wanted).await?;
    }
    Ok(should)
}

fn is_of_cluster(scope: &Scope<'_>, found: Option<&Secret>) -> bool {
    let labels = found.and_then(|found| found.metadata.labels.as_ref());
    labels.is_some_and(|labels| labels.get(label::CLUSTER_ID) == Some(&scope.cluster_id))
}

fn uid<'a>(scope: &'a Scope<'_>) -> &'a str {
    scope.cluster.metadata.uid.as_deref().unwrap_or_default()
}
