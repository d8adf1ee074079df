//! Group commit at the leader's door: commands that arrive while entries are in flight form the next one.
//!
//! One task owns the leader's clocks and the order of proposals. A command leaves with one of three
//! answers: its outcome, "nothing was appended", or "unknown".

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::clock::{OfficeClock, SAMPLE_EVERY};
use crate::limits::{ENTRY_COMMAND_BYTES_MAX, ENTRY_COMMANDS_MAX, PROPOSALS_WAITING_MAX};
use crate::metrics::Metrics;
use crate::raft::consensus::{Consensus, ProposeError, Role};
use crate::storage::store::Store;
use crate::storage::types::EntryBytes;
use crate::task::command::{Command, Entry, Outcome, SettleAction};

/// Entries on their way at a time. More of them make batches smaller, and each costs every member a round of
/// work and an fsync.
const ENTRIES_IN_FLIGHT_MAX: usize = 1;

type Reply = oneshot::Sender<Result<Outcome, ProposeError>>;

struct Proposal {
    command: Command,
    bytes: usize,
    reply: Reply,
}

/// The door to the log.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
}

/// The door is full: nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorFull;

impl Proposer {
    /// Starts the task that proposes; it ends when the last `Proposer` is dropped.
    pub fn start(consensus: Consensus, state: Arc<Store>, metrics: Arc<Metrics>) -> Proposer {
        let (queue, waiting) = mpsc::channel(PROPOSALS_WAITING_MAX);
        tokio::spawn(run(waiting, consensus, state, metrics));
        Proposer { queue }
    }

    /// Queues a command. The receiver answers once it is applied here, or why not.
    pub fn propose(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<Result<Outcome, ProposeError>>, DoorFull> {
        let (reply, outcome) = oneshot::channel();
        let bytes = command_bytes(&command);
        self.queue
            .try_send(Proposal {
                command,
                bytes,
                reply,
            })
            .map_err(|_| DoorFull)?;
        Ok(outcome)
    }

    pub fn waiting(&self) -> usize {
        PROPOSALS_WAITING_MAX - self.queue.capacity()
    }
}

async fn run(
    mut waiting: mpsc::Receiver<Proposal>,
    consensus: Consensus,
    state: Arc<Store>,
    metrics: Arc<Metrics>,
) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut office: Option<(u64, OfficeClock)> = None;
    let mut sample = tokio::time::interval(SAMPLE_EVERY);
    sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut held: Option<Proposal> = None;
    loop {
        let first = match held.take() {
            Some(proposal) => proposal,
            None => tokio::select! {
                biased;
                proposal = waiting.recv() => match proposal {
                    Some(proposal) => proposal,
                    None => return,
                },
                _ = sample.tick() => {
                    if let Some((_, clock)) = take_office(&mut office, &consensus, &state) {
                        clock.sample(Instant::now(), SystemTime::now());
                        metrics.gauges.clock_step_refused_ms.set(clock.step_refused_ms);
                    }
                    continue;
                }
            },
        };
        let permit = in_flight
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let mut batch = vec![first];
        held = gather(&mut waiting, &mut batch);

        let Some((term, clock)) = take_office(&mut office, &consensus, &state) else {
            answer_all(batch, ProposeError::NotLeader);
            continue;
        };
        let (lease_time_ms, wall_time_ms) = clock.sample(Instant::now(), SystemTime::now());
        let term = *term;
        let (commands, replies): (Vec<Command>, Vec<Reply>) = batch
            .into_iter()
            .map(|proposal| (proposal.command, proposal.reply))
            .unzip();
        metrics.entry_commands.observe(commands.len() as f64);
        let entry = Entry {
            lease_time_ms,
            wall_time_ms,
            commands,
        };
        let bytes = postcard::to_stdvec(&entry).expect("an entry of plain values always encodes");
        let proposed = consensus
            .propose(term, EntryBytes(Bytes::from(bytes)))
            .await;
        tokio::spawn(async move {
            let answer = match proposed {
                Ok(outcome) => outcome.await,
                Err(error) => Err(error),
            };
            drop(permit);
            match answer {
                Ok(outcomes) => {
                    for (reply, outcome) in replies.into_iter().zip(outcomes.0) {
                        let _ = reply.send(Ok(outcome));
                    }
                }
                Err(error) => {
                    for reply in replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        });
    }
}

/// Adds what is ready to the batch, up to its caps; a command that no longer fits is handed back.
fn gather(waiting: &mut mpsc::Receiver<Proposal>, batch: &mut Vec<Proposal>) -> Option<Proposal> {
    let mut bytes: usize = batch.iter().map(|proposal| proposal.bytes).sum();
    while batch.len() < ENTRY_COMMANDS_MAX {
        let Ok(next) = waiting.try_recv() else { break };
        bytes += next.bytes;
        if bytes > ENTRY_COMMAND_BYTES_MAX {
            return Some(next);
        }
        batch.push(next);
    }
    None
}

/// The clocks of the current term in office, begun anew when the term is new; none while not leading.
fn take_office<'a>(
    office: &'a mut Option<(u64, OfficeClock)>,
    consensus: &Consensus,
    state: &Store,
) -> Option<&'a mut (u64, OfficeClock)> {
    let Role::Leads { term } = consensus.role() else {
        *office = None;
        return None;
    };
    if office.as_ref().is_none_or(|(held, _)| *held != term) {
        let (lease, wall) = state.read(|state, _| (state.lease_time_ms(), state.wall_time_ms()));
        *office = Some((
            term,
            OfficeClock::new(lease, wall, Instant::now(), SystemTime::now()),
        ));
    }
    office.as_mut()
}

fn answer_all(batch: Vec<Proposal>, error: ProposeError) {
    for proposal in batch {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}

/// Roughly the bytes a command takes in an entry.
fn command_bytes(command: &Command) -> usize {
    const ROW: usize = 96;
    match command {
        Command::Create(create) => {
            ROW + create
                .tasks
                .iter()
                .map(|task| ROW + task.payload.len())
                .sum::<usize>()
        }
        Command::Settle(settles) => settles
            .iter()
            .map(|settle| match &settle.action {
                SettleAction::Complete { result } => ROW + result.len(),
                SettleAction::Fail { error, .. } => ROW + error.len(),
                SettleAction::Release => ROW,
            })
            .sum(),
        Command::Claim(claim) => ROW * (1 + claim.queues.len()),
        _ => ROW,
    }
}

/// How long a caller should wait before it knocks at a full door again.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);
