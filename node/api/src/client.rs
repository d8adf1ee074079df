//! The client of producers and workers: several endpoints, and retries that never change what happens.
//!
//! Every call takes effect once (a create by its id, a claim by its claim id, a settle by its lease
//! token), and ids that the caller leaves empty are minted here, before the first attempt. So an attempt
//! whose outcome is unknown is simply sent again, elsewhere if need be, until the deadline. A client that has
//! heard of a later incarnation of the store is served by no member of an earlier one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::INCARNATION_HEADER;
use crate::endpoints::{Endpoints, channels};
use crate::error::{CallError, Verdict};
use crate::tls::ConnectError;
use crate::v1;
use crate::v1::tasks_client::TasksClient;

/// How long a call is tried when nothing else is said, besides a claim's wait.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// One attempt; a member that hangs is left for another after it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// A page of full tasks, or a claim with its envelope.
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Clone)]
pub struct TaskStoreClient {
    members: Arc<Members>,
    deadline: Duration,
}

#[derive(Debug)]
struct Members {
    clients: Vec<TasksClient<Channel>>,
    current: AtomicUsize,
    /// The latest that any member has answered with; 0 before the first answer.
    incarnation: AtomicU16,
}

impl TaskStoreClient {
    /// Dials with the first call. Fails only for settings that can never work.
    pub fn connect(endpoints: &Endpoints) -> Result<TaskStoreClient, ConnectError> {
        let client =
            |channel| TasksClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let clients = channels(endpoints)?.into_iter().map(client).collect();
        let members = Members {
            clients,
            current: AtomicUsize::new(0),
            incarnation: AtomicU16::new(0),
        };
        Ok(TaskStoreClient {
            members: Arc::new(members),
            deadline: CALL_DEADLINE,
        })
    }

    /// How long calls are tried, besides a claim's wait.
    pub fn with_deadline(self, deadline: Duration) -> TaskStoreClient {
        TaskStoreClient { deadline, ..self }
    }

    pub async fn create(
        &self,
        mut request: v1::CreateRequest,
    ) -> Result<v1::CreateResponse, CallError> {
        request.task.iter_mut().for_each(mint_id);
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.create(request).await
        })
        .await
    }

    pub async fn create_batch(
        &self,
        mut request: v1::CreateBatchRequest,
    ) -> Result<v1::CreateBatchResponse, CallError> {
        request.tasks.iter_mut().for_each(mint_id);
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.create_batch(request).await
        })
        .await
    }

    pub async fn claim(
        &self,
        mut request: v1::ClaimRequest,
    ) -> Result<v1::ClaimResponse, CallError> {
        if request.claim_id.is_empty() {
            request.claim_id = uuid::Uuid::now_v7().to_string();
        }
        let wait = Duration::from_millis(request.wait_ms);
        self.call(request, wait, |mut to, request| async move {
            to.claim(request).await
        })
        .await
    }

    pub async fn extend(
        &self,
        request: v1::ExtendRequest,
    ) -> Result<v1::ExtendResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.extend(request).await
        })
        .await
    }

    pub async fn complete(
        &self,
        request: v1::CompleteRequest,
    ) -> Result<v1::SettleResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.complete(request).await
        })
        .await
    }

    pub async fn fail(&self, request: v1::FailRequest) -> Result<v1::SettleResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.fail(request).await
        })
        .await
    }

    pub async fn release(
        &self,
        request: v1::ReleaseRequest,
    ) -> Result<v1::SettleResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.release(request).await
        })
        .await
    }

    pub async fn settle_batch(
        &self,
        request: v1::SettleBatchRequest,
    ) -> Result<v1::SettleBatchResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.settle_batch(request).await
        })
        .await
    }

    pub async fn get(&self, request: v1::GetRequest) -> Result<v1::Task, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.get(request).await
        })
        .await
    }

    pub async fn list(&self, request: v1::ListRequest) -> Result<v1::ListResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.list(request).await
        })
        .await
    }

    pub async fn queue_stats(
        &self,
        request: v1::QueueStatsRequest,
    ) -> Result<v1::QueueStatsResponse, CallError> {
        self.call(request, Duration::ZERO, |mut to, request| async move {
            to.queue_stats(request).await
        })
        .await
    }

    async fn call<Q: Clone, A, F>(
        &self,
        message: Q,
        wait: Duration,
        send: impl Fn(TasksClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, CallError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.deadline + wait;
        let mut back_off = BACK_OFF_MIN;
        loop {
            let member = self.members.current.load(Ordering::Relaxed) % self.members.clients.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let mut request = Request::new(message.clone());
            self.members.tell_incarnation(request.metadata_mut());
            request.set_timeout(left.min(ATTEMPT_TIMEOUT + wait));
            let answer = send(self.members.clients[member].clone(), request);
            // tonic's own clock starts only once the connection stands.
            let error = match tokio::time::timeout(left.min(ATTEMPT_TIMEOUT + wait), answer).await {
                Ok(Ok(response)) => {
                    self.members.hear_incarnation(response.metadata());
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => {
                    self.members.hear_incarnation(status.metadata());
                    CallError::from(status)
                }
                Err(_) => CallError::silence(),
            };
            match error.verdict() {
                Verdict::Final => return Err(error),
                Verdict::Retry => {}
                Verdict::RetryElsewhere => self.members.leave(member),
            }
            let jittered = back_off.mul_f64(0.5 + fastrand::f64());
            let pause = error
                .retry_after
                .unwrap_or_default()
                .min(BACK_OFF_MAX)
                .max(jittered);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }
}

impl Members {
    /// A member of an earlier one than this refuses the call: it may not know that it was given up.
    fn tell_incarnation(&self, metadata: &mut MetadataMap) {
        let known = self.incarnation.load(Ordering::Relaxed);
        if known > 0 {
            metadata.insert(INCARNATION_HEADER, known.into());
        }
    }

    fn hear_incarnation(&self, metadata: &MetadataMap) {
        let said = metadata.get(INCARNATION_HEADER);
        let said = said.and_then(|said| said.to_str().ok()?.parse().ok());
        self.incarnation
            .fetch_max(said.unwrap_or(0), Ordering::Relaxed);
    }

    /// Goes on to the next member, unless another call has left this one already.
    fn leave(&self, member: usize) {
        let next = (member + 1) % self.clients.len();
        let _ = self
            .current
            .compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn mint_id(task: &mut v1::NewTask) {
    if task.id.is_empty() {
        task.id = uuid::Uuid::now_v7().to_string();
    }
}
