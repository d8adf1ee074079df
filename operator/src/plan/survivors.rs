//! What is left of a cluster without a leader: who answers, how far each log reaches, what would be lost.

use std::cmp::Reverse;

use crds::MemberId;
use crds::status::{Identity, LogId, RecoveryOffer, Survivor};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::{list, short};
use super::{Draft, loss};
use crate::observe::{Membership, Observed, Phase, Reach, Report};

/// Members that only restart answer before.
pub const OFFER_AFTER: SignedDuration = SignedDuration::from_secs(30);

pub enum Assessed {
    /// A leader is known, or as many voters answer as can elect one.
    Quorate,
    /// Nobody who is left has said how far its log reaches.
    Unheard,
    Lost(RecoveryOffer),
}

/// Raft's newest configuration that anybody knows of, and who of it answers.
pub fn assess(draft: &Draft<'_>, identity: &Identity) -> Assessed {
    let observed = draft.observed;
    if draft.leader.is_some() || !identity.initialized {
        return Assessed::Quorate;
    }
    let reported = observed
        .members
        .keys()
        .filter(|member| member.incarnation() == identity.incarnation)
        .filter_map(|member| observed.report_of(*member)?.raft.as_ref())
        .map(|raft| raft.membership.clone());
    let recorded = draft.plan.progress.membership.as_ref();
    let config = recorded
        .map(Membership::from_status)
        .into_iter()
        .chain(reported)
        .max_by_key(|known| known.log_id);
    let Some(config) = config.filter(|known| !known.voters.is_empty()) else {
        return Assessed::Unheard;
    };
    if config.is_quorum(|voter| observed.report_of(voter).is_some_and(is_sound)) {
        return Assessed::Quorate;
    }
    let members = config.members();
    let reaches: Vec<(MemberId, Reach)> = reaches(observed, identity)
        .filter(|(member, _)| members.contains(member))
        .collect();
    let source = reaches
        .iter()
        .max_by_key(|(member, reach)| (reach.last, Reverse(*member)));
    let Some((source, reach)) = source.copied() else {
        return Assessed::Unheard;
    };
    let earlier = draft.recorded.recovery.as_ref();
    let since = earlier.map_or(Time(loss::begins(draft.now)), |known| known.since.clone());
    if since
        .0
        .checked_add(OFFER_AFTER)
        .is_ok_and(|due| due > draft.now)
    {
        return Assessed::Lost(RecoveryOffer {
            since,
            nonce: None,
            source: None,
            survivors: Vec::new(),
            missing: Vec::new(),
            loss_bound: None,
        });
    }
    let survivors: Vec<Survivor> = reaches
        .iter()
        .map(|(member, reach)| Survivor {
            id: *member,
            last_log: reach.last,
        })
        .collect();
    let missing: Vec<MemberId> = members
        .into_iter()
        .filter(|member| survivors.iter().all(|survivor| survivor.id != *member))
        .collect();
    Assessed::Lost(RecoveryOffer {
        nonce: Some(nonce(identity, &since, &survivors)),
        source: Some(source),
        loss_bound: Some(format!(
            "what was acknowledged after entry {} and is not in the log of {}, which ends at {}.{}: only {} can \
             have it",
            reach.committed_index,
            short(source),
            reach.last.term,
            reach.last.index,
            list(&missing)
        )),
        since,
        survivors,
        missing,
    })
}

/// Members of this incarnation that answer on a disk they can read, and how far each log reaches.
pub fn reaches<'a>(
    observed: &'a Observed,
    identity: &'a Identity,
) -> impl Iterator<Item = (MemberId, Reach)> + 'a {
    let members = observed.members.keys().copied();
    members
        .filter(|member| member.incarnation() == identity.incarnation)
        .filter_map(|member| {
            let report = observed.report_of(member).filter(|known| is_sound(known))?;
            Some((member, report.raft.as_ref()?.reach?))
        })
}

/// Runs on a disk that it can read; it votes, now or once it has read its log.
fn is_sound(report: &Report) -> bool {
    matches!(report.phase, Phase::Recovering | Phase::Serving)
}

/// Of exactly these survivors and this loss: a majority that was back in between makes another one.
fn nonce(identity: &Identity, since: &Time, survivors: &[Survivor]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(identity.cluster_id.as_bytes());
    hasher.update(&identity.incarnation.to_le_bytes());
    hasher.update(&since.0.as_second().to_le_bytes());
    for survivor in survivors {
        let LogId { term, index } = survivor.last_log;
        for number in [survivor.id.0, term, index] {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().as_str()[..16].to_owned()
}
