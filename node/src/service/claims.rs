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
//!
//! Tasks travel to their caller in a `Granted`: one that is dropped on the way gives them back. Whoever
//! sends the same claim again takes them over, and then nothing is given back. An answer that is lost
//! between two members, after the leader has sent it, is not noticed: those leases run out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::Miss;
use super::proposer::{Proposer, overloaded};
use super::request::Error;
use crate::limits::WAITERS_MAX;
use crate::raft::consensus::{Consensus, Role};
use crate::storage::store::Store;
use crate::task::command::{Claim, Claimed, Command, Lease, Outcome, Settle, SettleAction};
use crate::task::id::Name;

/// How often waiters whose callers are gone are swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

type Answer = Result<Granted, Miss>;
type QueueKey = (Name, Name);

/// A claim on its way in.
struct Waiter {
    claim: Claim,
    deadline: Instant,
    reply: oneshot::Sender<Answer>,
    ticket: Ticket,
}

/// What a claim got.
pub struct Granted {
    tasks: Vec<Claimed>,
    /// Whether an entry was committed for it: then this member led.
    pub committed: bool,
    ticket: Ticket,
    proposer: Proposer,
}

impl Granted {
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Claimed> {
        self.tasks.iter()
    }

    /// From here on the tasks are the caller's.
    pub fn take(mut self) -> Vec<Claimed> {
        std::mem::take(&mut self.tasks)
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if !self.tasks.is_empty() && self.ticket.is_newest() {
            release(&self.proposer, &self.tasks);
        }
    }
}

/// Who sent each claim id last: its tasks are that caller's.
type Callers = Arc<Mutex<HashMap<(Name, String), u64>>>;

/// One caller's place among those of the same claim id, from its arrival until its answer is taken.
struct Ticket {
    claim: (Name, String),
    number: u64,
    callers: Callers,
}

impl Ticket {
    fn is_newest(&self) -> bool {
        let callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.get(&self.claim) == Some(&self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.get(&self.claim) == Some(&self.number) {
            callers.remove(&self.claim);
        }
    }
}

/// The door to the waiting room.
#[derive(Clone)]
pub struct Claims {
    door: mpsc::Sender<Waiter>,
    parked: Arc<AtomicU64>,
    callers: Callers,
    next_number: Arc<AtomicU64>,
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
        Claims {
            door,
            parked,
            callers: Callers::default(),
            next_number: Arc::default(),
        }
    }

    /// Claims parked now.
    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    /// Takes a claim in, to wait until `deadline` at most; an error says that the room is full.
    pub(super) fn enter(
        &self,
        claim: Claim,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Answer>, Error> {
        let place = self.door.try_reserve().map_err(|_| room_full())?;
        let (reply, answer) = oneshot::channel();
        let ticket = self.ticket(&claim);
        place.send(Waiter {
            claim,
            deadline,
            reply,
            ticket,
        });
        Ok(answer)
    }

    fn ticket(&self, claim: &Claim) -> Ticket {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let claim = (claim.namespace.clone(), claim.claim_id.clone());
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.insert(claim.clone(), number);
        Ticket {
            claim,
            number,
            callers: self.callers.clone(),
        }
    }
}

fn room_full() -> Error {
    overloaded(WAITERS_MAX, "claims waiting")
}

impl Waiter {
    fn answer(self, tasks: Vec<Claimed>, committed: bool, proposer: &Proposer) {
        // A caller that is gone drops it.
        let _ = self.reply.send(Ok(Granted {
            tasks,
            committed,
            ticket: self.ticket,
            proposer: proposer.clone(),
        }));
    }

    fn turn_away(self, miss: Miss) {
        let _ = self.reply.send(Err(miss));
    }
}

struct InFlight {
    id: u64,
    waiter: Waiter,
    promise: Option<(QueueKey, u64)>,
    outcome: Result<Outcome, Miss>,
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
                    self.settle_flight(done, &mut in_flight);
                    self.dispatch(queue, &mut in_flight);
                }
                gained = state.next_gained() => self.dispatch(gained, &mut in_flight),
                changed = role.changed() => {
                    if changed.is_err() { return }
                    if !self.leads() {
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
        if !self.leads() {
            return waiter.turn_away(Miss::NotHere);
        }
        let id = self.next_id;
        self.next_id += 1;
        let claim = &waiter.claim;
        let held = self
            .state
            .read(|state| state.holds_claim(&claim.namespace, &claim.claim_id));
        if held {
            self.launch(id, waiter, None, in_flight);
            return;
        }
        self.park(id, waiter);
        self.dispatch_one(id, in_flight);
        let Some(waiter) = self.parked.get(&id) else {
            return;
        };
        let expired = waiter.deadline <= Instant::now();
        if (expired || self.parked.len() > WAITERS_MAX)
            && let Some(waiter) = self.unpark(id)
        {
            match expired {
                true => waiter.answer(Vec::new(), false, &self.proposer),
                false => waiter.turn_away(Miss::Final(room_full())),
            }
        }
    }

    fn leads(&self) -> bool {
        matches!(self.consensus.role(), Role::Leads { .. })
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
        let available = self.state.read(|state| state.available(&key.0, &key.1));
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
                Ok(outcome) => match outcome.await {
                    Ok(outcome) => outcome.map_err(Miss::from),
                    Err(_) => Err(Miss::Unknown("the member is stopping".into())),
                },
                Err(error) => Err(Miss::Final(error)),
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

    fn settle_flight(&mut self, done: InFlight, in_flight: &mut FuturesUnordered<Flight>) {
        if let Some((key, share)) = done.promise
            && let Some(promised) = self.promised.get_mut(&key)
        {
            *promised = promised.saturating_sub(share);
            if *promised == 0 {
                self.promised.remove(&key);
            }
        }
        match done.outcome {
            Ok(Outcome::Claimed(tasks)) => {
                let may_wait = tasks.is_empty() && done.waiter.deadline > Instant::now();
                match may_wait && self.leads() {
                    true => {
                        self.park(done.id, done.waiter);
                        // Another of its queues may have got something meanwhile.
                        self.dispatch_one(done.id, in_flight);
                    }
                    false if may_wait => done.waiter.turn_away(Miss::NotHere),
                    false => done.waiter.answer(tasks, true, &self.proposer),
                }
            }
            Ok(other) => {
                let reason = format!("a claim was answered with {other:?}");
                done.waiter.turn_away(Miss::Unknown(reason));
            }
            Err(miss) => done.waiter.turn_away(miss),
        }
    }

    fn answer_late(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.by_deadline.first().copied()
            && at <= now
        {
            if let Some(waiter) = self.unpark(id) {
                waiter.answer(Vec::new(), false, &self.proposer);
            }
        }
    }

    fn turn_all_away(&mut self) {
        for (_, waiter) in std::mem::take(&mut self.parked) {
            waiter.turn_away(Miss::NotHere);
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
fn release(proposer: &Proposer, claimed: &[Claimed]) {
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
