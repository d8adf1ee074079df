//! What the rules say, written as plainly as possible: one list of tasks, searched from end to end.

use super::super::command::{
    Claim, Command, Create, Entry, Extend, Outcome, Settle, SettleAction, TaskState,
};
use super::super::settle::back_off_ms;
use super::super::state::{At, Bounds};
use TaskState::*;

#[derive(Debug, Clone)]
pub struct Task {
    pub queue: String,
    pub id: String,
    pub body: String,
    pub order: (u8, u64, u64),
    pub bytes: u64,
    pub lease_ms: u64,
    pub attempts_max: u32,
    pub state: TaskState,
    pub token: u64,
    pub failures: u32,
    pub abandonments: u32,
    /// In the clock of its state: a deadline, a due time, a time of finish.
    pub until: u64,
    pub held: (String, usize),
    pub settled: Option<(u64, u8, TaskState)>,
}

pub struct Model {
    pub tasks: Vec<Task>,
    pub bounds: Bounds,
    lease: u64,
    wall: u64,
    seq: u64,
}

impl Model {
    pub fn new(bounds: Bounds) -> Model {
        Model {
            tasks: Vec::new(),
            bounds,
            lease: 0,
            wall: 0,
            seq: 0,
        }
    }

    pub fn apply(&mut self, at: At, entry: &Entry) -> Vec<String> {
        self.lease = self.lease.max(entry.lease_time_ms);
        self.wall = self.wall.max(entry.wall_time_ms);
        for task in &mut self.tasks {
            if task.state == Running && task.until <= self.lease {
                task.abandonments += 1;
                (task.state, task.until) = if task.abandonments == 5 {
                    (Discarded, self.wall)
                } else {
                    (Available, 0)
                };
            }
            if matches!(task.state, Scheduled | Retryable) && task.until <= self.wall {
                task.state = Available;
            }
        }
        self.forget();
        entry
            .commands
            .iter()
            .map(|command| self.command(at, command))
            .collect()
    }

    fn forget(&mut self) {
        let done = |task: &Task| matches!(task.state, Completed | Discarded);
        let (age, wall) = (self.bounds.finished_age_ms_max, self.wall);
        self.tasks
            .retain(|task| !done(task) || task.until + age > wall);
        let mut finished: Vec<(u64, u64, String)> = self
            .tasks
            .iter()
            .filter(|t| done(t))
            .map(|t| (t.until, t.order.2, t.queue.clone()))
            .collect();
        finished.sort();
        for (at, (_, seq, queue)) in finished.iter().enumerate() {
            let newer = finished[at + 1..]
                .iter()
                .filter(|other| other.2 == *queue)
                .count() as u64;
            if newer >= self.bounds.finished_rows_max {
                self.tasks.retain(|task| task.order.2 != *seq);
            }
        }
    }

    fn command(&mut self, at: At, command: &Command) -> String {
        match command {
            Command::Create(create) => format!("{:?}", self.create(create)),
            Command::Claim(claim) => format!("{:?}", self.claim(at, claim)),
            Command::Settle(settles) => {
                format!(
                    "{:?}",
                    settles
                        .iter()
                        .map(|settle| self.settle(at, settle))
                        .collect::<Vec<_>>()
                )
            }
            Command::Extend(extend) => format!("{:?}", self.extend(at, extend)),
            _ => String::new(),
        }
    }

    fn create(&mut self, create: &Create) -> Vec<&'static str> {
        let mut answers = Vec::new();
        for new in &create.tasks {
            let body = format!("{} {new:?}", create.queue);
            if let Some(task) = self.tasks.iter().find(|task| task.id == new.id.to_string()) {
                answers.push(if task.body == body {
                    "existed"
                } else {
                    "duplicate"
                });
                continue;
            }
            self.seq += 1;
            let since = if new.not_before_ms == 0 {
                self.wall
            } else {
                new.not_before_ms
            };
            self.tasks.push(Task {
                queue: create.queue.to_string(),
                id: new.id.to_string(),
                body,
                order: (new.priority, since, self.seq),
                bytes: new.payload.len() as u64,
                lease_ms: new.lease_ms,
                attempts_max: new.attempts_max,
                state: if new.not_before_ms > self.wall {
                    Scheduled
                } else {
                    Available
                },
                token: 0,
                failures: 0,
                abandonments: 0,
                until: new.not_before_ms,
                held: (String::new(), 0),
                settled: None,
            });
            answers.push("created");
        }
        answers
    }

    fn claim(&mut self, at: At, claim: &Claim) -> Vec<(String, u64, u64)> {
        let mut held: Vec<&Task> = self
            .tasks
            .iter()
            .filter(|t| t.state == Running && t.held.0 == claim.claim_id)
            .collect();
        if held.is_empty() {
            let (mut bytes, mut place) = (0, 0);
            'queues: for queue in &claim.queues {
                loop {
                    let mut open: Vec<&mut Task> = self
                        .tasks
                        .iter_mut()
                        .filter(|t| t.state == Available && t.queue == queue.as_str())
                        .collect();
                    open.sort_by_key(|task| task.order);
                    let Some(task) = open.into_iter().next() else {
                        break;
                    };
                    bytes += task.bytes;
                    if place == claim.tasks_max as usize || place > 0 && bytes > claim.bytes_max {
                        break 'queues;
                    }
                    let lease_ms = if claim.lease_ms == 0 {
                        task.lease_ms
                    } else {
                        claim.lease_ms
                    };
                    (task.state, task.token, task.until) =
                        (Running, at.token().0, self.lease + lease_ms);
                    task.held = (claim.claim_id.clone(), place);
                    place += 1;
                }
            }
            held = self
                .tasks
                .iter()
                .filter(|t| t.state == Running && t.held.0 == claim.claim_id)
                .collect();
        }
        held.sort_by_key(|task| task.held.1);
        held.into_iter()
            .map(|task| (task.id.clone(), task.token, task.until - self.lease))
            .collect()
    }

    fn settle(&mut self, at: At, settle: &Settle) -> Result<TaskState, &'static str> {
        let Some(task) = self
            .tasks
            .iter_mut()
            .find(|t| t.id == settle.lease.id.to_string())
        else {
            return Err("not found");
        };
        let token = settle.lease.token;
        let kind = match &settle.action {
            SettleAction::Complete { .. } => 0,
            SettleAction::Fail { .. } => 1,
            SettleAction::Release => 2,
        };
        if task.state != Running || task.token != token.0 || token == at.token() {
            return match task.settled {
                Some((last, same, state)) if last == token.0 && same == kind => Ok(state),
                _ => Err("lost"),
            };
        }
        (task.state, task.until) = match &settle.action {
            SettleAction::Complete { .. } => (Completed, self.wall),
            SettleAction::Release => (Available, 0),
            SettleAction::Fail {
                retry_after_ms,
                discard,
                ..
            } => {
                task.failures += 1;
                let wait = retry_after_ms.unwrap_or(back_off_ms(task.failures, task.order.2));
                match (*discard || task.failures >= task.attempts_max, wait) {
                    (true, _) => (Discarded, self.wall),
                    (_, 0) => (Available, 0),
                    (_, wait) => (Retryable, self.wall + wait),
                }
            }
        };
        task.settled = Some((token.0, kind, task.state));
        Ok(task.state)
    }

    fn extend(&mut self, at: At, extend: &Extend) -> Result<u64, &'static str> {
        let Some(task) = self
            .tasks
            .iter_mut()
            .find(|t| t.id == extend.lease.id.to_string())
        else {
            return Err("not found");
        };
        let token = extend.lease.token;
        if task.state != Running || task.token != token.0 || token == at.token() {
            return Err("lost");
        }
        let lease_ms = if extend.lease_ms == 0 {
            task.lease_ms
        } else {
            extend.lease_ms
        };
        task.until = self.lease + lease_ms;
        Ok(lease_ms)
    }
}

/// The same words for what the state answered.
pub fn said(outcome: &Outcome) -> String {
    use super::super::command::Rejection;
    let why = |rejection: &Rejection| match rejection {
        Rejection::TaskNotFound { .. } => "not found",
        Rejection::LeaseLost { .. } => "lost",
        Rejection::Duplicate { .. } => "duplicate",
        _ => "something else",
    };
    match outcome {
        Outcome::Created(results) => {
            let answers: Vec<&str> = results
                .iter()
                .map(|result| match result {
                    Ok(created) if created.existed => "existed",
                    Ok(_) => "created",
                    Err(rejection) => why(rejection),
                })
                .collect();
            format!("{answers:?}")
        }
        Outcome::Claimed(claimed) => {
            let tasks = claimed
                .iter()
                .map(|c| (c.task.id.to_string(), c.token.0, c.lease_ms));
            format!("{:?}", tasks.collect::<Vec<_>>())
        }
        Outcome::Settled(results) => {
            let states = results
                .iter()
                .map(|result| result.as_ref().map(|settled| settled.state).map_err(why));
            format!("{:?}", states.collect::<Vec<_>>())
        }
        Outcome::Extended(result) => format!(
            "{:?}",
            result.as_ref().map(|lease_ms| *lease_ms).map_err(why)
        ),
        _ => String::new(),
    }
}
