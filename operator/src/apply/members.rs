//! Admin calls. Every one is guarded at the member; an unclear outcome is seen in the next report.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::status::Survivor;
use crds::{MemberId, names};
use futures::future::try_join_all;
use taskstore_api::v1;
use taskstore_api::v1::admin_client::AdminClient;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::Scope;
use crate::error::Error;
use crate::observe::Report;
use crate::plan::action::{Guard, short};

/// A change waits for its commit; after this the next report tells how it ended.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A member that refuses its format order is not asked again at once.
const FORMAT_RETRY: Duration = Duration::from_secs(1);

pub async fn format(scope: &Scope<'_>, member: MemberId, volume_uid: &str) -> Result<(), Error> {
    let identity = v1::Identity {
        cluster_id: scope.cluster_id.clone(),
        incarnation: u32::from(member.incarnation()),
        member_id: member.0,
        volume_uid: volume_uid.to_owned(),
    };
    let doing = "format";
    let request = timed(v1::FormatRequest {
        identity: Some(identity),
    });
    let mut client = client(scope, member, doing)?;
    scope
        .ctx
        .members
        .format_beside(&scope.key(), member, async move {
            match client.format(request).await.map_err(refused(member, doing)) {
                Ok(_) => info!(member = short(member), "volume formatted"),
                Err(error) => {
                    warn!(%error, "volume not formatted");
                    tokio::time::sleep(FORMAT_RETRY).await;
                }
            }
        });
    Ok(())
}

pub async fn initialize(scope: &Scope<'_>, on: MemberId, voters: &[MemberId]) -> Result<(), Error> {
    let doing = "initialize";
    let voters = voters.iter().map(|voter| named(scope, *voter)).collect();
    let request = timed(v1::InitializeRequest { voters });
    client(scope, on, doing)?
        .initialize(request)
        .await
        .map_err(refused(on, doing))?;
    Ok(())
}

/// Reserves through the log, and records the numbers before anything is made for them.
pub async fn reserve(scope: &Scope<'_>, leader: MemberId, count: u32) -> Result<(), Error> {
    let doing = "reserve members";
    let mut status = scope.cluster.status.clone().unwrap_or_default();
    let Some(operation) = status.operation.as_mut() else {
        return Err(Error::Stale { doing });
    };
    let request = timed(v1::ReserveMembersRequest {
        operation_id: operation.id.clone(),
        count,
    });
    let answer = client(scope, leader, doing)?
        .reserve_members(request)
        .await
        .map_err(refused(leader, doing))?
        .into_inner();
    operation.members = answer.member_ids.into_iter().map(MemberId).collect();
    operation.step = crds::status::Step::CreateMembers;
    crate::reconcile::write_status(scope.ctx, scope.cluster, status).await
}

pub async fn add_learners(
    scope: &Scope<'_>,
    leader: MemberId,
    members: &[MemberId],
    guard: Guard,
) -> Result<(), Error> {
    let members = members.iter().map(|member| named(scope, *member)).collect();
    let change = v1::change_membership_request::Change::AddLearners(v1::AddLearners { members });
    change_membership(scope, leader, change, guard, "add learners").await
}

pub async fn remove_learners(
    scope: &Scope<'_>,
    leader: MemberId,
    members: &[MemberId],
    guard: Guard,
) -> Result<(), Error> {
    let members = members.iter().map(|member| member.0).collect();
    let change =
        v1::change_membership_request::Change::RemoveLearners(v1::RemoveLearners { members });
    change_membership(scope, leader, change, guard, "remove learners").await
}

pub async fn set_voters(
    scope: &Scope<'_>,
    leader: MemberId,
    voters: &BTreeSet<MemberId>,
    guard: Guard,
) -> Result<(), Error> {
    let voters = voters.iter().map(|voter| voter.0).collect();
    let change = v1::change_membership_request::Change::SetVoters(v1::SetVoters { voters });
    change_membership(scope, leader, change, guard, "set voters").await
}

pub async fn transfer_leader(
    scope: &Scope<'_>,
    leader: MemberId,
    to: MemberId,
    term: u64,
) -> Result<(), Error> {
    let doing = "transfer leadership";
    let request = timed(v1::TransferLeaderRequest {
        to: to.0,
        expected_term: term,
    });
    client(scope, leader, doing)?
        .transfer_leader(request)
        .await
        .map_err(refused(leader, doing))?;
    Ok(())
}

pub async fn set_fenced(scope: &Scope<'_>, member: MemberId, fenced: bool) -> Result<(), Error> {
    let doing = "set fenced";
    client(scope, member, doing)?
        .set_fenced(timed(v1::SetFencedRequest { fenced }))
        .await
        .map_err(refused(member, doing))?;
    Ok(())
}

/// Each survivor says once more where its log ends and that it leads no quorum.
pub async fn confirm_loss(scope: &Scope<'_>, survivors: &[Survivor]) -> Result<(), Error> {
    try_join_all(survivors.iter().map(|survivor| confirm(scope, survivor))).await?;
    Ok(())
}

async fn confirm(scope: &Scope<'_>, survivor: &Survivor) -> Result<(), Error> {
    let (member, doing) = (survivor.id, "survivors asked again");
    let mut stream = client(scope, member, doing)?
        .watch_status(v1::WatchStatusRequest {})
        .await
        .map_err(refused(member, doing))?
        .into_inner();
    let first = tokio::time::timeout(CALL_TIMEOUT, stream.message())
        .await
        .map_err(|_| Error::TimedOut { doing })?
        .map_err(refused(member, doing))?;
    let reach = first
        .and_then(|status| Report::read(&status).raft)
        .and_then(|raft| raft.reach);
    match reach {
        Some(reach) if reach.last == survivor.last_log => Ok(()),
        _ => Err(Error::Stale { doing }),
    }
}

async fn change_membership(
    scope: &Scope<'_>,
    leader: MemberId,
    change: v1::change_membership_request::Change,
    guard: Guard,
    doing: &'static str,
) -> Result<(), Error> {
    let request = timed(v1::ChangeMembershipRequest {
        change: Some(change),
        expected_membership: Some(v1::LogId {
            term: guard.log_id.term,
            index: guard.log_id.index,
        }),
        expected_term: guard.term,
    });
    client(scope, leader, doing)?
        .change_membership(request)
        .await
        .map_err(refused(leader, doing))?;
    Ok(())
}

fn client(
    scope: &Scope<'_>,
    member: MemberId,
    doing: &'static str,
) -> Result<AdminClient<Channel>, Error> {
    scope
        .ctx
        .members
        .client(&scope.key(), member)
        .ok_or(Error::NotConnected { member, doing })
}

fn named(scope: &Scope<'_>, member: MemberId) -> v1::Member {
    v1::Member {
        id: member.0,
        name: names::member_host(scope.name(), scope.namespace(), member),
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// A guard that did not hold says that we were late. Everything else is told to people, and asked for again
/// with pauses: what a member refuses for good must not become a busy loop.
fn refused(member: MemberId, doing: &'static str) -> impl FnOnce(tonic::Status) -> Error {
    move |source| match source.code() {
        tonic::Code::Aborted => Error::Stale { doing },
        _ => Error::Member {
            member,
            doing,
            source: Box::new(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_outdated_order_is_stale_and_a_refused_one_has_a_reason() {
        let outdated = refused(MemberId(1), "set voters")(tonic::Status::aborted("term 3, not 2"));
        assert!(matches!(outdated, Error::Stale { .. }), "{outdated}");
        let no = tonic::Status::failed_precondition("m4 is no learner");
        let error = refused(MemberId(1), "set voters")(no);
        assert_eq!(error.reason(), Some(crds::Reason::WaitingForMembers));
        assert!(error.to_string().contains("m4 is no learner"), "{error}");
    }
}
