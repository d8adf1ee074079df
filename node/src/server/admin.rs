//! The operator's door: gRPC over mutual TLS, for the operator's certificate only.
//!
//! Handlers parse, call the member, answer. Progress is pushed: `WatchStatus` sends the member's own view
//! when something in it flips, and every five seconds as a sign of life.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use taskstore_api::v1;
use taskstore_api::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use crate::member::Member;
use crate::member::changes::Changes;
use crate::member::running::{HandOverError, Running, membership_message};
use crate::raft::membership::{Change, ChangeError};
use crate::storage::types::MemberName;

/// At most one status message in this time.
const STATUS_PAUSE: Duration = Duration::from_millis(100);
/// A status message at the latest after this time.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How long a hand-over may take before the caller is told that nobody took over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// The admin service of one member.
pub struct AdminService {
    pub member: Arc<Member>,
}

#[tonic::async_trait]
impl Admin for AdminService {
    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<v1::MemberStatus, Status>> + Send>>;

    async fn watch_status(
        &self,
        _request: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let changes = Changes::of(self.member.clone());
        let stream = futures::stream::unfold((changes, None), |(mut changes, last)| async move {
            let status = next_status(&mut changes, last.as_ref()).await;
            Some((Ok(status.clone()), (changes, Some(status))))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn format(
        &self,
        request: Request<v1::FormatRequest>,
    ) -> Result<Response<v1::FormatResponse>, Status> {
        let asked = request
            .into_inner()
            .identity
            .ok_or_else(|| missing("identity"))?;
        self.member
            .format(&asked)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(v1::FormatResponse {
            identity: Some(asked),
        }))
    }

    async fn initialize(
        &self,
        request: Request<v1::InitializeRequest>,
    ) -> Result<Response<v1::InitializeResponse>, Status> {
        let voters: BTreeMap<u64, String> = request
            .into_inner()
            .voters
            .into_iter()
            .map(|member| (member.id, member.name))
            .collect();
        if voters.is_empty() {
            return Err(missing("voters"));
        }
        let running = self.running()?;
        running
            .consensus
            .initialize(voters)
            .await
            .map_err(membership_status)?;
        Ok(Response::new(v1::InitializeResponse {}))
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let request = request.into_inner();
        let change = match request.change.ok_or_else(|| missing("change"))? {
            v1::change_membership_request::Change::AddLearners(add) => Change::AddLearners(
                add.members
                    .into_iter()
                    .map(|member| (member.id, MemberName(member.name)))
                    .collect(),
            ),
            v1::change_membership_request::Change::SetVoters(set) => {
                Change::SetVoters(set.voters.into_iter().collect())
            }
            v1::change_membership_request::Change::RemoveLearners(remove) => {
                Change::RemoveLearners(remove.members.into_iter().collect())
            }
        };
        let expected = request
            .expected_membership
            .ok_or_else(|| missing("expected_membership"))?;
        let running = self.running()?;
        let view = running
            .consensus
            .change_membership(
                change,
                Some((expected.term, expected.index)),
                request.expected_term,
            )
            .await
            .map_err(membership_status)?;
        Ok(Response::new(v1::ChangeMembershipResponse {
            membership: Some(membership_message(&view)),
        }))
    }

    async fn reserve_members(
        &self,
        request: Request<v1::ReserveMembersRequest>,
    ) -> Result<Response<v1::ReserveMembersResponse>, Status> {
        let request = request.into_inner();
        if request.operation_id.is_empty() || request.operation_id.len() > 64 {
            return Err(Status::invalid_argument(
                "operation_id must be 1 to 64 characters",
            ));
        }
        if !(1..=7).contains(&request.count) {
            return Err(Status::invalid_argument("count must be 1 to 7"));
        }
        let running = self.running()?;
        let member_ids = running
            .reserve_members(request.operation_id, request.count)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(v1::ReserveMembersResponse { member_ids }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let running = self.running()?;
        let consensus = &running.consensus;
        let term = consensus.metrics().current_term;
        if request.expected_term != 0 && term != request.expected_term {
            return Err(Status::aborted(format!(
                "expected_term is {}, the term is {term}",
                request.expected_term
            )));
        }
        let to = Some(request.to).filter(|to| *to != 0);
        running
            .hand_over(to, HAND_OVER_PATIENCE)
            .await
            .map_err(|error| match error {
                HandOverError::Refused(_) => Status::failed_precondition(error.to_string()),
                HandOverError::NotInTime(_) => Status::unavailable(error.to_string()),
            })?;
        let deadline = Instant::now() + HAND_OVER_PATIENCE;
        let mut watch = consensus.watch_metrics();
        loop {
            let metrics = watch.current();
            if let Some(leader_id) = metrics
                .current_leader
                .filter(|leader| *leader != metrics.id)
            {
                let answer = v1::TransferLeaderResponse {
                    leader_id,
                    term: metrics.current_term,
                };
                return Ok(Response::new(answer));
            }
            let changed = tokio::time::timeout_at(deadline.into(), watch.changed()).await;
            if !matches!(changed, Ok(true)) {
                return Err(Status::unavailable("no new leader is known yet"));
            }
        }
    }

    async fn set_fenced(
        &self,
        request: Request<v1::SetFencedRequest>,
    ) -> Result<Response<v1::SetFencedResponse>, Status> {
        self.member
            .fence(request.into_inner().fenced)
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(v1::SetFencedResponse {}))
    }

    async fn snapshot(
        &self,
        _request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let running = self.running()?;
        let snapshot = running
            .snapshots
            .cut_now()
            .await
            .map_err(Status::unavailable)?;
        let position = snapshot.position();
        Ok(Response::new(v1::SnapshotResponse {
            log_id: Some(v1::LogId {
                term: position.term,
                index: position.index,
            }),
            bytes: snapshot.bytes,
            state_hash: format!("{:032x}", snapshot.header.state_hash),
        }))
    }
}

impl AdminService {
    fn running(&self) -> Result<Arc<Running>, Status> {
        self.member.running().ok_or_else(|| {
            Status::failed_precondition(format!(
                "Raft is not running: the member is {}",
                self.member.phase_name()
            ))
        })
    }
}

/// Waits until the member's view differs from `last`, or until a sign of life is due.
async fn next_status(changes: &mut Changes, last: Option<&v1::MemberStatus>) -> v1::MemberStatus {
    let sign_of_life = Instant::now() + STATUS_EVERY;
    loop {
        let status = changes.status();
        let Some(last) = last else { return status };
        if flips(last) != flips(&status) || Instant::now() >= sign_of_life {
            return status;
        }
        tokio::time::sleep(STATUS_PAUSE).await;
        tokio::select! {
            () = changes.changed() => {}
            () = tokio::time::sleep_until(sign_of_life.into()) => {}
        }
    }
}

/// The parts of a status whose change is worth a message: positions in the log move all the time. While no
/// leader is known only an election moves its end, and what a recovery would save is told by it.
fn flips(status: &v1::MemberStatus) -> v1::MemberStatus {
    let mut status = status.clone();
    if let Some(raft) = &mut status.raft {
        if raft.leader_id != 0 {
            raft.last_log_index = 0;
            raft.last_log_term = 0;
        }
        raft.committed_index = 0;
        raft.applied_index = 0;
        raft.state_hash.clear();
        raft.snapshot_index = 0;
    }
    status
}

fn membership_status(error: ChangeError) -> Status {
    let text = error.to_string();
    match error {
        ChangeError::NotLeader { .. } => Status::unavailable(text),
        ChangeError::Outdated(_) => Status::aborted(text),
        ChangeError::Refused(_) => Status::failed_precondition(text),
        ChangeError::Unknown(_) => Status::deadline_exceeded(text),
    }
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is required"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_worth_a_message_only_while_no_leader_is_known() {
        let status = |leader_id, last_log_index, last_log_term| {
            let raft = v1::RaftStatus {
                leader_id,
                last_log_index,
                last_log_term,
                committed_index: last_log_index,
                ..v1::RaftStatus::default()
            };
            flips(&v1::MemberStatus {
                raft: Some(raft),
                ..v1::MemberStatus::default()
            })
        };
        assert_eq!(status(7, 1, 1), status(7, 2, 3));
        assert_ne!(status(0, 1, 1), status(0, 2, 1));
        assert_ne!(status(0, 1, 1), status(0, 1, 2));
        assert_eq!(status(0, 1, 1), status(0, 1, 1));
        assert_ne!(status(0, 1, 1), status(7, 1, 1));
    }
}
