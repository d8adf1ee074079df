//! What the operator would see now, by its own `observe`, from one look instead of watches and streams.
//! What it alone remembers we cannot know: its default image, taken here from the pods that run, orders about a
//! bucket that are under way, and sizes that the API server has refused to grow volumes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::{Context as _, Result};
use crds::names::{self, label};
use crds::{MemberId, TaskStoreCluster};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;

use super::Place;
use super::reach::Reach;
use crate::certificates;
use crate::observe::objects::owner;
use crate::observe::{
    Authority, Caches, Credentials, Link, Member, Observed, PodPhase, Report, VolumeState, observe,
    streams,
};
use crate::resources::secret::{self, entry};

pub async fn look(place: &Place) -> Result<Observed> {
    let cluster = &place.cluster;
    let caches = caches(place).await?;
    let template = cluster.status.as_ref().and_then(|s| s.template.as_ref());
    let image = template
        .map(|known| known.image.clone())
        .unwrap_or_default();
    let seen = async |members, credentials| {
        observe(
            &place.client,
            &caches,
            cluster,
            members,
            credentials,
            &image,
        )
        .await
        .context("look at the cluster's objects")
    };
    let objects = seen(BTreeMap::new(), Credentials::default()).await?;
    let credentials = credentials(place, &objects).await?;
    let status = cluster.status.as_ref();
    let members = match status.and_then(|status| status.identity.as_ref()) {
        Some(_) => members(place, &objects).await?,
        None => BTreeMap::new(),
    };
    seen(members, credentials).await
}

/// Filled once: what a watch begins with.
async fn caches(place: &Place) -> Result<Caches> {
    let of_cluster = format!("{}={}", label::CLUSTER, place.name());
    let ours = ListParams::default().labels(&of_cluster);
    let all = ListParams::default();
    Ok(Caches {
        clusters: filled(vec![place.cluster.clone()]),
        pods: listed(place, &ours).await?,
        claims: listed(place, &ours).await?,
        services: listed(place, &ours).await?,
        accounts: listed(place, &ours).await?,
        budgets: listed(place, &ours).await?,
        backups: listed(place, &all).await?,
        restores: listed(place, &all).await?,
    })
}

async fn listed<K>(place: &Place, which: &ListParams) -> Result<Store<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let found = place.api::<K>().list(which).await;
    let found = found.with_context(|| format!("list {}", K::plural(&())))?;
    Ok(filled(found.items))
}

fn filled<K>(objects: Vec<K>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}

/// Asks every member, and then heeds those whom the operator listens to: the leader, and whom it cannot
/// speak for.
async fn members(place: &Place, objects: &Observed) -> Result<BTreeMap<MemberId, Member>> {
    let reach = Reach::open(place).await?;
    let running = objects.pods.values();
    let running = running.filter(|pod| pod.phase != PodPhase::Ended && pod.ip.is_some());
    let told = reach.ask(running.map(|pod| pod.member)).await;
    let members = told.into_iter().map(|(member, told)| {
        let report = told.ok().map(|status| Report::read(&status));
        let link = match report {
            Some(_) => Link::Connected,
            None => Link::Silent,
        };
        (member, Member { link, report })
    });
    Ok(heeded(members.collect(), objects, &place.cluster))
}

fn heeded(
    members: BTreeMap<MemberId, Member>,
    objects: &Observed,
    cluster: &TaskStoreCluster,
) -> BTreeMap<MemberId, Member> {
    let mut all = objects.clone();
    all.members = members;
    let wanted = streams::wanted(&all, cluster);
    for (member, known) in &mut all.members {
        if !wanted.contains_key(member) {
            known.link = Link::Unwatched;
        }
    }
    all.members
}

/// What an operator knows of the Secrets once it has made or checked them.
async fn credentials(place: &Place, objects: &Observed) -> Result<Credentials> {
    let uid = place.cluster.metadata.uid.as_deref().unwrap_or_default();
    let mut known = Credentials::default();
    let Some(authority) = read(place, &names::ca_secret(place.name())).await? else {
        return Ok(known);
    };
    let ca_pem = entry(&authority, secret::CA_CERTIFICATE);
    let labels = authority.metadata.labels.clone().unwrap_or_default();
    if let Some(cluster_id) = labels.get(label::CLUSTER_ID) {
        known.authority = Some(Authority {
            cluster_id: cluster_id.clone(),
            owner: owner(&authority.metadata, uid),
        });
    }
    let leaf = |found: &Secret, certificate: &str| -> Option<(Vec<u8>, Timestamp)> {
        if entry(found, secret::CA_CERTIFICATE) != ca_pem {
            return None;
        }
        let pem = entry(found, certificate)?.into_bytes();
        let expires = certificates::expires(&pem).ok()?;
        Some((pem, expires))
    };
    let client = read(place, &names::client_secret(place.name())).await?;
    let client = client.and_then(|found| leaf(&found, secret::CLIENT_CERTIFICATE));
    if let Some((pem, expires)) = client {
        known.client_expires = Some(expires);
        known.client_is_local = certificates::is_local(&pem);
    }
    let volumes = objects.volumes.values();
    let retired = volumes.clone().filter(|v| v.state == VolumeState::Retired);
    let retired: BTreeSet<MemberId> = retired.map(|volume| volume.member).collect();
    let pods = objects.pods.values().map(|pod| pod.member);
    let members: BTreeSet<MemberId> = volumes.map(|v| v.member).chain(pods).collect();
    for member in members {
        let found = read(place, &names::member_secret(place.name(), member)).await?;
        match found.and_then(|found| leaf(&found, secret::PEER_CERTIFICATE)) {
            Some((_, expires)) => {
                known.member_expires.insert(member, expires);
            }
            None if retired.contains(&member) => {
                known.withdrawn.insert(member);
            }
            None => {}
        }
    }
    Ok(known)
}

async fn read(place: &Place, name: &str) -> Result<Option<Secret>> {
    let found = place.api::<Secret>().get_opt(name).await;
    found.with_context(|| format!("read the Secret {name}"))
}
