//! Rolling change: a changed image or pod setting reaches running members, one at a time.
//!
//! ```text
//! Rollout, for each member:  CloseBudget ▶ HandOver ▶ Restart ▶ Rejoin
//! ```
//!
//! Nothing but the pods says how far it has come: one is due when its image is not the named one, or its hash
//! is not what its own renderer's revision gives for the spec as it stands, so that a newer operator alone
//! restarts nobody. Who takes its turn is recorded before anything is done to it.
//!
//! Members that are not Ready come first, then those behind, then followers, the leader last and after a
//! hand-over. A member that serves goes down only while all other voters are alive, caught up and Ready, so a
//! bad image stops at the first. What does not run takes nothing with it: it is corrected at once, also in
//! the middle of another operation, so that a spec that was wrong can always be put right.
//!
//! A scale and the replacement of a lost voter go first: they begin as soon as the member whose turn it is has
//! come back, or is itself lost for good.
//!
//! Containers of the user's beside a member take another image without it, and in turns as well. The next turn
//! waits until they are Ready, so that a bad one stops at the first too; but only as long as an operation may
//! take, because what is wrong with them may have nothing to do with the change. Nothing else waits for them.

use std::collections::BTreeSet;

use crds::MemberId;
use crds::status::{Identity, OperationKind, Step};
use jiff::Timestamp;

use super::action::Cost;
use super::{Action, Draft, Due, Seat, Waiting, budget, membership, outdated, roster, safety};
use crate::observe::{ClientSecret, Leader, Life, Pod, Start, VolumeState};

/// Starts, moves on or ends a rollout, so that whose turn it is stands in status first.
pub fn plan(draft: &mut Draft<'_>, identity: &Identity) {
    if !identity.initialized {
        return;
    }
    if draft.is_operation(OperationKind::Rollout) {
        review(draft, identity);
    } else if draft.operation().is_none() && !is_changing(draft.leader.as_ref()) {
        match turn(draft, identity) {
            Turn::Of(member) => {
                let generation = draft.cluster.metadata.generation.unwrap_or(0);
                let id = format!("rollout-{generation}-{}", draft.now.as_millisecond());
                let members = vec![member];
                draft.begin(id, OperationKind::Rollout, Step::CloseBudget, members);
            }
            Turn::Blocked { next, by } if !by.is_empty() => {
                draft.wait(Waiting::TurnBlocked { next, by });
            }
            Turn::Blocked { .. } | Turn::Nobody => {}
        }
    }
}

/// Half-done changes and learners that nobody claims come first.
fn is_changing(leader: Option<&Leader<'_>>) -> bool {
    leader.is_some_and(|leader| {
        leader.raft.membership.is_joint() || !leader.raft.membership.learners.is_empty()
    })
}

fn review(draft: &mut Draft<'_>, identity: &Identity) {
    let current = current(draft);
    if current.is_some_and(|member| is_lost_for_good(draft, member)) {
        draft.finish();
        return;
    }
    let is_back = current.is_none_or(|member| is_back(draft, identity, member));
    if is_back && gives_way(draft, identity) {
        return;
    }
    let is_settled =
        is_back && current.is_none_or(|member| app_in_trouble(draft, member).is_none());
    match turn(draft, identity) {
        Turn::Of(member) if Some(member) == current => {}
        Turn::Of(member) => {
            let known = draft.operation().cloned();
            if let Some(known) = known {
                draft.begin(known.id, known.kind, Step::CloseBudget, vec![member]);
                if let Some(renewed) = draft.plan.progress.operation.as_mut() {
                    renewed.started_at = known.started_at;
                }
            }
        }
        Turn::Nobody if is_settled => draft.finish(),
        // Whoever is in the way, this is not about the one whose turn it was.
        Turn::Blocked { .. } if is_settled && !is_due(draft, current) => draft.finish(),
        Turn::Blocked { .. } if is_due(draft, current) => {}
        Turn::Nobody | Turn::Blocked { .. } => draft.step(Step::Rejoin),
    }
}

/// Its pod runs or ends, as far as anybody knows, and its leader has not heard from it for too long: its place
/// is given away. One whose container or pod cannot start waits for a corrected spec instead.
fn is_lost_for_good(draft: &mut Draft<'_>, member: MemberId) -> bool {
    let pod = draft.observed.pod_of(member);
    let may_run = pod.is_some_and(|pod| pod.runs() || pod.life == Life::Deleting);
    let leader = draft.leader.filter(|_| may_run);
    leader.is_some_and(|leader| draft.is_lost_for_good(&leader, member))
}

/// To a scale, because new members are made from the spec as it is and those that leave need not be changed;
/// and to the replacement of a lost voter, which would block every further turn.
fn gives_way(draft: &mut Draft<'_>, identity: &Identity) -> bool {
    let rollout = draft.plan.progress.operation.take();
    membership::plan(draft, identity);
    let gives_way = draft.operation().is_some();
    if !gives_way {
        draft.plan.progress.operation = rollout;
    }
    gives_way
}

fn current(draft: &Draft<'_>) -> Option<MemberId> {
    let operation = draft.operation()?;
    let is_ours = operation.kind == OperationKind::Rollout;
    operation.members.first().copied().filter(|_| is_ours)
}

fn is_due(draft: &Draft<'_>, member: Option<MemberId>) -> bool {
    let pod = member.and_then(|member| draft.observed.pod_of(member));
    pod.is_some_and(|pod| due_of(draft, pod).is_some())
}

fn due_of(draft: &Draft<'_>, pod: &Pod) -> Option<Due> {
    draft.wanted.due(pod).filter(|due| *due != Due::Name)
}

fn voters(draft: &Draft<'_>, identity: &Identity) -> BTreeSet<MemberId> {
    roster(identity, &draft.plan.progress, draft.leader.as_ref())
        .into_iter()
        .filter(|(_, seat)| *seat == Seat::Voter)
        .map(|(member, _)| member)
        .collect()
}

/// Serves as before; or never will again with what it has, which others must see to.
fn is_back(draft: &Draft<'_>, identity: &Identity, member: MemberId) -> bool {
    let can_start = draft.observed.volume_of(member).is_some_and(|volume| {
        volume.state != VolumeState::Retired
            && draft.is_the_one(volume)
            && (volume.life == Life::Present || draft.observed.pod_of(member).is_some())
    });
    let is_caught_up = draft
        .leader
        .is_some_and(|leader| leader.is_caught_up(member));
    !can_start
        || !voters(draft, identity).contains(&member)
        || (is_caught_up && is_ready(draft, member))
}

fn is_ready(draft: &Draft<'_>, member: MemberId) -> bool {
    draft
        .observed
        .pod_of(member)
        .is_some_and(|pod| pod.life == Life::Present && pod.runs() && pod.ready)
}

/// What the next turn waits for with the containers around this member, whose turn it was, and until when.
fn app_in_trouble(draft: &Draft<'_>, member: MemberId) -> Option<(String, Timestamp)> {
    let pod = draft.observed.pod_of(member)?;
    let trouble = pod.app.as_ref()?.trouble.clone()?;
    let until = draft.operation()?.deadline.as_ref()?.0;
    let is_waited_for = current(draft) == Some(member) && until > draft.now;
    (is_waited_for && due_of(draft, pod).is_none()).then_some((trouble, until))
}

enum Turn {
    Nobody,
    Of(MemberId),
    /// The next one, and who must be well first; nobody when it is a leader that is missing.
    Blocked {
        next: MemberId,
        by: Vec<MemberId>,
    },
}

fn turn(draft: &Draft<'_>, identity: &Identity) -> Turn {
    let voters = voters(draft, identity);
    let current = current(draft);
    let mut due: Vec<&Pod> = voters
        .iter()
        .filter_map(|voter| draft.observed.pod_of(*voter))
        .filter(|pod| due_of(draft, pod).is_some() && !is_idle(draft, pod, Seat::Voter))
        .collect();
    due.sort_by_key(|pod| {
        let leader = draft.leader;
        let is_caught_up = leader.is_some_and(|leader| leader.is_caught_up(pod.member));
        let leads = leader.is_some_and(|leader| leader.id == pod.member);
        let is_next = Some(pod.member) != current;
        let app_is_well = pod.app.as_ref().is_none_or(|app| app.trouble.is_none());
        (
            pod.ready,
            is_caught_up,
            leads,
            is_next,
            app_is_well,
            pod.member,
        )
    });
    let mut first = None;
    for pod in due {
        let Some(by) = blockers(draft, &voters, pod) else {
            return Turn::Of(pod.member);
        };
        let next = pod.member;
        first.get_or_insert(Turn::Blocked { next, by });
    }
    first.unwrap_or(Turn::Nobody)
}

/// Who keeps this member from its turn; none: it may go down.
fn blockers(draft: &Draft<'_>, voters: &BTreeSet<MemberId>, pod: &Pod) -> Option<Vec<MemberId>> {
    let others = voters.iter().copied().filter(|voter| *voter != pod.member);
    let Some(leader) = draft.leader else {
        // All run, and a majority says that nobody leads: what has not come to be Ready may be what is broken.
        let runs = |voter: MemberId| {
            let pod = draft.observed.pod_of(voter);
            pod.is_some_and(|pod| pod.life == Life::Present && pod.runs())
        };
        let by: Vec<MemberId> = others.filter(|other| !runs(*other)).collect();
        let leaderless = voters.iter().filter(|voter| is_leaderless(draft, **voter));
        let is_stuck = leaderless.count() >= safety::quorum(voters.len());
        let is_free = by.is_empty() && is_stuck && !pod.ready && is_leaderless(draft, pod.member);
        return (!is_free).then_some(by);
    };
    if leader.raft.membership.is_joint() || lacks_secret(draft) {
        return Some(Vec::new());
    }
    let is_well = |member: MemberId| {
        leader.is_caught_up(member)
            && is_ready(draft, member)
            && app_in_trouble(draft, member).is_none()
    };
    let by: Vec<MemberId> = others.filter(|other| !is_well(*other)).collect();
    (!by.is_empty()).then_some(by)
}

/// Nobody would come back without it.
fn lacks_secret(draft: &Draft<'_>) -> bool {
    let wanted = draft.cluster.spec.tls.secret_name.as_ref();
    let known = draft.observed.credentials.client_secret.as_ref();
    known.is_some_and(|(name, state)| Some(name) == wanted && *state != ClientSecret::Good)
}

/// It runs and says itself that it follows nobody. Silence says nothing.
fn is_leaderless(draft: &Draft<'_>, member: MemberId) -> bool {
    let observed = draft.observed;
    let runs = observed.pod_of(member).is_some_and(Pod::runs);
    runs && observed.report_of(member).is_some_and(|report| {
        let raft = report.raft.as_ref();
        raft.is_none_or(|raft| raft.leader.is_none())
    })
}

/// Whether changing this pod takes nothing from anybody: it does not run, or has never had a vote. The change
/// is refused when the pod or the cluster object has moved since.
fn is_idle(draft: &Draft<'_>, pod: &Pod, seat: Seat) -> bool {
    let is_alive = draft
        .leader
        .is_some_and(|leader| leader.is_alive(pod.member));
    let is_initialized = draft
        .plan
        .progress
        .identity
        .as_ref()
        .is_some_and(|identity| identity.initialized);
    let never_voted = match seat {
        // From the next step on `initialize` may have been called.
        Seat::Voter => !is_initialized && draft.is_step(Step::Format),
        // From `Promote` on it may vote.
        Seat::Joining | Seat::Learner => {
            !pod.ready
                && (draft.is_operation(OperationKind::ScaleOut)
                    || draft.is_operation(OperationKind::Replace))
                && !draft.is_step(Step::Promote)
        }
    };
    pod.start == Start::Inspect || never_voted || (!pod.runs() && !is_alive)
}

/// Puts right what does not run, and notes another name of the same image. True when the pod is about to be
/// another one.
pub fn correct(draft: &mut Draft<'_>, pod: &Pod, seat: Seat) -> bool {
    match draft.wanted.due(pod) {
        Some(Due::Name) => {
            draft.act(set_image(draft, pod, None, Cost::Nothing));
            false
        }
        Some(due) if is_idle(draft, pod, seat) => {
            draft.act(renew(draft, pod, due, Cost::Nothing));
            true
        }
        _ => false,
    }
}

/// The next step of a rollout in flight, for the member whose turn is recorded.
pub fn change(draft: &mut Draft<'_>, identity: &Identity) {
    let Some(member) = current(draft) else {
        return;
    };
    match turn(draft, identity) {
        Turn::Of(next) if next == member => restart(draft, identity, member),
        Turn::Blocked { next, by } if next == member && !by.is_empty() => {
            draft.wait(Waiting::TurnBlocked { next, by });
        }
        _ if !is_back(draft, identity, member) => draft.wait(Waiting::Rejoin { member }),
        _ => {
            if let Some((trouble, until)) = app_in_trouble(draft, member) {
                draft.wait(Waiting::App {
                    member,
                    trouble,
                    until,
                });
            }
        }
    }
    let mut left = outdated(draft.cluster, draft.observed);
    left.retain(|other| *other != member);
    if !left.is_empty() {
        draft.wait(Waiting::Turns { members: left });
    }
}

fn restart(draft: &mut Draft<'_>, identity: &Identity, member: MemberId) {
    let observed = draft.observed;
    let Some(pod) = observed.pod_of(member) else {
        return;
    };
    let Some(due) = due_of(draft, pod) else {
        return;
    };
    let voters = voters(draft, identity);
    let cost = Cost::Vote { of: voters.clone() };
    if voters.len() > 1 && due != Due::App {
        if !budget::is_closed(draft) {
            draft.step(Step::CloseBudget);
            return;
        }
        if let Some(leader) = draft.leader.filter(|leader| leader.id == member) {
            membership::hand_over(draft, &leader, &voters);
            return;
        }
    }
    draft.step(Step::Restart);
    draft.act(renew(draft, pod, due, cost));
}

fn renew(draft: &Draft<'_>, pod: &Pod, due: Due, cost: Cost) -> Action {
    match due {
        Due::Name | Due::Image => set_image(draft, pod, pod.container.clone(), cost),
        Due::App => set_app_images(draft, pod),
        Due::Template => Action::RenewPod {
            member: pod.member,
            uid: pod.uid.clone(),
            version: pod.version.clone(),
            cost,
        },
    }
}

fn set_image(draft: &Draft<'_>, pod: &Pod, replaces: Option<String>, cost: Cost) -> Action {
    Action::SetImage {
        member: pod.member,
        image: draft.wanted.image.to_owned(),
        version: pod.version.clone(),
        replaces,
        cost,
    }
}

fn set_app_images(draft: &Draft<'_>, pod: &Pod) -> Action {
    let app = pod.app.clone().unwrap_or_default();
    let mut images = draft.wanted.app_images.clone();
    images.retain(|container, image| app.images.get(container) != Some(image));
    let replaces = images.keys().filter_map(|name| app.containers.get(name));
    Action::SetAppImages {
        member: pod.member,
        version: pod.version.clone(),
        replaces: replaces.cloned().collect(),
        images,
    }
}
