//! The first voter set: every volume stamped, then `initialize` once with the whole recorded set.

use crds::MemberId;
use crds::status::{Identity, OperationKind, Step};

use super::{Action, Draft, Waiting};
use crate::observe::{Phase, VolumeState};

pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    if identity.initialized {
        let begins = [
            OperationKind::Bootstrap,
            OperationKind::Adopt,
            OperationKind::Recover,
            OperationKind::Restore,
        ];
        if begins.into_iter().any(|kind| draft.is_operation(kind)) {
            end(draft);
        }
        return;
    }
    let founders = &identity.founders;
    let is_initialized = founders.iter().any(|founder| {
        draft
            .observed
            .report_of(*founder)
            .is_some_and(|report| report.initialized)
    });
    if is_initialized {
        if let Some(recorded) = draft.plan.progress.identity.as_mut() {
            recorded.initialized = true;
        }
        draft.wait(Waiting::Initialized);
        return;
    }
    let ready = stamp(draft, founders);
    if ready {
        draft.step(Step::Initialize);
        if let Some(first) = founders.first() {
            draft.act(Action::Initialize {
                on: *first,
                voters: founders.clone(),
            });
        }
    }
}

/// A bootstrap, an adoption, a recovery or a restore is over when a leader leads a uniform configuration.
fn end(draft: &mut Draft<'_>) {
    match draft.leader {
        Some(leader) if !leader.raft.membership.is_joint() => {
            draft.plan.progress.recovery = None;
            draft.finish();
        }
        _ => draft.wait(Waiting::Leader),
    }
}

/// Brings blank volumes to stamped and labelled ones. True when all of them are, on disks that hold
/// nothing else, and every one of their members says so right now.
pub fn stamp(draft: &mut Draft<'_>, members: &[MemberId]) -> bool {
    let observed = draft.observed;
    let mut all = true;
    let mut unheard = Vec::new();
    for member in members {
        let Some(volume) = observed.volume_of(*member) else {
            all = false;
            continue;
        };
        let Some(report) = observed.report_of(*member) else {
            unheard.push(*member);
            all = false;
            continue;
        };
        if !draft.is_the_one(volume) {
            // Missed by healing.
            all = false;
            continue;
        }
        let is_labelled = volume.state != VolumeState::Unformatted;
        match report.phase {
            // From then on any of them may have voted.
            Phase::Blank if is_labelled || draft.is_step(Step::Initialize) => {
                draft.wait(Waiting::VolumeLost { member: *member });
                all = false;
            }
            Phase::Blank => {
                draft.act(Action::Format {
                    member: *member,
                    volume_uid: volume.uid.clone(),
                });
                all = false;
            }
            Phase::Damaged => {
                draft.wait(Waiting::Damaged {
                    member: *member,
                    what: report.damage.clone(),
                });
                all = false;
            }
            Phase::Empty | Phase::Recovering | Phase::Serving
                if report.volume_uid == volume.uid =>
            {
                if !is_labelled {
                    draft.act(Action::MarkFormatted {
                        member: *member,
                        version: volume.version.clone(),
                    });
                    all = false;
                }
            }
            Phase::Starting => {
                unheard.push(*member);
                all = false;
            }
            _ => all = false,
        }
    }
    if !unheard.is_empty() {
        draft.wait(Waiting::Reports { members: unheard });
    }
    all
}
