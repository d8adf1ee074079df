//! Claims that wait. An idle long poll writes nothing: a waiter is parked in memory until its queue has
//! something available, and only then is its claim proposed.
//!
//! ```text
//! claim ─▶ parked ──available──▶ in flight ──tasks──▶ answered
//!            ▲                      │ empty, time left      │ caller gone
//!            └──────────────────────┘                       └─▶ release proposed
//! ```
//!
//! One task owns all waiters. A queue's available tasks are promised to claims in flight, so that a
//! thousand waiters for one new task cost one entry. Leaving office answers every waiter at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::proposer::Proposer;
use crate::limits::WAITERS_MAX;
use crate::raft::consensus::{Consensus, ProposeError, Role};
use crate::storage::store::Store;
use crate::task::command::{Claim, Claimed, Command, Lease, Outcome, Settle, SettleAction};
use crate::task::id::Name;

/// How often waiters whose callers are gone are swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

type Answer = Result<Vec<Claimed>, ProposeError>;
type QueueKey = (Name, Name);

/// A claim on its way in.
pub struct Waiter {
    pub claim: Claim,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Answer>,
}

/// The door to the waiting room.
#[derive(Clone)]
pub struct Claims {
    door: mpsc::Sender<Waiter>,
    parked: Arc<AtomicU64>,
}

impl Claims {
    pub fn start(consensus: Consensus, state: Arc<Store>, proposer: Proposer) -> Claims {
        let (door, arriving) = mpsc::channel(WAITERS_MAX);
        let room = Room {
            consensus,
            state,
            proposer,
            parked: BTreeMap::new(),
            by_queue: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            promised: HashMap::new(),
            next_id: 0,
            parked_count: Arc::default(),
        };
        let parked = room.parked_count.clone();
        tokio::spawn(room.run(arriving));
        Claims { door, parked }
    }

    /// Claims parked now.
    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    /// Parks a claim; false when the room is full.
    pub fn enter(&self, waiter: Waiter) -> bool {
        self.door.try_send(waiter).is_ok()
    }
}

struct InFlight {
    id: u64,
    waiter: Waiter,
    promise: Option<(QueueKey, u64)>,
    outcome: Result<Outcome, ProposeError>,
}

struct Room {
    consensus: Consensus,
    state: Arc<Store>,
    proposer: Proposer,
    /// Waiters by order of arrival.
    parked: BTreeMap<u64, Waiter>,
    by_queue: BTreeMap<QueueKey, BTreeSet<u64>>,
    by_deadline: BTreeSet<(Instant, u64)>,
    /// Available tasks that claims in flight will take.
    promised: HashMap<QueueKey, u64>,
    next_id: u64,
    parked_count: Arc<AtomicU64>,
}

impl Room {
    async fn run(mut self, mut arriving: mpsc::Receiver<Waiter>) {
        let mut role = self.consensus.watch_role();
        let state = self.state.clone();
        let mut in_flight: FuturesUnordered<Flight> = FuturesUnordered::new();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            let next_deadline = self.by_deadline.first().map(|(at, _)| *at);
            tokio::select! {
                waiter = arriving.recv() => {
                    let Some(waiter) = waiter else { return };
                    self.admit(waiter, &mut in_flight);
                    while let Ok(waiter) = arriving.try_recv() {
                        self.admit(waiter, &mut in_flight);
                    }
                }
                Some(done) = in_flight.next(), if !in_flight.is_empty() => {
                    let queue = done.promise.as_ref().map(|(queue, _)| queue.clone());
                    self.settle_flight(done);
                    self.dispatch(queue, &mut in_flight);
                }
                gained = state.next_gained() => self.dispatch(gained, &mut in_flight),
                changed = role.changed() => {
                    if changed.is_err() { return }
                    if !matches!(self.consensus.role(), Role::Leads { .. }) {
                        self.turn_all_away();
                    }
                }
                _ = sleep_until(next_deadline), if next_deadline.is_some() => self.answer_late(),
                _ = sweep.tick() => self.sweep(),
            }
            self.parked_count
                .store(self.parked.len() as u64, Ordering::Relaxed);
        }
    }

    /// A retried claim gets its tasks back at once; a new one takes what is there or parks.
    fn admit(&mut self, waiter: Waiter, in_flight: &mut FuturesUnordered<Flight>) {
        let id = self.next_id;
        self.next_id += 1;
        let claim = &waiter.claim;
        let held = self
            .state
            .read(|state, _| state.holds_claim(&claim.namespace, &claim.claim_id));
        if held {
            self.launch(id, waiter, None, in_flight);
            return;
        }
        self.park(id, waiter);
        self.dispatch_one(id, in_flight);
        let expired = self
            .parked
            .get(&id)
            .is_some_and(|waiter| waiter.deadline <= Instant::now());
        if expired && let Some(waiter) = self.unpark(id) {
            let _ = waiter.reply.send(Ok(Vec::new()));
        }
    }

    fn park(&mut self, id: u64, waiter: Waiter) {
        for queue in &waiter.claim.queues {
            let key = (waiter.claim.namespace.clone(), queue.clone());
            self.by_queue.entry(key).or_default().insert(id);
        }
        self.by_deadline.insert((waiter.deadline, id));
        self.parked.insert(id, waiter);
    }

    fn unpark(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.parked.remove(&id)?;
        self.by_deadline.remove(&(waiter.deadline, id));
        for queue in &waiter.claim.queues {
            let key = (waiter.claim.namespace.clone(), queue.clone());
            if let Some(ids) = self.by_queue.get_mut(&key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_queue.remove(&key);
                }
            }
        }
        Some(waiter)
    }

    /// Available tasks of a queue that no claim in flight will take.
    fn unpromised(&self, key: &QueueKey) -> u64 {
        let available = self.state.read(|state, _| state.available(&key.0, &key.1));
        available.saturating_sub(self.promised.get(key).copied().unwrap_or(0))
    }

    /// Sends the longest waiters of those queues that have something for them.
    fn dispatch(
        &mut self,
        queues: impl IntoIterator<Item = QueueKey>,
        in_flight: &mut FuturesUnordered<Flight>,
    ) {
        for key in queues {
            while self.unpromised(&key) > 0 {
                let Some(id) = self.by_queue.get(&key).and_then(|ids| ids.first().copied()) else {
                    break;
                };
                self.send_for(id, key.clone(), in_flight);
            }
        }
    }

    fn dispatch_one(&mut self, id: u64, in_flight: &mut FuturesUnordered<Flight>) {
        let Some(waiter) = self.parked.get(&id) else {
            return;
        };
        let namespace = waiter.claim.namespace.clone();
        let queues = waiter.claim.queues.clone();
        let ready = queues
            .into_iter()
            .map(|queue| (namespace.clone(), queue))
            .find(|key| self.unpromised(key) > 0);
        if let Some(key) = ready {
            self.send_for(id, key, in_flight);
        }
    }

    fn send_for(&mut self, id: u64, key: QueueKey, in_flight: &mut FuturesUnordered<Flight>) {
        let share = self.unpromised(&key);
        let Some(waiter) = self.unpark(id) else {
            return;
        };
        if waiter.reply.is_closed() {
            return;
        }
        let share = share.min(u64::from(waiter.claim.tasks_max));
        *self.promised.entry(key.clone()).or_default() += share;
        self.launch(id, waiter, Some((key, share)), in_flight);
    }

    fn launch(
        &mut self,
        id: u64,
        waiter: Waiter,
        promise: Option<(QueueKey, u64)>,
        in_flight: &mut FuturesUnordered<Flight>,
    ) {
        let proposed = self.proposer.propose(Command::Claim(waiter.claim.clone()));
        let flight: Flight = Box::pin(async move {
            let outcome = match proposed {
                Ok(outcome) => outcome.await.unwrap_or(Err(ProposeError::NotLeader)),
                Err(_) => Err(ProposeError::NotLeader),
            };
            InFlight {
                id,
                waiter,
                promise,
                outcome,
            }
        });
        in_flight.push(flight);
    }

    fn settle_flight(&mut self, done: InFlight) {
        if let Some((key, share)) = done.promise
            && let Some(promised) = self.promised.get_mut(&key)
        {
            *promised = promised.saturating_sub(share);
            if *promised == 0 {
                self.promised.remove(&key);
            }
        }
        match done.outcome {
            Ok(Outcome::Claimed(tasks)) if tasks.is_empty() => {
                if done.waiter.deadline > Instant::now() {
                    self.park(done.id, done.waiter);
                } else {
                    let _ = done.waiter.reply.send(Ok(tasks));
                }
            }
            Ok(Outcome::Claimed(tasks)) => {
                if let Err(Ok(undelivered)) = done.waiter.reply.send(Ok(tasks)) {
                    release(&self.proposer, &undelivered);
                }
            }
            Ok(other) => {
                let _ = done.waiter.reply.send(Err(ProposeError::Unknown(format!(
                    "a claim was answered with {other:?}"
                ))));
            }
            Err(error) => {
                let _ = done.waiter.reply.send(Err(error));
            }
        }
    }

    fn answer_late(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.by_deadline.first().copied()
            && at <= now
        {
            if let Some(waiter) = self.unpark(id) {
                let _ = waiter.reply.send(Ok(Vec::new()));
            }
        }
    }

    fn turn_all_away(&mut self) {
        for (_, waiter) in std::mem::take(&mut self.parked) {
            let _ = waiter.reply.send(Err(ProposeError::NotLeader));
        }
        self.by_queue.clear();
        self.by_deadline.clear();
    }

    fn sweep(&mut self) {
        let gone: Vec<u64> = self
            .parked
            .iter()
            .filter(|(_, waiter)| waiter.reply.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.unpark(id);
        }
    }
}

type Flight = std::pin::Pin<Box<dyn std::future::Future<Output = InFlight> + Send>>;

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// Gives back what could not be delivered: no attempt, no abandonment. Should this proposal be lost too,
/// the leases run out.
pub fn release(proposer: &Proposer, claimed: &[Claimed]) {
    let settles = claimed
        .iter()
        .map(|claimed| Settle {
            lease: Lease {
                namespace: claimed.task.namespace.clone(),
                id: claimed.task.id.clone(),
                token: claimed.token,
            },
            action: SettleAction::Release,
        })
        .collect();
    let _ = proposer.propose(Command::Settle(settles));
}
