//! What the log carries and what apply answers.
//!
//! An `Entry` holds every command that arrived while the last flush was in flight, with the leader's two
//! clocks. `apply` answers one `Outcome` a command, in order. Both are persisted or sent as postcard,
//! which is positional: variants and fields are only ever appended (golden bytes in the tests).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::id::{Name, TaskId, Token};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's monotonic time in office, summed over all leaders; leases run on it.
    pub lease_time_ms: u64,
    /// The leader's clock; `not_before` and retention run on it. Apply takes max(previous, this).
    pub wall_time_ms: u64,
    pub commands: Vec<Command>,
}

impl Entry {
    /// The bytes of an entry of commands that are encoded already, each on its own.
    pub fn assemble(lease_time_ms: u64, wall_time_ms: u64, commands: &[Vec<u8>]) -> Vec<u8> {
        // Three numbers of at most ten bytes stand before the commands.
        let bytes = 30 + commands.iter().map(Vec::len).sum::<usize>();
        let head = (lease_time_ms, wall_time_ms, commands.len());
        let mut entry =
            postcard::to_extend(&head, Vec::with_capacity(bytes)).expect("numbers always encode");
        commands
            .iter()
            .for_each(|command| entry.extend_from_slice(command));
        entry
    }
}

impl Entry {
    /// Lease time and wall time of an encoded entry; its commands are not looked at.
    pub fn clocks(encoded: &[u8]) -> Result<(u64, u64), postcard::Error> {
        postcard::take_from_bytes(encoded).map(|(clocks, _)| clocks)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Moves what is due: expired leases, `not_before`, back-offs, old finished rows.
    Tick,
    Create(Create),
    Claim(Claim),
    Settle(Vec<Settle>),
    Extend(Extend),
    ReserveMembers(ReserveMembers),
    SetLevel(u32),
}

impl Command {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a command of plain values always encodes")
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    pub namespace: Name,
    pub queue: Name,
    pub tasks: Vec<NewTask>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    pub id: TaskId,
    pub kind: String,
    pub content_type: String,
    pub priority: u8,
    /// 0: now.
    pub not_before_ms: u64,
    pub lease_ms: u64,
    pub attempts_max: u32,
    /// First 128 bits of BLAKE3 over the payload, made by the proposer: apply never reads a payload.
    pub payload_hash: [u8; 16],
    pub payload: Bytes,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub namespace: Name,
    /// Tried in order.
    pub queues: Vec<Name>,
    pub tasks_max: u32,
    /// One task is given even if it is larger.
    pub bytes_max: u64,
    /// 0: each task's own.
    pub lease_ms: u64,
    /// The retry of a claim gets the same tasks while they run.
    pub claim_id: String,
    pub worker: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub namespace: Name,
    pub id: TaskId,
    pub token: Token,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settle {
    pub lease: Lease,
    pub action: SettleAction,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SettleAction {
    Complete {
        result: Bytes,
    },
    Fail {
        error: String,
        retry_after_ms: Option<u64>,
        discard: bool,
    },
    /// Back to available: no attempt, no abandonment.
    Release,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extend {
    pub lease: Lease,
    /// 0: the task's own.
    pub lease_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReserveMembers {
    /// The same operation gets the same numbers.
    pub operation_id: String,
    pub count: u32,
    /// Numbers given are above this one: the highest in any membership the leader has applied.
    pub above: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    Created(Vec<Result<Created, Rejection>>),
    Claimed(Vec<Claimed>),
    Settled(Vec<Result<Settled, Rejection>>),
    /// The lease now held, in milliseconds from the extend.
    Extended(Result<u64, Rejection>),
    Reserved(Result<Vec<u64>, Rejection>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub id: TaskId,
    pub revision: u64,
    /// The same task was there already: this was a retry.
    pub existed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    pub task: TaskView,
    pub token: Token,
    pub lease_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub state: TaskState,
    pub revision: u64,
}

/// Where a task stands.
///
/// ```text
/// create ─▶ scheduled ─due─▶ available ─claim─▶ running ─complete─▶ completed
///                               ▲  ▲   ▲          │ │ │
///                               │  │   └─release──┘ │ └─fail, attempts left─▶ retryable ─due─┐
///                               │  └──lease ran out─┤                                        │
///                               │                   └─fail for good, abandoned─▶ discarded   │
///                               └────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    Scheduled,
    Available,
    Running,
    Retryable,
    Completed,
    Discarded,
}

/// A task as callers see it, without its payload. `seq` is its key in the payload store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    pub seq: u64,
    pub namespace: Name,
    pub queue: Name,
    pub id: TaskId,
    pub kind: String,
    pub content_type: String,
    pub priority: u8,
    pub not_before_ms: u64,
    pub lease_ms: u64,
    pub attempts_max: u32,
    pub state: TaskState,
    pub attempts: u32,
    pub abandonments: u32,
    pub created_ms: u64,
    pub finished_ms: u64,
    /// The current lease's token, or the last one's; 0 before the first claim.
    pub token: u64,
    pub result: Bytes,
    pub error: String,
    pub payload_bytes: u64,
    pub payload_hash: [u8; 16],
    pub revision: u64,
}

/// Why apply said no. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// The id is taken by another task.
    Duplicate {
        id: TaskId,
    },
    TaskNotFound {
        id: TaskId,
    },
    /// Another lease holds the task, or it is settled otherwise.
    LeaseLost {
        id: TaskId,
    },
    /// A UUIDv7 older than its finished row would be kept.
    IdTooOld {
        id: TaskId,
    },
    /// The store or queue is at a bound; `bound` names it with its value.
    Full {
        bound: String,
    },
    /// The command needs a higher feature level than the cluster runs at.
    FeatureNotActive {
        level: u32,
    },
}

/// Counters of one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    pub scheduled: u64,
    pub available: u64,
    pub running: u64,
    pub retryable: u64,
    pub completed: u64,
    pub discarded: u64,
    pub created_total: u64,
    pub completed_total: u64,
    pub failed_total: u64,
    pub abandoned_total: u64,
    pub discarded_total: u64,
    pub payload_bytes: u64,
    /// 0 when nothing is available.
    pub oldest_available_ms: u64,
}
