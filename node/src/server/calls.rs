//! The eleven operations over the wire's words: check, pass through the door, answer, count. Both
//! protocols come through here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskstore_api::v1;

use super::error::Problem;
use super::validate::Field;
use super::{answer, convert};
use crate::limits::CALL_MS_MAX;
use crate::metrics::{Metrics, Operation};
use crate::service::Door;
use crate::service::clock::now_ms;
use crate::service::request::{Request, Response};
use crate::task::command::Settle;

/// A claim that waits is answered this much before its caller gives up.
const ANSWER_MS: u64 = 200;

#[derive(Clone)]
pub struct Calls {
    door: Arc<dyn Door>,
    metrics: Arc<Metrics>,
}

/// When a call began and how long its caller will wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    began: Instant,
    asked: Option<Duration>,
}

impl Patience {
    pub fn new(asked: Option<Duration>) -> Patience {
        Patience {
            began: Instant::now(),
            asked,
        }
    }

    fn deadline(&self, wait_ms: u64) -> Instant {
        let most = Duration::from_millis(wait_ms + CALL_MS_MAX);
        self.began + self.asked.map_or(most, |asked| asked.min(most))
    }

    /// A wait that leaves time to answer: tasks given to a caller that is gone are released, but late.
    fn wait_ms(&self, wait_ms: u64) -> u64 {
        let Some(asked) = self.asked else {
            return wait_ms;
        };
        wait_ms.min((asked.as_millis() as u64).saturating_sub(ANSWER_MS))
    }
}

type Answer<T> = Result<T, Problem>;

impl Calls {
    pub fn new(door: Arc<dyn Door>, metrics: Arc<Metrics>) -> Calls {
        Calls { door, metrics }
    }

    async fn run<T>(
        &self,
        operation: Operation,
        patience: Patience,
        request: Answer<Request>,
        answer: impl FnOnce(Response) -> Answer<T>,
    ) -> Answer<T> {
        let answered = match request {
            Ok(request) => self.pass(patience, request).await.and_then(answer),
            Err(problem) => Err(problem),
        };
        let code = answered
            .as_ref()
            .map_or_else(|problem| problem.case.reason(), |_| "OK");
        self.metrics
            .answered(operation, code, patience.began.elapsed());
        answered
    }

    async fn pass(&self, patience: Patience, request: Request) -> Answer<Response> {
        let (request, wait_ms) = match request {
            Request::Claim { claim, wait_ms } => {
                let wait_ms = patience.wait_ms(wait_ms);
                (Request::Claim { claim, wait_ms }, wait_ms)
            }
            other => (other, 0),
        };
        Ok(self.door.call(request, patience.deadline(wait_ms)).await?)
    }

    pub async fn create(
        &self,
        request: v1::CreateRequest,
        patience: Patience,
    ) -> Answer<v1::CreateResponse> {
        let request = convert::create(request, now_ms());
        self.run(Operation::Create, patience, request, answer::create)
            .await
    }

    pub async fn create_batch(
        &self,
        request: v1::CreateBatchRequest,
        patience: Patience,
    ) -> Answer<v1::CreateBatchResponse> {
        let request = convert::create_batch(request, now_ms());
        self.run(
            Operation::CreateBatch,
            patience,
            request,
            answer::create_batch,
        )
        .await
    }

    pub async fn claim(
        &self,
        request: v1::ClaimRequest,
        patience: Patience,
    ) -> Answer<v1::ClaimResponse> {
        self.run(
            Operation::Claim,
            patience,
            convert::claim(request),
            answer::claim,
        )
        .await
    }

    pub async fn extend(
        &self,
        request: v1::ExtendRequest,
        patience: Patience,
    ) -> Answer<v1::ExtendResponse> {
        self.run(
            Operation::Extend,
            patience,
            convert::extend(request),
            answer::extend,
        )
        .await
    }

    pub async fn complete(
        &self,
        request: v1::CompleteRequest,
        patience: Patience,
    ) -> Answer<v1::SettleResponse> {
        self.settle(
            Operation::Complete,
            patience,
            convert::complete(Field::named(""), request),
        )
        .await
    }

    pub async fn fail(
        &self,
        request: v1::FailRequest,
        patience: Patience,
    ) -> Answer<v1::SettleResponse> {
        self.settle(
            Operation::Fail,
            patience,
            convert::fail(Field::named(""), request),
        )
        .await
    }

    pub async fn release(
        &self,
        request: v1::ReleaseRequest,
        patience: Patience,
    ) -> Answer<v1::SettleResponse> {
        self.settle(
            Operation::Release,
            patience,
            convert::release(Field::named(""), request),
        )
        .await
    }

    async fn settle(
        &self,
        operation: Operation,
        patience: Patience,
        settle: Answer<Settle>,
    ) -> Answer<v1::SettleResponse> {
        self.run(
            operation,
            patience,
            settle.map(convert::one_settle),
            answer::settle,
        )
        .await
    }

    pub async fn settle_batch(
        &self,
        request: v1::SettleBatchRequest,
        patience: Patience,
    ) -> Answer<v1::SettleBatchResponse> {
        self.run(
            Operation::SettleBatch,
            patience,
            convert::settle_batch(request),
            answer::settle_batch,
        )
        .await
    }

    pub async fn get(&self, request: v1::GetRequest, patience: Patience) -> Answer<v1::Task> {
        let view = convert::view(request.view).unwrap_or(v1::View::Basic);
        self.run(
            Operation::Get,
            patience,
            convert::get(request),
            |response| answer::get(response, view),
        )
        .await
    }

    pub async fn list(
        &self,
        request: v1::ListRequest,
        patience: Patience,
    ) -> Answer<v1::ListResponse> {
        let list = convert::list(request);
        let request = list.clone().map(Request::List);
        self.run(Operation::List, patience, request, |response| {
            answer::list(response, &list?)
        })
        .await
    }

    pub async fn queue_stats(
        &self,
        request: v1::QueueStatsRequest,
        patience: Patience,
    ) -> Answer<v1::QueueStatsResponse> {
        self.run(
            Operation::QueueStats,
            patience,
            convert::queue_stats(request),
            answer::queue_stats,
        )
        .await
    }
}
