//! From the wire to the service's words. Every field of a request is checked here, once, for both
//! protocols; ids that the caller left to us are minted here, before anything is forwarded.

use taskstore_api::v1;
use uuid::Uuid;

use super::error::Problem;
use super::page_token;
use super::validate::{self, Field, invalid};
use crate::limits::*;
use crate::service::request::{List, Request};
use crate::task::command::{
    Claim, Command, Create, Extend, Lease, NewTask, Settle, SettleAction, TaskState,
};
use crate::task::hash;
use crate::task::id::{Name, Token};

type Checked<T> = Result<T, Problem>;

pub fn create(request: v1::CreateRequest, now_ms: u64) -> Checked<Request> {
    let task = request
        .task
        .ok_or_else(|| invalid(Field::named("task"), "must be given"))?;
    let (namespace, queue) = place(&request.namespace, &request.queue)?;
    let tasks = vec![new_task(Field::named(""), task, now_ms)?];
    Ok(Request::Write(Command::Create(Create {
        namespace,
        queue,
        tasks,
    })))
}

pub fn create_batch(request: v1::CreateBatchRequest, now_ms: u64) -> Checked<Request> {
    let (namespace, queue) = place(&request.namespace, &request.queue)?;
    let field = Field::named("tasks");
    validate::items(field, request.tasks.len(), BATCH_ITEMS_MAX)?;
    let payload_bytes = request.tasks.iter().map(|task| task.payload.len()).sum();
    let tasks = request
        .tasks
        .into_iter()
        .enumerate()
        .map(|(index, task)| new_task(Field::of_item("tasks", index, ""), task, now_ms))
        .collect::<Checked<_>>()?;
    validate::fits(field, payload_bytes, BATCH_BYTES_MAX)?;
    Ok(Request::Write(Command::Create(Create {
        namespace,
        queue,
        tasks,
    })))
}

fn place(namespace: &str, queue: &str) -> Checked<(Name, Name)> {
    Ok((
        validate::name(Field::named("namespace"), namespace)?,
        validate::name(Field::named("queue"), queue)?,
    ))
}

fn new_task(at: Field, task: v1::NewTask, now_ms: u64) -> Checked<NewTask> {
    let id = match task.id.as_str() {
        "" => mint(),
        id => id.to_owned(),
    };
    let payload = validate::bytes(at.beside("payload"), task.payload, PAYLOAD_BYTES_MAX)?;
    let attempts_max = validate::at_most(
        at.beside("attempts_max"),
        task.attempts_max.into(),
        ATTEMPTS_MAX.into(),
    )?;
    let not_before_max = now_ms.saturating_add(NOT_BEFORE_AHEAD_MS_MAX);
    Ok(NewTask {
        id: validate::task_id(at.beside("id"), &id)?,
        kind: validate::text(at.beside("kind"), task.kind, KIND_BYTES_MAX)?,
        content_type: validate::text(at.beside("content_type"), task.content_type, KIND_BYTES_MAX)?,
        priority: validate::at_most(
            at.beside("priority"),
            task.priority.into(),
            PRIORITY_MAX.into(),
        )? as u8,
        not_before_ms: validate::at_most(
            at.beside("not_before_ms"),
            task.not_before_ms,
            not_before_max,
        )?,
        lease_ms: or_default(
            validate::lease_ms(at.beside("lease_ms"), task.lease_ms)?,
            LEASE_MS_DEFAULT,
        ),
        attempts_max: or_default(attempts_max, ATTEMPTS_DEFAULT.into()) as u32,
        payload_hash: hash::of_payload(&payload),
        payload,
    })
}

fn mint() -> String {
    Uuid::now_v7().to_string()
}

fn or_default(value: u64, default: u64) -> u64 {
    if value == 0 { default } else { value }
}

pub fn claim(request: v1::ClaimRequest) -> Checked<Request> {
    let namespace = validate::name(Field::named("namespace"), &request.namespace)?;
    validate::items(
        Field::named("queues"),
        request.queues.len(),
        CLAIM_QUEUES_MAX,
    )?;
    let queues = request
        .queues
        .iter()
        .enumerate()
        .map(|(index, queue)| validate::name(Field::of_item("queues", index, ""), queue))
        .collect::<Checked<_>>()?;
    let tasks_max = validate::at_most(
        Field::named("tasks_max"),
        request.tasks_max.into(),
        BATCH_ITEMS_MAX as u64,
    )?;
    let bytes_max = validate::at_most(
        Field::named("bytes_max"),
        request.bytes_max,
        CLAIM_BYTES_MAX as u64,
    )?;
    let claim_id = validate::text(
        Field::named("claim_id"),
        request.claim_id,
        CLAIM_ID_BYTES_MAX,
    )?;
    let claim = Claim {
        namespace,
        queues,
        tasks_max: or_default(tasks_max, 1) as u32,
        bytes_max: or_default(bytes_max, CLAIM_BYTES_MAX as u64),
        lease_ms: validate::lease_ms(Field::named("lease_ms"), request.lease_ms)?,
        claim_id: if claim_id.is_empty() {
            mint()
        } else {
            claim_id
        },
        worker: validate::text(Field::named("worker"), request.worker, CLAIM_ID_BYTES_MAX)?,
    };
    let wait_ms = validate::at_most(Field::named("wait_ms"), request.wait_ms, CLAIM_WAIT_MS_MAX)?;
    Ok(Request::Claim { claim, wait_ms })
}

pub fn extend(request: v1::ExtendRequest) -> Checked<Request> {
    let lease = lease(Field::named(""), request.lease)?;
    let lease_ms = validate::lease_ms(Field::named("lease_ms"), request.lease_ms)?;
    Ok(Request::Write(Command::Extend(Extend { lease, lease_ms })))
}

/// One settle, as the single calls and the items of a batch carry it.
pub fn settle(at: Field, settle: v1::Settle) -> Checked<Settle> {
    use v1::settle::Action;
    match settle.action {
        Some(Action::Complete(request)) => complete(at, request),
        Some(Action::Fail(request)) => fail(at, request),
        Some(Action::Release(request)) => release(at, request),
        None => Err(invalid(
            at.beside("action"),
            "must be complete, fail or release",
        )),
    }
}

pub fn complete(at: Field, request: v1::CompleteRequest) -> Checked<Settle> {
    let lease = lease(at, request.lease)?;
    let result = validate::bytes(at.beside("result"), request.result, RESULT_BYTES_MAX)?;
    Ok(Settle {
        lease,
        action: SettleAction::Complete { result },
    })
}

pub fn fail(at: Field, request: v1::FailRequest) -> Checked<Settle> {
    let lease = lease(at, request.lease)?;
    validate::fits(at.beside("error"), request.error.len(), ERROR_BYTES_MAX)?;
    if let Some(retry_after_ms) = request.retry_after_ms {
        validate::at_most(
            at.beside("retry_after_ms"),
            retry_after_ms,
            NOT_BEFORE_AHEAD_MS_MAX,
        )?;
    }
    let action = SettleAction::Fail {
        error: request.error,
        retry_after_ms: request.retry_after_ms,
        discard: request.discard,
    };
    Ok(Settle { lease, action })
}

pub fn release(at: Field, request: v1::ReleaseRequest) -> Checked<Settle> {
    Ok(Settle {
        lease: lease(at, request.lease)?,
        action: SettleAction::Release,
    })
}

pub fn settle_batch(request: v1::SettleBatchRequest) -> Checked<Request> {
    let field = Field::named("settles");
    validate::items(field, request.settles.len(), BATCH_ITEMS_MAX)?;
    let mut result_bytes = 0;
    let mut settles = Vec::with_capacity(request.settles.len());
    for (index, item) in request.settles.into_iter().enumerate() {
        let checked = settle(Field::of_item("settles", index, ""), item)?;
        result_bytes += match &checked.action {
            SettleAction::Complete { result } => result.len(),
            SettleAction::Fail { error, .. } => error.len(),
            SettleAction::Release => 0,
        };
        settles.push(checked);
    }
    validate::fits(field, result_bytes, BATCH_BYTES_MAX)?;
    Ok(Request::Write(Command::Settle(settles)))
}

pub fn one_settle(settle: Settle) -> Request {
    Request::Write(Command::Settle(vec![settle]))
}

fn lease(at: Field, lease: Option<v1::Lease>) -> Checked<Lease> {
    let lease = lease.ok_or_else(|| invalid(at.beside("lease"), "must be given"))?;
    if lease.lease_token == 0 {
        return Err(invalid(
            at.beside("lease_token"),
            "must be the lease token of a claim",
        ));
    }
    Ok(Lease {
        namespace: validate::name(at.beside("namespace"), &lease.namespace)?,
        id: validate::task_id(at.beside("id"), &lease.id)?,
        token: Token(lease.lease_token),
    })
}

pub fn get(request: v1::GetRequest) -> Checked<Request> {
    Ok(Request::Get {
        namespace: validate::name(Field::named("namespace"), &request.namespace)?,
        id: validate::task_id(Field::named("id"), &request.id)?,
        with_payload: view(request.view)? == v1::View::Full,
    })
}

pub fn list(request: v1::ListRequest) -> Checked<List> {
    let (namespace, queue) = place(&request.namespace, &request.queue)?;
    if request.states.len() > v1::TaskState::Discarded as usize {
        return Err(invalid(
            Field::named("states"),
            "must name each state once at most",
        ));
    }
    let states = request
        .states
        .iter()
        .enumerate()
        .map(|(index, state)| task_state(Field::of_item("states", index, ""), *state))
        .collect::<Checked<Vec<_>>>()?;
    let page_size = validate::at_most(
        Field::named("page_size"),
        request.page_size.into(),
        PAGE_SIZE_MAX as u64,
    )?;
    let with_payload = view(request.view)? == v1::View::Full;
    let mut list = List {
        namespace,
        queue,
        states,
        page_size: or_default(page_size, PAGE_SIZE_DEFAULT as u64) as u32,
        after_seq: 0,
        with_payload,
    };
    if !request.page_token.is_empty() {
        list.after_seq = page_token::read(&request.page_token, &list)?;
    }
    Ok(list)
}

pub fn queue_stats(request: v1::QueueStatsRequest) -> Checked<Request> {
    let (namespace, queue) = place(&request.namespace, &request.queue)?;
    Ok(Request::QueueStats { namespace, queue })
}

pub fn view(view: i32) -> Checked<v1::View> {
    match v1::View::try_from(view) {
        Ok(v1::View::Unspecified) => Ok(v1::View::Basic),
        Ok(view) => Ok(view),
        Err(_) => Err(invalid(
            Field::named("view"),
            format!("must be BASIC or FULL, and is number {view}"),
        )),
    }
}

fn task_state(at: Field, state: i32) -> Checked<TaskState> {
    match v1::TaskState::try_from(state) {
        Ok(v1::TaskState::Scheduled) => Ok(TaskState::Scheduled),
        Ok(v1::TaskState::Available) => Ok(TaskState::Available),
        Ok(v1::TaskState::Running) => Ok(TaskState::Running),
        Ok(v1::TaskState::Retryable) => Ok(TaskState::Retryable),
        Ok(v1::TaskState::Completed) => Ok(TaskState::Completed),
        Ok(v1::TaskState::Discarded) => Ok(TaskState::Discarded),
        Ok(v1::TaskState::Unspecified) | Err(_) => Err(invalid(
            at,
            format!("must be a state of a task, and is number {state}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::codec::{entry_bytes, log_id};
    use crate::storage::types;
    use crate::task::command::Entry;

    /// Every text, number and payload of a batch as long as it may be: an entry still holds it.
    #[test]
    fn the_largest_batch_of_creates_fits_into_an_entry() {
        let kind = "k".repeat(KIND_BYTES_MAX);
        let payload = Bytes::from(vec![7; BATCH_BYTES_MAX / BATCH_ITEMS_MAX]);
        let tasks = (0..BATCH_ITEMS_MAX).map(|n| v1::NewTask {
            id: format!("{n:0width$}", width = TASK_ID_CHARS_MAX),
            kind: kind.clone(),
            content_type: kind.clone(),
            payload: payload.clone(),
            priority: PRIORITY_MAX.into(),
            not_before_ms: NOT_BEFORE_AHEAD_MS_MAX,
            lease_ms: LEASE_MS_MAX,
            attempts_max: ATTEMPTS_MAX,
        });
        let request = v1::CreateBatchRequest {
            namespace: "n".repeat(NAME_CHARS_MAX),
            queue: "q".repeat(NAME_CHARS_MAX),
            tasks: tasks.collect(),
        };
        fits(create_batch(request, 0).unwrap());
    }

    #[test]
    fn the_largest_batch_of_settles_fits_into_an_entry() {
        let settles = (0..BATCH_ITEMS_MAX).map(|n| v1::Settle {
            action: Some(v1::settle::Action::Fail(v1::FailRequest {
                lease: Some(v1::Lease {
                    namespace: "n".repeat(NAME_CHARS_MAX),
                    id: format!("{n:0width$}", width = TASK_ID_CHARS_MAX),
                    lease_token: u64::MAX,
                }),
                error: "e".repeat(BATCH_BYTES_MAX / BATCH_ITEMS_MAX),
                retry_after_ms: Some(NOT_BEFORE_AHEAD_MS_MAX),
                discard: true,
            })),
        });
        let settles = settles.collect();
        fits(settle_batch(v1::SettleBatchRequest { settles }).unwrap());
    }

    fn fits(request: Request) {
        let Request::Write(command) = request else {
            panic!("a batch is a write");
        };
        let command = command.encode();
        assert!(command.len() <= COMMAND_BYTES_MAX, "{}", command.len());
        let whole = Entry::assemble(u64::MAX, u64::MAX, &[command]);
        let entry = types::Entry {
            log_id: log_id(u64::MAX, u64::MAX),
            payload: openraft::EntryPayload::Normal(types::EntryBytes(whole.into())),
        };
        assert!(entry_bytes(&entry) <= ENTRY_BYTES_MAX);
    }

    #[test]
    fn texts_are_bounded_in_bytes() {
        let kind = "\u{1f980}".repeat(KIND_BYTES_MAX / 4 + 1);
        let request = v1::CreateRequest {
            namespace: "n".into(),
            queue: "q".into(),
            task: Some(v1::NewTask {
                kind,
                ..v1::NewTask::default()
            }),
        };
        assert!(create(request, 0).is_err());
    }
}
