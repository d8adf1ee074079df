//! What callers get.

use serde::Serialize;
use taskstore_api::v1;

use super::{Base64, Wide, state_name};

#[derive(Debug, Serialize)]
pub struct Created {
    id: String,
    revision: Wide,
    existed: bool,
}

impl From<v1::CreateResponse> for Created {
    fn from(created: v1::CreateResponse) -> Created {
        Created {
            id: created.id,
            revision: Wide(created.revision),
            existed: created.existed,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Settled {
    state: &'static str,
    revision: Wide,
}

impl From<v1::SettleResponse> for Settled {
    fn from(settled: v1::SettleResponse) -> Settled {
        Settled {
            state: state_name(settled.state),
            revision: Wide(settled.revision),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct ItemError {
    reason: String,
    message: String,
}

/// Items succeed or fail one by one: `{"created": …}` or `{"error": …}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    Created(Created),
    Settled(Settled),
    Error(ItemError),
}

impl From<v1::ItemError> for Item {
    fn from(error: v1::ItemError) -> Item {
        Item::Error(ItemError {
            reason: error.reason,
            message: error.message,
        })
    }
}

#[derive(Debug, Serialize)]
pub struct Items {
    results: Vec<Item>,
}

impl From<v1::CreateBatchResponse> for Items {
    fn from(response: v1::CreateBatchResponse) -> Items {
        use v1::create_result::Result::{Created, Error};
        let item = |result| match result {
            Created(created) => Item::Created(created.into()),
            Error(error) => error.into(),
        };
        Items {
            results: response
                .results
                .into_iter()
                .filter_map(|result| result.result.map(item))
                .collect(),
        }
    }
}

impl From<v1::SettleBatchResponse> for Items {
    fn from(response: v1::SettleBatchResponse) -> Items {
        use v1::settle_result::Result::{Error, Settled};
        let item = |result| match result {
            Settled(settled) => Item::Settled(settled.into()),
            Error(error) => error.into(),
        };
        Items {
            results: response
                .results
                .into_iter()
                .filter_map(|result| result.result.map(item))
                .collect(),
        }
    }
}

/// A task. `payload` and `result` are there in the FULL view only.
#[derive(Debug, Serialize)]
pub struct Task {
    namespace: String,
    queue: String,
    id: String,
    kind: String,
    content_type: String,
    priority: u32,
    not_before_ms: u64,
    lease_ms: u64,
    attempts_max: u32,
    state: &'static str,
    attempts: u32,
    abandonments: u32,
    created_ms: u64,
    finished_ms: u64,
    lease_token: Wide,
    error: String,
    payload_bytes: u64,
    revision: Wide,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Base64>,
}

impl Task {
    pub fn new(task: v1::Task, view: v1::View) -> Task {
        let full = view == v1::View::Full;
        Task {
            namespace: task.namespace,
            queue: task.queue,
            id: task.id,
            kind: task.kind,
            content_type: task.content_type,
            priority: task.priority,
            not_before_ms: task.not_before_ms,
            lease_ms: task.lease_ms,
            attempts_max: task.attempts_max,
            state: state_name(task.state),
            attempts: task.attempts,
            abandonments: task.abandonments,
            created_ms: task.created_ms,
            finished_ms: task.finished_ms,
            lease_token: Wide(task.lease_token),
            error: task.error,
            payload_bytes: task.payload_bytes,
            revision: Wide(task.revision),
            payload: full.then_some(Base64(task.payload)),
            result: full.then_some(Base64(task.result)),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Claimed {
    tasks: Vec<ClaimedTask>,
}

#[derive(Debug, Serialize)]
struct ClaimedTask {
    task: Task,
    lease_token: Wide,
    lease_ms: u64,
}

impl From<v1::ClaimResponse> for Claimed {
    fn from(response: v1::ClaimResponse) -> Claimed {
        let claimed = |claimed: v1::ClaimedTask| ClaimedTask {
            task: Task::new(claimed.task.unwrap_or_default(), v1::View::Full),
            lease_token: Wide(claimed.lease_token),
            lease_ms: claimed.lease_ms,
        };
        Claimed {
            tasks: response.tasks.into_iter().map(claimed).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Extended {
    pub lease_ms: u64,
}

#[derive(Debug, Serialize)]
pub struct Page {
    tasks: Vec<Task>,
    next_page_token: String,
    revision: Wide,
}

impl Page {
    pub fn new(response: v1::ListResponse, view: v1::View) -> Page {
        Page {
            tasks: response
                .tasks
                .into_iter()
                .map(|task| Task::new(task, view))
                .collect(),
            next_page_token: response.next_page_token,
            revision: Wide(response.revision),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct QueueStats {
    scheduled: u64,
    available: u64,
    running: u64,
    retryable: u64,
    completed: u64,
    discarded: u64,
    created_total: u64,
    completed_total: u64,
    failed_total: u64,
    abandoned_total: u64,
    discarded_total: u64,
    payload_bytes: u64,
    oldest_available_ms: u64,
}

impl From<v1::QueueStatsResponse> for QueueStats {
    fn from(stats: v1::QueueStatsResponse) -> QueueStats {
        QueueStats {
            scheduled: stats.scheduled,
            available: stats.available,
            running: stats.running,
            retryable: stats.retryable,
            completed: stats.completed,
            discarded: stats.discarded,
            created_total: stats.created_total,
            completed_total: stats.completed_total,
            failed_total: stats.failed_total,
            abandoned_total: stats.abandoned_total,
            discarded_total: stats.discarded_total,
            payload_bytes: stats.payload_bytes,
            oldest_available_ms: stats.oldest_available_ms,
        }
    }
}
