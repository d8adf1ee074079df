//! Group commit at the leader's door: commands that arrive while entries are in flight form the next one.
//!
//! A command is encoded once, by its caller, and waits as bytes. One task owns the order of proposals. A
//! command leaves with one of three answers: its outcome, "nothing was appended", or "unknown".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::clock::Clock;
use super::request::Error;
use crate::limits::{
    COMMAND_BYTES_MAX, ENTRY_COMMAND_BYTES_MAX, ENTRY_COMMANDS_MAX, PROPOSALS_WAITING_BYTES_MAX,
    PROPOSALS_WAITING_MAX,
};
use crate::metrics::Metrics;
use crate::raft::consensus::{Consensus, ProposeError};
use crate::storage::types::EntryBytes;
use crate::task::command::{Command, Entry, Outcome};

/// Entries on their way at a time. More of them make batches smaller, and each costs every member a round of
/// work and an fsync.
const ENTRIES_IN_FLIGHT_MAX: usize = 1;
/// How long a caller should wait before it knocks at a full door again.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);

type Reply = oneshot::Sender<Result<Outcome, ProposeError>>;

struct Proposal {
    command: Vec<u8>,
    reply: Reply,
    /// Its share of the bytes that may wait, given back when it goes into an entry.
    _waiting: OwnedSemaphorePermit,
}

/// The door to the log.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
    room: Arc<Semaphore>,
}

impl Proposer {
    /// Starts the task that proposes; it ends when the last `Proposer` is dropped.
    pub fn start(consensus: Consensus, clock: Clock, metrics: Arc<Metrics>) -> Proposer {
        let (queue, waiting) = mpsc::channel(PROPOSALS_WAITING_MAX);
        tokio::spawn(run(waiting, consensus, clock, metrics));
        Proposer {
            queue,
            room: Arc::new(Semaphore::new(PROPOSALS_WAITING_BYTES_MAX)),
        }
    }

    /// Queues a command. The receiver answers once it is applied here, or why not. After an error nothing
    /// was appended: the door is full, or no entry holds such a command.
    pub fn propose(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<Result<Outcome, ProposeError>>, Error> {
        let command = command.encode();
        if command.len() > COMMAND_BYTES_MAX {
            let bytes = command.len();
            let bound = format!("one call has {COMMAND_BYTES_MAX} bytes at most, this one {bytes}");
            return Err(Error::TooLarge { bound });
        }
        let waiting = self
            .room
            .clone()
            .try_acquire_many_owned(command.len() as u32)
            .map_err(|_| overloaded(PROPOSALS_WAITING_BYTES_MAX, "bytes of commands waiting"))?;
        let (reply, outcome) = oneshot::channel();
        self.queue
            .try_send(Proposal {
                command,
                reply,
                _waiting: waiting,
            })
            .map_err(|_| overloaded(PROPOSALS_WAITING_MAX, "commands waiting"))?;
        Ok(outcome)
    }

    pub fn waiting(&self) -> usize {
        PROPOSALS_WAITING_MAX - self.queue.capacity()
    }
}

/// A bound on work in flight was met.
pub fn overloaded(bound: usize, of_what: &str) -> Error {
    Error::Overloaded {
        bound: format!("{bound} {of_what}"),
        retry_after_ms: RETRY_AFTER.as_millis() as u64,
    }
}

async fn run(
    mut waiting: mpsc::Receiver<Proposal>,
    consensus: Consensus,
    clock: Clock,
    metrics: Arc<Metrics>,
) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut held: Option<Proposal> = None;
    loop {
        let first = match held.take() {
            Some(proposal) => proposal,
            None => match waiting.recv().await {
                Some(proposal) => proposal,
                None => return,
            },
        };
        let permit = in_flight
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let mut batch = vec![first];
        held = gather(&mut waiting, &mut batch);
        let (commands, replies): (Vec<Vec<u8>>, Vec<Reply>) = batch
            .into_iter()
            .map(|proposal| (proposal.command, proposal.reply))
            .unzip();
        let Some(stamp) = clock.stamp() else {
            answer_all(replies, ProposeError::NotLeader);
            continue;
        };
        metrics.entry_commands.observe(commands.len() as f64);
        let entry = Entry::assemble(stamp.lease_time_ms, stamp.wall_time_ms, &commands);
        let proposed = consensus
            .propose(stamp.term, EntryBytes(Bytes::from(entry)))
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
                Err(error) => answer_all(replies, error),
            }
        });
    }
}

/// Adds what is ready to the batch, up to its caps; a command that no longer fits is handed back.
fn gather(waiting: &mut mpsc::Receiver<Proposal>, batch: &mut Vec<Proposal>) -> Option<Proposal> {
    let mut bytes: usize = batch.iter().map(|proposal| proposal.command.len()).sum();
    while batch.len() < ENTRY_COMMANDS_MAX {
        let Ok(next) = waiting.try_recv() else { break };
        bytes += next.command.len();
        if bytes > ENTRY_COMMAND_BYTES_MAX {
            return Some(next);
        }
        batch.push(next);
    }
    None
}

fn answer_all(replies: Vec<Reply>, error: ProposeError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
