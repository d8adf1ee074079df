//! `kubectl taskstore switchover`: asks the leader to hand over, and waits until another member leads.

use anyhow::{Context as _, Result, bail};
use crds::MemberId;
use crds::status::MemberStatus;
use taskstore_api::v1;

use super::Place;
use super::reach::{Reach, leader};
use crate::plan::action::short;

pub async fn run(place: &Place, to: Option<&str>) -> Result<String> {
    let status = place.cluster.status.as_ref().context("no status yet")?;
    let to = to.map(|to| named(&status.members, to)).transpose()?;
    let reach = Reach::open(place).await?;
    let told = reach
        .ask(status.members.iter().map(|member| member.id))
        .await;
    let Some((from, raft)) = leader(&told) else {
        let silent: Vec<String> = told
            .iter()
            .map(|(member, told)| match told {
                Ok(_) => format!("{} follows", short(*member)),
                Err(error) => format!("{}: {error:#}", short(*member)),
            })
            .collect();
        bail!("no member leads: {}", silent.join("; "));
    };
    if to == Some(from) {
        return Ok(format!(
            "{} leads already, in term {}.\n",
            short(from),
            raft.term
        ));
    }
    let request = v1::TransferLeaderRequest {
        to: to.map_or(0, |to| to.0),
        expected_term: raft.term,
    };
    let mut client = reach.member(from).await?;
    let answer = client.transfer_leader(request).await;
    let answer = answer
        .map_err(|refusal| {
            anyhow::anyhow!("{} does not hand over: {}", short(from), refusal.message())
        })?
        .into_inner();
    Ok(format!(
        "{} leads now, in term {}; before it was {}, in term {}.\n",
        short(MemberId(answer.leader_id)),
        answer.term,
        short(from),
        raft.term
    ))
}

/// A member as people write it: its pod, `m3`, or its whole id.
fn named(members: &[MemberStatus], text: &str) -> Result<MemberId> {
    let is_meant = |member: &&MemberStatus| {
        member.pod == text || short(member.id) == text || member.id.to_string() == text
    };
    let found = members.iter().find(is_meant).map(|member| member.id);
    found.with_context(|| {
        let known: Vec<String> = members.iter().map(|member| short(member.id)).collect();
        format!("there is no member {text}; there are {}", known.join(", "))
    })
}
