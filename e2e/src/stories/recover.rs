//! Two of three nodes lose their power for good: the store says what is left, waits for its user's word, and
//! goes on from the survivor.

use super::Story;
use super::load::Load;
use super::made::small;
use crate::local;
use crate::store::{READY_LIMIT, Store, operator_node};
use anyhow::{Context, Result, ensure};
use crds::conditions::get;
use crds::names::MemberId;
use crds::status::{MemberStatus, RecoveryOffer};
use crds::{ConditionType, Reason, TaskStoreCluster};
use std::time::Instant;
use taskstore_api::{TaskStoreClient, v1};

/// Each moves the lead to one of two others.
const HAND_OVERS_MAX: usize = 20;
pub const HELD_NAMESPACE: &str = "held";
const HELD_QUEUE: &str = "held";

pub async fn majority_lost(story: Story) -> Result<()> {
    let store = Store::open(&story.cluster, &story.namespace, "store").await?;
    story.apply(&small(&store.name, 3)).await?;
    store.ready(3, READY_LIMIT).await?;
    let before = Load::start(&store, "before").await?;
    before.goes_on(100).await?;
    let (survivor, lost) = divide(&store).await?;
    let ledger = before.finish().await?;
    let client = store.client().await?.with_deadline(READY_LIMIT);
    let held = hold(&client).await?;

    let nodes = nodes(&lost)?;
    let start = Instant::now();
    for node in &nodes {
        local::kill(node).await?;
    }
    let offer = offered(&store).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("majority_lost_offer_seconds", seconds);
    check_offer(&store, &offer, &survivor, &lost).await?;

    let nonce = offer.nonce.context("an offer has a nonce")?;
    acknowledge(&store, &nonce).await?;
    let start = Instant::now();
    accept(&store, &lost).await?;
    create(&client, "after").await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("majority_lost_writable_seconds", seconds);
    store.ready(3, READY_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    story.figures.add("majority_lost_whole_seconds", seconds);

    ledger.check(&client).await.context("after the recovery")?;
    check_held(&client, &held).await?;
    check_retired(&store, &lost).await?;

    for node in &nodes {
        story.start_node(node).await?;
    }
    for member in &lost {
        store.pod_gone(&member.pod).await?;
    }
    let is_over = |cluster: &TaskStoreCluster| {
        let mut members = cluster.status.iter().flat_map(|status| &status.members);
        members.all(|member| member.id.incarnation() == 2)
    };
    store
        .until("the lost incarnation is history", READY_LIMIT, is_over)
        .await?;
    store.healed(3, READY_LIMIT).await?;
    check_retired(&store, &lost).await?;
    let after = Load::start(&store, "after").await?;
    after.goes_on(50).await?;
    after.finish().await.map(drop)
}

/// The leader is to survive, because all that was acknowledged is on its disk, and the others are to go; not one of
/// these on the acting operator's node.
async fn divide(store: &Store) -> Result<(MemberStatus, Vec<MemberStatus>)> {
    let busy = operator_node(&store.kube).await?;
    for _ in 0..HAND_OVERS_MAX {
        let cluster = store.healed(3, READY_LIMIT).await?;
        let members = cluster.status.context("no status")?.members;
        let leader = store.leader().await?;
        let (stays, goes): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| member.pod == leader);
        if goes.iter().all(|member| member.node != busy) {
            let survivor = stays.into_iter().next().context("the leader is a member")?;
            return Ok((survivor, goes));
        }
        store.delete_pod(&leader).await?;
    }
    anyhow::bail!("no leader leaves the operator's node alone")
}

fn nodes(lost: &[MemberStatus]) -> Result<Vec<&'static local::Node>> {
    let names = lost.iter().map(|member| member.node.as_deref());
    names
        .map(|name| local::node(name.context("a member runs on a node")?))
        .collect()
}

/// A task that is running when the majority goes.
pub async fn hold(client: &TaskStoreClient) -> Result<v1::ClaimedTask> {
    create(client, HELD_QUEUE).await?;
    claim(client).await
}

/// One task; on return it is acknowledged.
pub async fn create(client: &TaskStoreClient, queue: &str) -> Result<()> {
    let task = v1::NewTask {
        lease_ms: 3_600_000,
        ..v1::NewTask::default()
    };
    let create = v1::CreateRequest {
        namespace: HELD_NAMESPACE.to_owned(),
        queue: queue.to_owned(),
        task: Some(task),
    };
    client.create(create).await.context("create")?;
    Ok(())
}

async fn claim(client: &TaskStoreClient) -> Result<v1::ClaimedTask> {
    let claim = v1::ClaimRequest {
        namespace: HELD_NAMESPACE.to_owned(),
        queues: vec![HELD_QUEUE.to_owned()],
        wait_ms: 30_000,
        ..v1::ClaimRequest::default()
    };
    let tasks = client.claim(claim).await.context("claim")?.tasks;
    tasks.into_iter().next().context("nothing was claimed")
}

async fn offered(store: &Store) -> Result<RecoveryOffer> {
    let offer = |cluster: &TaskStoreCluster| {
        let status = cluster.status.clone()?;
        status.recovery.filter(|offer| offer.nonce.is_some())
    };
    let what = "a recovery is offered";
    let found = store
        .until(what, READY_LIMIT, |cluster| offer(cluster).is_some())
        .await?;
    offer(&found).context(what)
}

async fn check_offer(
    store: &Store,
    offer: &RecoveryOffer,
    survivor: &MemberStatus,
    lost: &[MemberStatus],
) -> Result<()> {
    let missing: Vec<MemberId> = lost.iter().map(|member| member.id).collect();
    ensure!(
        offer.source == Some(survivor.id) && offer.missing == missing,
        "{} is left, and the offer says {offer:?}",
        survivor.id
    );
    let status = store.get().await?.status.context("no status")?;
    let quorate = get(&status.conditions, ConditionType::Quorate).context("no Quorate")?;
    ensure!(
        quorate.reason == Reason::QuorumLost.as_str() && quorate.message.contains("would lose"),
        "Quorate says {quorate:?}"
    );
    Ok(())
}

/// The ends of the pods on nodes without power are not confirmed by anybody: it waits, and says for whom.
async fn acknowledge(store: &Store, nonce: &str) -> Result<()> {
    store
        .patch(&format!(r#"{{"recovery": {{"acknowledge": "{nonce}"}}}}"#))
        .await?;
    let waits = |cluster: &TaskStoreCluster| {
        let status = cluster.status.clone().unwrap_or_default();
        let said = get(&status.conditions, ConditionType::Progressing);
        said.is_some_and(|said| said.message.contains("spec.recovery.acceptUnconfirmed"))
    };
    let found = store
        .until("it waits for the pods' ends", READY_LIMIT, waits)
        .await?;
    let identity = found.status.and_then(|status| status.identity);
    ensure!(
        identity.is_some_and(|identity| identity.incarnation == 1),
        "it went on without its user's word"
    );
    Ok(())
}

async fn accept(store: &Store, lost: &[MemberStatus]) -> Result<()> {
    let ids: Vec<String> = lost.iter().map(|member| member.id.to_string()).collect();
    let ids = ids.join(", ");
    store
        .patch(&format!(
            r#"{{"recovery": {{"acceptUnconfirmed": [{ids}]}}}}"#
        ))
        .await
}

/// The task that was running is to be had again, as if it had never been claimed, under a higher token.
pub async fn check_held(client: &TaskStoreClient, held: &v1::ClaimedTask) -> Result<()> {
    let again = claim(client).await?;
    let task = again.task.clone().context("a claim without its task")?;
    ensure!(
        again.lease_token > held.lease_token && task.attempts == 1 && task.abandonments == 0,
        "claimed again under {} after {}: {task:?}",
        again.lease_token,
        held.lease_token
    );
    let complete = |token: u64| v1::CompleteRequest {
        lease: Some(v1::Lease {
            namespace: HELD_NAMESPACE.to_owned(),
            id: task.id.clone(),
            lease_token: token,
        }),
        ..v1::CompleteRequest::default()
    };
    let late = client.complete(complete(held.lease_token)).await;
    ensure!(
        late.as_ref()
            .is_err_and(taskstore_api::CallError::is_lease_lost),
        "the token of the lost incarnation is still good: {late:?}"
    );
    client.complete(complete(again.lease_token)).await?;
    Ok(())
}

async fn check_retired(store: &Store, lost: &[MemberStatus]) -> Result<()> {
    for member in lost {
        ensure!(
            store.is_retired(&member.pod).await?,
            "the volume of {} is not retired",
            member.id
        );
    }
    Ok(())
}
