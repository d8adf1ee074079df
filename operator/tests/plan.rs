//! Single decisions, on whole plans.

mod world;

use crds::ConditionType;
use crds::cluster::VolumePolicy;
use crds::conditions::get;
use crds::status::{OperationKind, Step};
use jiff::SignedDuration;
use operator::observe::{Life, PeerHealth, Phase, PodPhase};
use operator::plan::action::{Guard, PodEnd};
use operator::plan::{Action, Plan, Progress, Waiting, Wanted, outdated};
use world::{World, m};

/// The plan without what every plan carries: progress as recorded, and the next look at certificates.
fn decided(world: &World) -> (Vec<Action>, Vec<Waiting>) {
    let seen = world.look().expect("there is a cluster");
    let Plan {
        progress,
        actions,
        waiting,
        ..
    } = world.think(&seen);
    assert_eq!(
        progress,
        Progress::recorded(&seen.0),
        "nothing is to be recorded first"
    );
    (actions, waiting)
}

/// Passes until the world has taken up the change and only `last` is left to do.
fn until(world: &mut World, is_last: impl Fn(&Action) -> bool) -> Action {
    for _ in 0..60 {
        world.turn();
        let seen = world.look().expect("there is a cluster");
        let plan = world.think(&seen);
        if !plan.must_record(&seen.0)
            && let Some(found) = plan.actions.iter().find(|action| is_last(action))
        {
            return found.clone();
        }
        world.pass(&seen, usize::MAX);
    }
    panic!("it never came to it: {:#?}", world.waits());
}

#[test]
fn a_cluster_at_rest_has_nothing_to_do() {
    assert_eq!(decided(&World::at_rest(3)), (vec![], vec![]));
}

#[test]
fn a_founder_that_has_not_looked_at_its_volume_yet_is_not_taken_for_stamped() {
    let mut world = World::new();
    world.create(3, VolumePolicy::Retain, VolumePolicy::Retain);
    until(&mut world, |action| matches!(action, Action::Format { .. }));
    let mut seen = world.look().expect("there is a cluster");
    let uid = seen.1.volume_of(m(1)).expect("a volume").uid.clone();
    let known = seen
        .1
        .members
        .get_mut(&m(1))
        .and_then(|known| known.report.as_mut());
    let report = known.expect("it reports");
    (report.phase, report.volume_uid) = (Phase::Starting, uid);
    let plan = world.think(&seen);
    assert!(
        !plan.actions.iter().any(|action| matches!(
            action,
            Action::MarkFormatted { member, .. } | Action::Format { member, .. } if *member == m(1)
        )),
        "{:?}",
        plan.actions
    );
    let members = vec![m(1)];
    assert!(plan.waiting.contains(&Waiting::Reports { members }));
}

#[test]
fn a_learner_is_promoted_only_after_it_has_caught_up() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.replicas = 5);
    world.raft.slow.insert(m(5));
    world.run();
    assert_eq!(
        decided(&world),
        (
            vec![],
            vec![Waiting::CatchUp {
                members: vec![m(5)]
            }]
        )
    );

    world.raft.slow.clear();
    let config = world.raft.config.clone().unwrap();
    let promotion = until(&mut world, |action| {
        matches!(action, Action::SetVoters { .. })
    });
    assert_eq!(
        promotion,
        Action::SetVoters {
            leader: m(1),
            voters: (1..=5).map(m).collect(),
            guard: Guard {
                term: world.raft.term,
                log_id: config.log_id
            },
        }
    );
}

#[test]
fn a_failed_pod_is_deleted_by_uid_and_the_budget_closed_before_it() {
    let mut world = World::at_rest(3);
    world.tick(60);
    world.pod_mut(m(2)).phase = PodPhase::Ended;
    let uid = world.pod_mut(m(2)).uid.clone();
    let version = world
        .objects
        .budget
        .as_ref()
        .unwrap()
        .object
        .version
        .clone();
    assert_eq!(
        decided(&world),
        (
            vec![
                Action::SetBudget {
                    min_available: 3,
                    version
                },
                Action::DeletePod {
                    member: m(2),
                    uid,
                    why: PodEnd::Ended
                },
            ],
            vec![
                Waiting::VotersDown {
                    members: vec![m(2)]
                },
                Waiting::ReplacementPause {
                    member: m(2),
                    at: world.now + SignedDuration::from_mins(5)
                },
            ],
        )
    );
}

#[test]
fn a_replacement_that_lost_its_leader_half_way_through_the_change_is_finished_by_the_next() {
    let mut world = World::at_rest(3);
    world.lose_volume(m(2));
    world.run();
    world.tick(300);
    until(&mut world, |action| {
        matches!(action, Action::SetVoters { .. })
    });
    let mut half_way = world.raft.config.clone().unwrap();
    half_way.outgoing = std::mem::replace(&mut half_way.voters, [m(1), m(3), m(4)].into());
    half_way.learners.clear();
    world.raft.commit(half_way);
    world.raft.leader = Some(m(3));
    world.raft.term += 1;
    world.raft.spread(&world.objects, &mut world.disks);

    let transcript = world.run();
    assert!(
        transcript
            .iter()
            .any(|line| line.starts_with("set voters m1,m3,m4 at ")),
        "{transcript:#?}"
    );
    let config = world.raft.config.clone().unwrap();
    assert_eq!(config.voters, [m(1), m(3), m(4)].into());
    assert!(!config.is_joint());
    assert_eq!(decided(&world), (vec![], vec![]));
}

/// What runs after the leader has said this of a voter for an hour.
fn after_an_hour_of(health: PeerHealth) -> Option<OperationKind> {
    let mut world = World::at_rest(3);
    for _ in 0..2 {
        let mut seen = world.look().expect("there is a cluster");
        let leader = seen.1.members.get_mut(&m(1)).expect("it leads");
        let raft = leader
            .report
            .as_mut()
            .and_then(|report| report.raft.as_mut());
        let peers = &mut raft.expect("it has a configuration").peers;
        peers.get_mut(&m(2)).expect("it is a peer").health = health;
        world.pass(&seen, usize::MAX);
        world.tick(3600);
    }
    let status = world.cluster.and_then(|cluster| cluster.status);
    Some(status?.operation?.kind)
}

#[test]
fn a_voter_is_replaced_when_its_leader_cannot_reach_it_and_not_when_it_does_not_know() {
    assert_eq!(
        after_an_hour_of(PeerHealth::Unreachable),
        Some(OperationKind::Replace)
    );
    for health in [
        PeerHealth::Unknown,
        PeerHealth::Lagging,
        PeerHealth::CaughtUp,
    ] {
        assert_eq!(after_an_hour_of(health), None, "{health:?}");
    }
}

#[test]
fn without_a_leader_nobody_is_lost_and_the_time_begins_anew_with_its_word() {
    let mut world = World::at_rest(3);
    world.kill_node("n2");
    world.run();
    world.tick(200);
    world.kill_node("n3");
    world.run();
    world.tick(3600);
    world.run();
    let is_lost = |world: &World| {
        let cluster = world.cluster.as_ref().expect("there is one");
        let members = &cluster.status.as_ref().expect("it has one").members;
        members.iter().any(|member| member.lost_since.is_some())
    };
    assert!(!is_lost(&world));

    world.revive_node("n3");
    world.run();
    assert!(is_lost(&world));
    let seen = world.look().expect("there is a cluster");
    let plan = world.think(&seen);
    assert_eq!(plan.progress.operation, None);
    assert_eq!(plan.wake_at, Some(world.now + SignedDuration::from_mins(5)));
    world.tick(300);
    let seen = world.look().expect("there is a cluster");
    let operation = world.think(&seen).progress.operation;
    let operation = operation.expect("its time is up");
    assert_eq!(
        (operation.kind, operation.replaces),
        (OperationKind::Replace, Some(m(2)))
    );
}

#[test]
fn the_unhealthy_leave_first_in_a_scale_in() {
    let mut world = World::at_rest(5);
    // Their nodes are drained for good.
    for member in [m(1), m(2)] {
        let node = world.pod_mut(member).node.clone().unwrap();
        world.cordoned.push(node);
        world.pod_mut(member).life = Life::Deleting;
    }
    world.run();
    world.edit(|cluster| cluster.spec.replicas = 3);
    let seen = world.look().unwrap();
    let operation = world.think(&seen).progress.operation.expect("it begins");
    assert_eq!(
        operation.members,
        vec![m(1), m(2)],
        "the unhealthy go first"
    );
}

#[test]
fn the_youngest_of_the_most_crowded_zone_goes_first() {
    let mut world = World::at_rest(5);
    // n1 and n4 are in zone a: m1, m4 and m5 run there, m2 in b, m3 in c.
    let zones: Vec<_> = (1..=5)
        .map(|n| world.pod_mut(m(n)).zone.clone().unwrap())
        .collect();
    assert_eq!(zones, ["a", "b", "c", "a", "a"]);
    world.edit(|cluster| cluster.spec.replicas = 3);
    let seen = world.look().unwrap();
    assert_eq!(
        world
            .think(&seen)
            .progress
            .operation
            .expect("it begins")
            .members,
        vec![m(4), m(5)]
    );
}

#[test]
fn voters_are_not_set_while_an_eviction_that_was_granted_is_under_way() {
    let mut world = World::at_rest(5);
    world.edit(|cluster| cluster.spec.replicas = 3);
    until(&mut world, |action| {
        matches!(action, Action::SetVoters { .. })
    });
    world.objects.budget.as_mut().unwrap().disrupted = 1;
    let (actions, waiting) = decided_step(&world);
    assert_eq!((actions, waiting), (vec![], vec![Waiting::Evictions]));
}

/// Like `decided`, where only the step of the operation may differ from what is recorded.
fn decided_step(world: &World) -> (Vec<Action>, Vec<Waiting>) {
    let seen = world.look().expect("there is a cluster");
    let plan = world.think(&seen);
    (plan.actions, plan.waiting)
}

#[test]
fn a_leader_that_reaches_no_quorum_is_not_believed() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.replicas = 1);
    let mut seen = world.look().unwrap();
    let leader = world.raft.leader.unwrap();
    let report = seen
        .1
        .members
        .get_mut(&leader)
        .unwrap()
        .report
        .as_mut()
        .unwrap();
    for peer in report.raft.as_mut().unwrap().peers.values_mut() {
        peer.health = PeerHealth::Unreachable;
    }
    let plan = world.think(&seen);
    assert_eq!(
        plan.progress,
        Progress::recorded(&seen.0),
        "no operation begins"
    );
    assert_eq!(plan.waiting, vec![Waiting::Leader]);
}

#[test]
fn a_deposed_leader_with_an_older_configuration_retires_nothing() {
    let mut world = World::at_rest(3);
    let before = world.observe();
    world.edit(|cluster| cluster.spec.replicas = 5);
    world.run();
    // Its old words reach an operator that already knows the newer configuration from status.
    let mut seen = world.look().unwrap();
    seen.1.members = before.members;
    let plan = world.think(&seen);
    let retires = plan
        .actions
        .iter()
        .any(|action| matches!(action, Action::RetireVolume { .. }));
    assert!(!retires, "{:?}", plan.actions);
}

#[test]
fn an_empty_status_is_not_taken_for_a_new_cluster_while_nobody_leads() {
    let mut world = World::at_rest(3);
    for number in 1..=3 {
        world.pod_mut(m(number)).life = Life::Deleting;
    }
    world.raft.leader = None;
    world.edit(|cluster| cluster.status = None);
    let mut seen = world.look().unwrap();
    for pod in seen.1.pods.values_mut() {
        pod.life = Life::Present;
    }
    let plan = world.think(&seen);
    assert_eq!(plan.progress.identity, None);
    assert_eq!(plan.waiting, vec![Waiting::LostStatusWithoutLeader]);
}

#[test]
fn a_budget_that_was_opened_behind_the_cache_stops_a_change_of_voters() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.replicas = 5);
    let promotion = until(&mut world, |action| {
        matches!(action, Action::SetVoters { .. })
    });
    let seen = world.look().expect("there is a cluster");
    world.objects.budget.as_mut().unwrap().min_available = 2;
    world.turn();
    assert_eq!(
        world.effect(&seen, &promotion),
        Err(world::Refused("the budget is open"))
    );
}

#[test]
fn a_budget_stays_closed_while_its_status_counts_a_member_that_left() {
    let mut world = World::at_rest(3);
    let budget = world.objects.budget.as_mut().unwrap();
    (budget.min_available, budget.healthy) = (5, 5);
    assert_eq!(decided(&world), (vec![], vec![Waiting::Budget]));

    let budget = world.objects.budget.as_mut().unwrap();
    budget.healthy = 3;
    let version = budget.object.version.clone();
    assert_eq!(
        decided(&world).0,
        vec![Action::SetBudget {
            min_available: 2,
            version
        }]
    );
}

#[test]
fn an_operation_wakes_the_operator_when_it_becomes_overdue() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.replicas = 5);
    world.raft.slow.insert(m(5));
    world.run();
    let seen = world.look().expect("there is a cluster");
    let status = seen.0.status.clone().unwrap();
    let deadline = status.operation.unwrap().deadline.unwrap().0;
    assert_eq!(world.think(&seen).wake_at, Some(deadline));

    world.now = deadline;
    world.run();
    let status = world.look().expect("still").0.status.unwrap();
    let progressing = get(&status.conditions, ConditionType::Progressing).unwrap();
    assert_eq!(progressing.reason, "OperationOverdue");
}

#[test]
fn a_scale_out_that_is_taken_back_looks_for_learners_that_were_just_ordered() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.replicas = 5);
    let order = until(&mut world, |action| {
        matches!(action, Action::AddLearners { .. })
    });
    let before = world.look().expect("there is a cluster");
    world.effect(&before, &order).unwrap();
    world.edit(|cluster| cluster.spec.replicas = 3);
    // What the leader says is older than what it did.
    let mut seen = world.look().expect("still");
    seen.1.members = before.1.members;
    let plan = world.think(&seen);
    assert!(plan.progress.operation.is_some(), "it is not over");

    world.run();
    assert_eq!(world.raft.config.clone().unwrap().learners, [].into());
}

#[test]
fn a_learner_that_was_let_go_is_not_added_again_under_its_id() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.replicas = 5);
    world.raft.slow.insert(m(5));
    world.run();
    world.edit(|cluster| cluster.spec.replicas = 3);
    let removal = until(&mut world, |action| {
        matches!(action, Action::RemoveLearners { .. })
    });
    let seen = world.look().expect("there is a cluster");
    world.effect(&seen, &removal).unwrap();
    world.edit(|cluster| cluster.spec.replicas = 5);
    world.run();
    let voters = world.raft.config.clone().unwrap().voters;
    assert_eq!(voters, [1, 2, 3, 6, 7].map(m).into());
}

fn is_change(action: &Action) -> bool {
    matches!(action, Action::SetImage { .. } | Action::RenewPod { .. })
}

#[test]
fn a_newer_renderer_alone_makes_no_pod_outdated() {
    let mut world = World::at_rest(3);
    for number in 1..=3 {
        let pod = world.pod_mut(m(number));
        pod.renderer_revision += 1;
        pod.template_hash = "rendered otherwise".into();
    }
    world.objects.default_image = "taskstore:2".into();
    assert_eq!(decided(&world), (vec![], vec![]));
    let (cluster, observed) = world.look().unwrap();
    let wanted = Wanted::of(&cluster, &observed);
    assert!(observed.pods.values().all(|pod| wanted.due(pod).is_none()));
    // While one of the revision that this operator renders is told apart.
    world.pod_mut(m(2)).renderer_revision -= 1;
    let (cluster, observed) = world.look().unwrap();
    assert_eq!(outdated(&cluster, &observed), vec![m(2)]);
}

#[test]
fn a_member_takes_its_turn_only_when_that_is_recorded_and_the_budget_closed() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.image = Some("taskstore:2".into()));
    let seen = world.look().unwrap();
    let operation = world.think(&seen).progress.operation.expect("it begins");
    assert_eq!(
        (operation.kind, operation.step, operation.members),
        (OperationKind::Rollout, Step::CloseBudget, vec![m(2)])
    );
    world.pass(&seen, usize::MAX);
    let (actions, waiting) = decided_step(&world);
    assert!(!actions.iter().any(is_change), "{actions:?}");
    assert!(waiting.contains(&Waiting::Budget), "{waiting:?}");
}

#[test]
fn nobody_takes_a_turn_while_the_container_before_still_has_the_old_image() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.image = Some("taskstore:2".into()));
    let change = until(&mut world, is_change);
    let seen = world.look().unwrap();
    world.effect(&seen, &change).unwrap();
    // The kubelet has not moved yet: the old container runs on, and is alive by Raft.
    let leader = world.raft.leader.unwrap();
    assert!(world.observe().members[&leader].report.is_some());
    let (actions, waiting) = decided_step(&world);
    assert!(!actions.iter().any(is_change), "{actions:?}");
    assert!(
        waiting.contains(&Waiting::Rejoin { member: m(2) }),
        "{waiting:?}"
    );
}

#[test]
fn a_member_that_hangs_is_changed_although_nobody_leads() {
    let mut world = World::at_rest(1);
    world.edit(|cluster| cluster.spec.image = Some("taskstore:2".into()));
    world.pod_mut(m(1)).ready = false;
    world.raft.leader = None;
    let mut seen = world.look().unwrap();
    let wanted = world.think(&seen).progress.operation;
    assert_eq!(wanted.map(|operation| operation.members), Some(vec![m(1)]));
    // Silence says nothing: it may well lead.
    seen.1.members.clear();
    assert_eq!(world.think(&seen).progress.operation, None);
}

#[test]
fn a_leader_hands_over_to_a_caught_up_member_before_its_turn() {
    let mut world = World::at_rest(3);
    world.edit(|cluster| cluster.spec.image = Some("taskstore:2".into()));
    let change = until(&mut world, |action| {
        matches!(action, Action::TransferLeader { .. })
    });
    let term = world.raft.term;
    let to = m(2);
    assert_eq!(
        change,
        Action::TransferLeader {
            leader: m(1),
            to,
            term
        }
    );
    // Nobody could take over: it stays, and it is said.
    world.raft.slow.extend([m(2), m(3)]);
    let (actions, waiting) = decided_step(&world);
    assert!(!actions.iter().any(is_change), "{actions:?}");
    let blocked = Waiting::TurnBlocked {
        next: m(1),
        by: vec![m(2), m(3)],
    };
    assert!(waiting.contains(&blocked), "{waiting:?}");
}
