//! What callers send.

use serde::Deserialize;
use taskstore_api::v1;

use super::{Base64, Object, Wide};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewTask {
    id: String,
    kind: String,
    payload: Base64,
    content_type: String,
    priority: u32,
    not_before_ms: u64,
    lease_ms: u64,
    attempts_max: u32,
}

impl From<NewTask> for v1::NewTask {
    fn from(task: NewTask) -> v1::NewTask {
        v1::NewTask {
            id: task.id,
            kind: task.kind,
            payload: task.payload.0,
            content_type: task.content_type,
            priority: task.priority,
            not_before_ms: task.not_before_ms,
            lease_ms: task.lease_ms,
            attempts_max: task.attempts_max,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTasks {
    pub tasks: Vec<Object<NewTask>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Claim {
    /// In the body only when the path names none.
    pub queues: Option<Vec<String>>,
    pub tasks_max: u32,
    pub bytes_max: u64,
    pub wait_ms: u64,
    pub lease_ms: u64,
    pub claim_id: String,
    pub worker: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    pub lease_token: Wide,
    #[serde(default)]
    pub lease_ms: u64,
}

/// In the three settles, `id` is in the body only when the path names none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    pub id: Option<String>,
    pub lease_token: Wide,
    #[serde(default)]
    pub result: Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    pub id: Option<String>,
    pub lease_token: Wide,
    #[serde(default)]
    pub error: String,
    pub retry_after_ms: Option<u64>,
    #[serde(default)]
    pub discard: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub id: Option<String>,
    pub lease_token: Wide,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Settle {
    Complete(Object<Complete>),
    Fail(Object<Fail>),
    Release(Object<Release>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settles {
    pub settles: Vec<Settle>,
}
