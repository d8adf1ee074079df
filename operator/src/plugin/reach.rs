//! The way to members' admin ports from outside of the cluster's network: a forwarded port, and the
//! operator's certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crds::MemberId;
use crds::names::{self, ADMIN_PORT};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use taskstore_api::admin::{self, ClientTls};
use taskstore_api::v1;
use taskstore_api::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use super::Place;
use crate::certificates;
use crate::resources::secret::{self, pair};

/// A member answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody whom the members take for the operator.
pub struct Reach<'a> {
    place: &'a Place,
    cluster_id: String,
    tls: ClientTls,
}

impl<'a> Reach<'a> {
    pub async fn open(place: &'a Place) -> Result<Self> {
        let identity = place.cluster.status.as_ref();
        let identity = identity.and_then(|status| status.identity.as_ref());
        let cluster_id = identity.context("the cluster has no identity yet")?;
        let cluster_id = cluster_id.cluster_id.clone();
        let name = names::ca_secret(place.name());
        let found = place.api::<Secret>().get(&name).await.with_context(|| {
            format!("read the Secret {name}, by which members know the operator")
        })?;
        let authority = pair(&found, secret::CA_CERTIFICATE, secret::CA_KEY)
            .with_context(|| format!("the Secret {name} holds no CA"))?;
        let leaf = certificates::operator(&authority, &cluster_id, Timestamp::now())?;
        Ok(Self {
            place,
            cluster_id,
            tls: ClientTls {
                ca_pem: authority.certificate_pem,
                cert_pem: leaf.certificate_pem,
                key_pem: leaf.key_pem,
            },
        })
    }

    /// A client of one member's admin port.
    pub async fn member(&self, member: MemberId) -> Result<AdminClient<Channel>> {
        let pod = names::pod(self.place.name(), member);
        let server_name = names::member_tls_name(&self.cluster_id, member);
        let mut forwarded = self
            .place
            .api::<Pod>()
            .portforward(&pod, &[ADMIN_PORT])
            .await
            .with_context(|| format!("forward port {ADMIN_PORT} of the pod {pod}"))?;
        let stream = forwarded
            .take_stream(ADMIN_PORT)
            .context("the port was just forwarded")?;
        let client = admin::connect_over(stream, &pod, &server_name, self.tls.clone()).await?;
        Ok(client)
    }

    /// What each of these members says about itself now, or why it does not.
    pub async fn ask(
        &self,
        members: impl IntoIterator<Item = MemberId>,
    ) -> BTreeMap<MemberId, Result<v1::MemberStatus>> {
        let asked = members.into_iter().map(|member| async move {
            let told = tokio::time::timeout(PATIENCE, self.status(member)).await;
            let told = told.unwrap_or_else(|_| {
                Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()))
            });
            (member, told)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn status(&self, member: MemberId) -> Result<v1::MemberStatus> {
        let mut client = self.member(member).await?;
        let stream = client.watch_status(v1::WatchStatusRequest {}).await?;
        let first = stream.into_inner().message().await?;
        first.context("the status stream ended at once")
    }
}

/// Of those who claim to lead, the one with the highest term.
pub fn leader<'a>(
    told: impl IntoIterator<Item = (&'a MemberId, &'a Result<v1::MemberStatus>)>,
) -> Option<(MemberId, &'a v1::RaftStatus)> {
    let leads = told.into_iter().filter_map(|(member, told)| {
        let raft = told.as_ref().ok()?.raft.as_ref()?;
        raft.leads.then_some((*member, raft))
    });
    leads.max_by_key(|(_, raft)| raft.term)
}
