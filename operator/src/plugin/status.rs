//! `kubectl taskstore status`: the object in words, and how far each member is behind, where it may be asked.

use anyhow::{Context as _, Result};
use crds::status::{MemberStatus, TaskStoreClusterStatus};
use crds::{MemberId, TaskStoreCluster};
use taskstore_api::v1;

use super::reach::{Reach, leader};
use super::{Place, plan, table};
use crate::plan::action::short;
use crate::plan::explain::clock;

pub async fn run(place: &Place) -> Result<String> {
    let live = live(place).await;
    Ok(words(&place.cluster, &place.full_name(), &live))
}

/// What only the leader knows.
async fn live(place: &Place) -> Result<(MemberId, v1::RaftStatus)> {
    let reach = Reach::open(place).await?;
    let status = place.cluster.status.as_ref().context("no status yet")?;
    let told = reach
        .ask(status.members.iter().map(|member| member.id))
        .await;
    if let Some((member, raft)) = leader(&told) {
        return Ok((member, raft.clone()));
    }
    let silent = told.into_iter().find_map(|(member, told)| {
        let error = told.err()?;
        Some(error.context(format!("no leader answers; {}", short(member))))
    });
    Err(silent.unwrap_or_else(|| anyhow::anyhow!("no member leads")))
}

/// The object, and the leader's words or why there are none.
pub fn words(
    cluster: &TaskStoreCluster,
    name: &str,
    live: &Result<(MemberId, v1::RaftStatus)>,
) -> String {
    let nothing = TaskStoreClusterStatus::default();
    let status = cluster.status.as_ref().unwrap_or(&nothing);
    let mut text = format!(
        "{name}: {} of {} voters Ready, {} wanted\n",
        status.ready_replicas, status.replicas, cluster.spec.replicas
    );
    if let Some(identity) = &status.identity {
        text.push_str(&format!(
            "cluster {}, incarnation {}\n",
            identity.cluster_id, identity.incarnation
        ));
    }
    if status.observed_generation != cluster.metadata.generation {
        text.push_str("The operator has not seen this spec yet.\n");
    }
    text.push('\n');
    text.push_str(&members(status, live.as_ref().ok()));
    match live {
        Ok((leader, raft)) => text.push_str(&format!(
            "{} leads in term {}; its log ends at {}, committed are {}\n",
            short(*leader),
            raft.term,
            raft.last_log_index,
            raft.committed_index
        )),
        Err(error) => text.push_str(&format!(
            "How far members are behind is not known: {error:#}\n"
        )),
    }
    text.push_str(&match &status.operation {
        Some(operation) => format!("\nOperation: {}\n", plan::operation(operation)),
        None => "\nNo operation is in flight.\n".to_owned(),
    });
    text.push('\n');
    let header = ["CONDITION", "STATUS", "REASON", "MESSAGE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(status.conditions.iter().map(|condition| {
        vec![
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ]
    }));
    text.push_str(&table(&rows));
    text
}

fn members(status: &TaskStoreClusterStatus, live: Option<&(MemberId, v1::RaftStatus)>) -> String {
    let header = [
        "MEMBER", "POD", "ROLE", "HEALTH", "SINCE", "NODE", "ZONE", "VERSION", "BEHIND",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(status.members.iter().map(|member| {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let since = member.since.as_ref();
        let since = since.map(|since| clock(since.0));
        let role = match status.leader.as_ref() == Some(&member.pod) {
            true => format!("{:?}, leads", member.role),
            false => format!("{:?}", member.role),
        };
        vec![
            short(member.id),
            member.pod.clone(),
            role,
            format!("{:?}", member.health),
            or_none(&since),
            or_none(&member.node),
            or_none(&member.zone),
            or_none(&member.version),
            behind(member, live),
        ]
    }));
    table(&rows)
}

/// In log entries; the leader rounds up to a power of two.
fn behind(member: &MemberStatus, live: Option<&(MemberId, v1::RaftStatus)>) -> String {
    let Some((leader, raft)) = live else {
        return "?".to_owned();
    };
    if *leader == member.id {
        return "0".to_owned();
    }
    let peer = raft.peers.iter().find(|peer| peer.member_id == member.id.0);
    match peer {
        None => "?".to_owned(),
        Some(peer) if peer.health() == v1::PeerHealth::Unreachable => "unreachable".to_owned(),
        Some(peer) if peer.lag_entries == 0 => "0".to_owned(),
        Some(peer) => format!("≤{}", peer.lag_entries),
    }
}
