//! A pass that goes wrong at one effect: a write to Kubernetes, a call to a member, a write of status.

use crds::TaskStoreCluster;
use operator::error::Error;
use operator::observe::Observed;
use operator::plan::Action;
use operator::status;

use super::{Refused, World};

/// What happens at the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process ends before it sends it.
    DiesBefore,
    /// It was done, and the process ends before it hears so.
    DiesAfter,
    /// It was done, and the answer is lost.
    AnswerLost,
    /// It is not done: throttled, or an error of the server.
    Unavailable,
    /// It is not done: the object has moved.
    Conflict,
    /// Another operator takes over and comes to rest; then this one wakes up and goes on where it was.
    Overtaken,
    /// The user asks for another size, another operator takes over and makes so many passes; then this one
    /// wakes up and goes on where it was. The size is taken back once all is at rest.
    OvertakenMidway(usize),
    /// Somebody touches the cluster object, and nothing that is in the spec.
    Touched,
    /// The user pauses the cluster, and takes it back once all is at rest.
    Paused,
    /// The user asks for another size, and takes it back once all is at rest.
    Resized,
    /// A watch stalls: for some passes, what it brings stays as it was.
    Stalled(Watch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Cluster,
    Volumes,
    Pods,
    Budget,
    Members,
    Backups,
}

/// Passes that a stalled watch takes to go on.
const STALLED_PASSES: usize = 6;

pub const TROUBLES: [Trouble; 18] = [
    Trouble::DiesBefore,
    Trouble::DiesAfter,
    Trouble::AnswerLost,
    Trouble::Unavailable,
    Trouble::Conflict,
    Trouble::Overtaken,
    Trouble::OvertakenMidway(2),
    Trouble::OvertakenMidway(5),
    Trouble::OvertakenMidway(9),
    Trouble::Touched,
    Trouble::Paused,
    Trouble::Resized,
    Trouble::Stalled(Watch::Cluster),
    Trouble::Stalled(Watch::Volumes),
    Trouble::Stalled(Watch::Pods),
    Trouble::Stalled(Watch::Budget),
    Trouble::Stalled(Watch::Members),
    Trouble::Stalled(Watch::Backups),
];

/// Counts effects, and knows at which one there is trouble.
pub struct Effects {
    pub done: usize,
    pub at: Option<(usize, Trouble)>,
    stalled: Option<Stalled>,
}

struct Stalled {
    watch: Watch,
    saw: Seen,
    passes_left: usize,
}

impl Effects {
    pub fn without_trouble() -> Self {
        Self {
            done: 0,
            at: None,
            stalled: None,
        }
    }

    pub fn with(trouble: Trouble, at: usize) -> Self {
        Self {
            at: Some((at, trouble)),
            ..Self::without_trouble()
        }
    }

    /// Whether a watch still has to bring what is there.
    pub fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// What the operator sees of this through its watches.
    fn through_watches(&mut self, mut now: Seen) -> Seen {
        let Some(stalled) = &mut self.stalled else {
            return now;
        };
        let (cluster, saw) = &stalled.saw;
        // Without a recorded identity volumes and pods are listed anew.
        let is_known = |cluster: &TaskStoreCluster| {
            cluster
                .status
                .as_ref()
                .is_some_and(|status| status.identity.is_some())
        };
        match stalled.watch {
            Watch::Cluster => now.0 = cluster.clone(),
            Watch::Volumes if is_known(&now.0) => now.1.volumes.clone_from(&saw.volumes),
            Watch::Pods if is_known(&now.0) => now.1.pods.clone_from(&saw.pods),
            Watch::Budget => now.1.budget.clone_from(&saw.budget),
            Watch::Members => now.1.members.clone_from(&saw.members),
            Watch::Backups => now.1.backups.objects.clone_from(&saw.backups.objects),
            Watch::Volumes | Watch::Pods => {}
        }
        stalled.passes_left -= 1;
        if stalled.passes_left == 0 {
            self.stalled = None;
        }
        now
    }

    /// None once it has come.
    fn next(&mut self) -> Option<Trouble> {
        let is_it = self.at.is_some_and(|(at, _)| at == self.done);
        self.done += 1;
        if is_it {
            self.at.take().map(|(_, trouble)| trouble)
        } else {
            None
        }
    }
}

type Seen = (TaskStoreCluster, Observed);

enum Effect<'a> {
    Act(&'a Action),
    /// With the error that ended the pass.
    Report(Option<Error>),
}

/// Whether the pass goes on after an effect.
enum Then {
    GoesOn,
    Failed(Error),
    Died,
}

impl World {
    /// As the real one: what must be remembered first is written and ends the pass; else the actions up to the
    /// first failure, then status.
    pub fn troubled_pass(&mut self, now: Seen, effects: &mut Effects) {
        let seen = &effects.through_watches(now);
        let thought = self.think(seen);
        self.is_new_process = false;
        let mut failure = None;
        if !thought.must_record(&seen.0) {
            for action in &thought.actions {
                match self.troubled(seen, &thought, Effect::Act(action), effects) {
                    Then::GoesOn => {}
                    Then::Failed(error) => {
                        failure = Some(error);
                        break;
                    }
                    Then::Died => return,
                }
            }
        }
        let wanted = status::next(&seen.0, &seen.1, &thought, failure.as_ref(), self.now);
        if seen.0.status.as_ref() != Some(&wanted) {
            self.troubled(seen, &thought, Effect::Report(failure), effects);
        }
    }

    fn troubled(
        &mut self,
        seen: &Seen,
        thought: &operator::plan::Plan,
        effect: Effect<'_>,
        effects: &mut Effects,
    ) -> Then {
        let lost = || Error::TimedOut { doing: "test" };
        let send = |world: &mut Self| {
            let sent = match &effect {
                Effect::Act(action) => world.effect(seen, action),
                Effect::Report(failure) => world.report(seen, thought, failure.as_ref()),
            };
            match sent {
                Ok(()) => Then::GoesOn,
                Err(Refused(doing)) => Then::Failed(Error::Stale { doing }),
            }
        };
        let Some(trouble) = effects.next() else {
            return send(self);
        };
        match trouble {
            Trouble::DiesBefore => {
                self.replace_operator();
                Then::Died
            }
            Trouble::DiesAfter => {
                send(self);
                self.replace_operator();
                Then::Died
            }
            Trouble::AnswerLost => {
                let known = self.objects.credentials.clone();
                send(self);
                // What it knows of Secrets it knows from answers.
                self.objects.credentials = known;
                Then::Failed(lost())
            }
            Trouble::Unavailable => Then::Failed(lost()),
            Trouble::Conflict => Then::Failed(Error::Stale { doing: "test" }),
            Trouble::Overtaken => {
                self.replace_operator();
                self.run();
                send(self)
            }
            Trouble::OvertakenMidway(passes) => {
                self.resize();
                self.replace_operator();
                for _ in 0..passes {
                    self.turn();
                    let seen = self.look().expect("there is a cluster");
                    self.pass(&seen, usize::MAX);
                }
                send(self)
            }
            Trouble::Touched => {
                self.edit(|cluster| {
                    let notes = cluster.metadata.annotations.get_or_insert_default();
                    notes.insert("team".into(), "blue".into());
                });
                send(self)
            }
            Trouble::Paused => {
                self.edit(|cluster| cluster.spec.paused = true);
                send(self)
            }
            Trouble::Stalled(watch) => {
                effects.stalled = Some(Stalled {
                    watch,
                    saw: seen.clone(),
                    passes_left: STALLED_PASSES,
                });
                send(self)
            }
            Trouble::Resized => {
                self.resize();
                send(self)
            }
        }
    }

    fn resize(&mut self) {
        self.edit(|cluster| {
            cluster.spec.replicas = if cluster.spec.replicas == 3 { 5 } else { 3 };
        });
    }
}
