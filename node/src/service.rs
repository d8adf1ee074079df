//! The single door: every request of a client, from here or forwarded by another member, passes through
//! `Service::call`.
//!
//! The leader serves; a follower forwards over the peer transport and asks again when nothing was
//! appended, or when the request takes effect once however often it is sent (all of them do: a create by
//! its id, a claim by its claim id, a settle by its token). So a caller sees a fail-over as a slow answer,
//! and an error only when its deadline is reached.

pub mod claims;
pub mod clock;
#[cfg(test)]
mod golden;
pub mod proposer;
pub mod request;
pub mod snapshots;
pub mod ticker;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use self::claims::Claims;
use self::clock::Clock;
use self::proposer::Proposer;
use self::request::{
    ClaimedTask, Error, List, Page, Request, Response, TaskWithPayload, UnavailableCause,
};
use crate::limits::FRAME_BYTES_MAX;
use crate::metrics::Metrics;
use crate::raft::consensus::{Consensus, ProposeError, Role};
use crate::raft::transport::peers::{ForwardError, Peers};
use crate::raft::transport::wire::Facts;
use crate::storage::store::Store;
use crate::task::command::{Claim, Command, Outcome, Rejection, TaskView};

/// What the servers of both protocols call.
pub trait Door: Send + Sync + 'static {
    /// Serves a request, or says why not, at the latest at `deadline`.
    fn call(&self, request: Request, deadline: Instant) -> BoxFuture<'_, Result<Response, Error>>;
}

/// How long a caller is kept waiting for a leader before it is told that there is none.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before a request goes to the same place again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A member that has not answered for this long has said nothing about its disk.
const FACTS_BELIEVED_FOR: Duration = Duration::from_secs(5);
/// What a frame holds beside an answer.
const ANSWER_FRAME_BYTES: usize = 64;
/// Advice to callers who were turned away for want of a leader.
const NO_LEADER_RETRY_MS: u64 = 200;

/// How often a request may travel on: a forwarded one never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Client,
    Peer,
}

/// The service of one member.
pub struct Service {
    consensus: Consensus,
    state: Arc<Store>,
    proposer: Proposer,
    claims: Claims,
    peers: Arc<Peers>,
    /// What this member tells the others of itself; it serves once it is ready.
    own: watch::Receiver<Facts>,
}

/// Why one try failed.
#[derive(Debug)]
enum Miss {
    /// Nothing was appended.
    NotHere,
    /// It may have taken effect; safe to ask again with the same ids.
    Unknown(String),
    /// An answer the caller must see.
    Final(Error),
}

impl Service {
    pub fn new(
        consensus: Consensus,
        state: Arc<Store>,
        peers: Arc<Peers>,
        own: watch::Receiver<Facts>,
        metrics: Arc<Metrics>,
    ) -> Service {
        let clock = Clock::start(consensus.clone(), state.clone(), metrics.clone());
        let proposer = Proposer::start(consensus.clone(), clock.clone(), metrics);
        let claims = Claims::start(consensus.clone(), state.clone(), proposer.clone());
        tokio::spawn(ticker::run(
            consensus.clone(),
            state.clone(),
            clock,
            proposer.clone(),
        ));
        Service {
            consensus,
            state,
            proposer,
            claims,
            peers,
            own,
        }
    }

    pub fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// Claims parked here.
    pub fn waiters(&self) -> u64 {
        self.claims.parked()
    }

    /// Serves a request that came from `origin`.
    pub async fn serve(
        &self,
        request: Request,
        origin: Origin,
        deadline: Instant,
    ) -> Result<Response, Error> {
        if !self.own.borrow().ready {
            return Err(unavailable(
                UnavailableCause::NotReady,
                "the member has not caught up yet",
            ));
        }
        let patience = deadline.min(Instant::now() + LEADER_PATIENCE);
        let mut role = self.consensus.watch_role();
        let mut doubt: Option<String> = None;
        loop {
            let seen = *role.borrow_and_update();
            let miss = match seen {
                Role::Leads { .. } => self.lead(&request, deadline).await,
                Role::Follows {
                    leader: Some(leader),
                } if origin == Origin::Client => self.forward(leader, &request, deadline).await,
                Role::Follows { .. } => Err(Miss::NotHere),
            };
            let miss = match miss {
                Ok(response) => return Ok(response),
                Err(miss) => miss,
            };
            match (miss, doubt.take()) {
                // What an earlier try did is still not known.
                (Miss::Final(error), Some(reason)) if !matches!(error, Error::Rejected(_)) => {
                    return Err(Error::OutcomeUnknown { reason });
                }
                (Miss::Final(error), _) => return Err(error),
                (Miss::Unknown(reason), _) => doubt = Some(reason),
                (Miss::NotHere, before) => doubt = before,
            }
            let limit = if doubt.is_some() { deadline } else { patience };
            if origin == Origin::Peer || Instant::now() + RETRY_PAUSE >= limit {
                return Err(match doubt {
                    Some(reason) => Error::OutcomeUnknown { reason },
                    None => unavailable(UnavailableCause::NoLeader, "no leader is known"),
                });
            }
            tokio::select! {
                // Once Raft has ended the role never changes, and says so at once.
                Ok(()) = role.changed() => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    async fn lead(&self, request: &Request, deadline: Instant) -> Result<Response, Miss> {
        match request {
            Request::Write(command) => self.write(command.clone(), deadline).await,
            Request::Claim { claim, wait_ms } => {
                self.claim(claim.clone(), *wait_ms, deadline).await
            }
            Request::Get {
                namespace,
                id,
                with_payload,
            } => {
                self.confirm(deadline).await?;
                let task = self.state.read(|state| {
                    let mut task = state.get(namespace, id)?;
                    if !with_payload {
                        task.result.clear();
                    }
                    Some(task)
                });
                let missing =
                    Miss::Final(Error::Rejected(Rejection::TaskNotFound { id: id.clone() }));
                let task = vec![task.ok_or(missing)?];
                let mut tasks = self.attach(task, *with_payload).await?;
                Ok(Response::Task(tasks.remove(0)))
            }
            Request::List(list) => {
                self.confirm(deadline).await?;
                Ok(Response::Page(self.page(list).await?))
            }
            Request::QueueStats { namespace, queue } => {
                self.confirm(deadline).await?;
                let now_ms = clock::unix_ms(SystemTime::now());
                let stats = self
                    .state
                    .read(|state| state.queue_stats(namespace, queue, now_ms));
                Ok(Response::QueueStats(stats.unwrap_or_default()))
            }
        }
    }

    async fn write(&self, command: Command, deadline: Instant) -> Result<Response, Miss> {
        if matches!(command, Command::Create(_)) && self.disk_high_water() {
            return Err(Miss::Final(Error::DiskHighWater));
        }
        let outcome = self.proposer.propose(command).map_err(Miss::Final)?;
        match tokio::time::timeout_at(deadline.into(), outcome).await {
            Ok(Ok(Ok(outcome))) => Ok(Response::Outcome(outcome)),
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(_)) => Err(Miss::Unknown("the member is stopping".into())),
            Err(_) => Err(Miss::Unknown("not committed in time".into())),
        }
    }

    /// Proposes a command of ours (never a client's) and waits for its outcome.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, Error> {
        match self.write(command, deadline).await {
            Ok(Response::Outcome(outcome)) => Ok(outcome),
            Ok(_) => Err(Error::OutcomeUnknown {
                reason: "answered with something else".into(),
            }),
            Err(Miss::Final(error)) => Err(error),
            Err(Miss::Unknown(reason)) => Err(Error::OutcomeUnknown { reason }),
            Err(Miss::NotHere) => Err(unavailable(
                UnavailableCause::NoLeader,
                "this member does not lead",
            )),
        }
    }

    async fn claim(&self, claim: Claim, wait_ms: u64, deadline: Instant) -> Result<Response, Miss> {
        let until = deadline.min(Instant::now() + Duration::from_millis(wait_ms));
        let answer = self.claims.enter(claim, until).map_err(Miss::Final)?;
        let granted = match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(granted)) => granted?,
            Ok(Err(_)) => return Err(Miss::Unknown("the member is stopping".into())),
            Err(_) => return Err(Miss::Unknown("not committed in time".into())),
        };
        if granted.is_empty() && !granted.committed {
            // Another leader may have tasks that this member does not know of.
            self.confirm(deadline).await?;
        }
        // Until they are read the tasks are given back if the caller goes.
        let payloads = self.payloads(granted.tasks().map(|claimed| &claimed.task));
        let payloads = payloads.await?;
        let claimed = granted.take().into_iter().zip(payloads);
        let claimed = claimed.map(|(claimed, payload)| ClaimedTask {
            token: claimed.token.0,
            lease_ms: claimed.lease_ms,
            task: TaskWithPayload {
                task: claimed.task,
                payload: payload.unwrap_or_default(),
            },
        });
        // A payload that is gone already was settled under another lease.
        let has_payload = |claimed: &ClaimedTask| {
            claimed.task.payload.len() as u64 == claimed.task.task.payload_bytes
        };
        Ok(Response::Claimed(claimed.filter(has_payload).collect()))
    }

    async fn confirm(&self, deadline: Instant) -> Result<(), Miss> {
        let confirmed = self.consensus.confirm_leadership();
        match tokio::time::timeout_at(deadline.into(), confirmed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Miss::NotHere),
        }
    }

    async fn page(&self, list: &List) -> Result<Page, Miss> {
        let (page, revision) = self.state.read(|state| {
            let page = state.list(
                &list.namespace,
                &list.queue,
                &list.states,
                list.after_seq,
                list.page_size as usize,
                list.with_payload,
            );
            (page, state.revision())
        });
        Ok(Page {
            tasks: self.attach(page.tasks, list.with_payload).await?,
            next_after_seq: page.next_after_seq,
            revision,
        })
    }

    async fn payloads<'a>(
        &self,
        tasks: impl ExactSizeIterator<Item = &'a TaskView>,
    ) -> Result<Vec<Option<Bytes>>, Miss> {
        self.state.payloads(tasks).await.map_err(|error| {
            tracing::warn!(%error, "payloads cannot be read");
            Miss::Final(unavailable(
                UnavailableCause::NotReady,
                "the member's disk is full and payloads on it cannot be read",
            ))
        })
    }

    /// Tasks with their payloads. One that was finished since it was looked at is looked at again: a task
    /// that is not finished never comes without its payload.
    async fn attach(
        &self,
        tasks: Vec<TaskView>,
        with_payload: bool,
    ) -> Result<Vec<TaskWithPayload>, Miss> {
        let payloads = match with_payload {
            true => self.payloads(tasks.iter()).await?,
            false => vec![None; tasks.len()],
        };
        let attach = |(mut task, payload): (TaskView, Option<Bytes>)| {
            if with_payload && payload.is_none() {
                let now = self
                    .state
                    .read(|state| state.get(&task.namespace, &task.id));
                task = now.filter(|now| now.seq == task.seq).unwrap_or(task);
            }
            TaskWithPayload {
                task,
                payload: payload.unwrap_or_default(),
            }
        };
        Ok(tasks.into_iter().zip(payloads).map(attach).collect())
    }

    async fn forward(
        &self,
        leader: u64,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, Miss> {
        let Some(name) = self.consensus.name_of(leader) else {
            return Err(Miss::NotHere);
        };
        let body = postcard::to_stdvec(request).expect("a request of plain values always encodes");
        let answer = match self
            .peers
            .forward(leader, &name, Bytes::from(body), deadline.into())
            .await
        {
            Ok(answer) => answer,
            Err(ForwardError::NotSent(_)) => return Err(Miss::NotHere),
            Err(ForwardError::Unknown(reason)) => return Err(Miss::Unknown(reason)),
        };
        match postcard::from_bytes::<Result<Response, Error>>(&answer) {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(Error::Unavailable { .. })) => Err(Miss::NotHere),
            Ok(Err(Error::OutcomeUnknown { reason })) => Err(Miss::Unknown(reason)),
            Ok(Err(error)) => Err(Miss::Final(error)),
            Err(error) => Err(Miss::Unknown(format!(
                "the leader's answer was not understood: {error}"
            ))),
        }
    }

    /// Answers a request that another member forwarded.
    pub async fn answer_peer(&self, body: Bytes, deadline: Instant) -> Bytes {
        let answer = match postcard::from_bytes::<Request>(&body) {
            Ok(request) => self.serve(request, Origin::Peer, deadline).await,
            Err(error) => {
                let reason = format!("the forwarded request was not understood: {error}");
                Err(unavailable(UnavailableCause::NotReady, &reason))
            }
        };
        let encode = |answer: &Result<Response, Error>| {
            postcard::to_stdvec(answer).expect("an answer of plain values always encodes")
        };
        let mut body = encode(&answer);
        if body.len() > FRAME_BYTES_MAX - ANSWER_FRAME_BYTES {
            // The connection would end with it, and all calls that share it.
            let bound = format!("an answer has {FRAME_BYTES_MAX} bytes at most");
            body = encode(&Err(Error::TooLarge { bound }));
        }
        Bytes::from(body)
    }

    /// Whether any member's disk is nearly full, as far as they have said lately.
    fn disk_high_water(&self) -> bool {
        let peers = self.peers.heard(FACTS_BELIEVED_FOR);
        self.own.borrow().disk_high_water || peers.values().any(|heard| heard.facts.disk_high_water)
    }
}

impl Door for Service {
    fn call(&self, request: Request, deadline: Instant) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(self.serve(request, Origin::Client, deadline))
    }
}

impl From<ProposeError> for Miss {
    fn from(error: ProposeError) -> Miss {
        match error {
            ProposeError::NotLeader => Miss::NotHere,
            ProposeError::Unknown(reason) => Miss::Unknown(reason),
        }
    }
}

fn unavailable(cause: UnavailableCause, reason: &str) -> Error {
    Error::Unavailable {
        cause,
        reason: reason.into(),
        retry_after_ms: NO_LEADER_RETRY_MS,
    }
}

#[cfg(test)]
mod tests;
