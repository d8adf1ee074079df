//! Clients of all members: they create, claim and complete until they are stopped, and note each answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use taskstore::service::request::{Error, Request, Response, TaskWithPayload};
use taskstore::service::{Origin, Service};
use taskstore::task::command::{
    Claim, Command, Create, Lease, NewTask, Outcome, Settle, SettleAction,
};
use taskstore::task::id::{TaskId, Token};
use tokio::task::JoinHandle;

use taskstore::task::hash::of_payload;

use crate::ledger::{Ledger, name, namespace, payload_of};

/// Longer than any run: no lease ends by itself.
const LEASE_MS: u64 = 3_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients at work; they end when this is dropped.
pub struct Load(Vec<JoinHandle<()>>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// A task with its payload, as a client reads it.
pub async fn get(service: &Service, id: &str) -> Result<TaskWithPayload, Error> {
    let get = Request::Get {
        namespace: namespace(),
        id: TaskId::parse(id).unwrap(),
        with_payload: true,
    };
    let deadline = Instant::now() + PATIENCE;
    match service.serve(get, Origin::Client, deadline).await? {
        Response::Task(task) => Ok(task),
        other => panic!("{other:?}"),
    }
}

impl Load {
    /// Four clients a member. `numbers` gives every task and claim a name of its own.
    pub fn start<'a>(
        services: impl Iterator<Item = &'a Arc<Service>>,
        ledger: &Arc<Mutex<Ledger>>,
        numbers: &Arc<AtomicU64>,
    ) -> Load {
        let clients = services.flat_map(|service| std::iter::repeat_n(service.clone(), 4));
        let client = |service| Client {
            service,
            ledger: ledger.clone(),
            numbers: numbers.clone(),
        };
        Load(
            clients
                .map(|service| tokio::spawn(client(service).run()))
                .collect(),
        )
    }
}

struct Client {
    service: Arc<Service>,
    ledger: Arc<Mutex<Ledger>>,
    numbers: Arc<AtomicU64>,
}

impl Client {
    async fn run(self) {
        loop {
            let ids: Vec<String> = (0..3).map(|_| format!("t{}", self.number())).collect();
            self.create(&ids).await;
            self.work().await;
        }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    async fn ask(&self, request: Request) -> Option<Response> {
        let deadline = Instant::now() + PATIENCE;
        let answer = self.service.serve(request, Origin::Client, deadline).await;
        if answer.is_err() {
            // There is no leader, or no power.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        answer.ok()
    }

    async fn create(&self, ids: &[String]) {
        let tasks = ids.iter().map(|id| NewTask {
            id: TaskId::parse(id).unwrap(),
            kind: String::new(),
            content_type: String::new(),
            priority: 0,
            not_before_ms: 0,
            lease_ms: LEASE_MS,
            attempts_max: 3,
            payload_hash: of_payload(&payload_of(id)),
            payload: payload_of(id),
        });
        let create = Create {
            namespace: namespace(),
            queue: name("q"),
            tasks: tasks.collect(),
        };
        let answer = self.ask(Request::Write(Command::Create(create))).await;
        if let Some(Response::Outcome(Outcome::Created(created))) = answer {
            let mut ledger = self.ledger.lock().unwrap();
            for (id, created) in ids.iter().zip(created) {
                match created {
                    Ok(_) => ledger.created(id),
                    Err(why) => ledger.wrong.push(format!("{id} was refused: {why:?}")),
                }
            }
        }
    }

    /// Takes two tasks and completes one of them.
    async fn work(&self) {
        let claim = Claim {
            namespace: namespace(),
            queues: vec![name("q")],
            tasks_max: 2,
            bytes_max: 1 << 20,
            lease_ms: 0,
            claim_id: format!("c{}", self.number()),
            worker: String::new(),
        };
        let answer = self.ask(Request::Claim { claim, wait_ms: 0 }).await;
        let Some(Response::Claimed(claimed)) = answer else {
            return;
        };
        {
            let mut ledger = self.ledger.lock().unwrap();
            for one in &claimed {
                ledger.claimed(&one.task.task, &one.task.payload, one.token);
            }
        }
        let Some(one) = claimed.into_iter().next() else {
            return;
        };
        let id = one.task.task.id;
        self.ledger.lock().unwrap().ending(&id.to_string());
        let settle = Settle {
            lease: Lease {
                namespace: namespace(),
                id: id.clone(),
                token: Token(one.token),
            },
            action: SettleAction::Complete {
                result: Bytes::new(),
            },
        };
        let answer = self
            .ask(Request::Write(Command::Settle(vec![settle])))
            .await;
        if let Some(Response::Outcome(Outcome::Settled(settled))) = answer {
            let mut ledger = self.ledger.lock().unwrap();
            match &settled[..] {
                [Ok(_)] => ledger.ended(&id.to_string()),
                other => ledger
                    .wrong
                    .push(format!("{id:?} was not ended: {other:?}")),
            }
        }
    }
}
