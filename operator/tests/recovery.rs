//! A majority that is lost: what is offered, what voids it, and that a recovery leads to a whole store again
//! whatever was under way when the majority went.

mod world;

use std::collections::BTreeMap;

use crds::MemberId;
use crds::status::{LogId, OperationKind, RecoveryOffer, Step};
use operator::observe::{Life, PeerHealth, VolumeState};
use operator::plan::{Action, plan};
use world::{World, m};

/// All but `left` run on nodes without power.
fn without_majority(size: i32, left: &[MemberId]) -> World {
    let mut world = World::at_rest(size);
    cut(&mut world, left);
    world.run();
    world
}

fn cut(world: &mut World, left: &[MemberId]) {
    for disk in world.disks.values_mut() {
        disk.is_off = disk.member.is_some_and(|member| !left.contains(&member));
    }
}

fn wait_for_offer(world: &mut World) {
    world.run();
    world.tick(60);
    world.run();
}

fn offer(world: &World) -> Option<RecoveryOffer> {
    let cluster = world.cluster.as_ref().expect("there is a cluster");
    cluster.status.clone().unwrap_or_default().recovery
}

fn operation(world: &World) -> Option<(OperationKind, Step)> {
    let cluster = world.cluster.as_ref().expect("there is a cluster");
    let operation = cluster.status.clone().unwrap_or_default().operation;
    operation.map(|known| (known.kind, known.step))
}

/// One pass, after Kubernetes and Raft had their turn.
fn pass(world: &mut World) -> Vec<String> {
    world.turn();
    let seen = world.look().expect("there is a cluster");
    world.pass(&seen, usize::MAX)
}

/// Acknowledged and recorded, with every pod still there.
fn about_to_stop(size: i32, left: &[MemberId]) -> World {
    let mut world = without_majority(size, left);
    wait_for_offer(&mut world);
    world.acknowledge();
    pass(&mut world);
    assert_eq!(
        operation(&world),
        Some((OperationKind::Recover, Step::StopMembers))
    );
    world
}

fn set_log(world: &mut World, member: MemberId, term: u64, index: u64) {
    let mut disks = world.disks.values_mut();
    let disk = disks.find(|disk| disk.member == Some(member));
    let known = disk.and_then(|disk| disk.known.as_mut());
    known.expect("it has a configuration").log_id = LogId { term, index };
}

#[test]
fn nothing_is_offered_before_a_restart_would_be_over() {
    let mut world = without_majority(3, &[m(1)]);
    let first = offer(&world).expect("the loss is noted");
    assert_eq!((first.nonce, first.source), (None, None));
    let seen = world.look().expect("there is a cluster");
    let wake_at = plan(&seen.0, &seen.1, world.now).wake_at;
    assert_eq!(
        wake_at.map(|at| at.duration_since(world.now).as_secs()),
        Some(30)
    );
    world.tick(30);
    world.run();
    let then = offer(&world).expect("it is offered");
    assert_eq!(then.since, first.since);
    assert_eq!((then.source, then.missing), (Some(m(1)), vec![m(2), m(3)]));
}

#[test]
fn a_quorum_that_answers_without_a_leader_is_no_lost_majority() {
    let mut world = without_majority(5, &[m(1), m(2), m(3)]);
    wait_for_offer(&mut world);
    world.raft.leader = None;
    let seen = world.look().expect("there is a cluster");
    assert_eq!(plan(&seen.0, &seen.1, world.now).progress.recovery, None);
}

#[test]
fn the_furthest_survivor_is_of_the_highest_term_first() {
    let mut world = without_majority(5, &[m(2), m(4)]);
    set_log(&mut world, m(2), 1, 900);
    set_log(&mut world, m(4), 2, 40);
    wait_for_offer(&mut world);
    let by_term = offer(&world).expect("it is offered");
    assert_eq!(by_term.source, Some(m(4)));
    let bound = by_term.loss_bound.expect("it says what is lost");
    assert!(bound.contains("ends at 2.40: only m1,m3,m5"), "{bound}");

    set_log(&mut world, m(2), 2, 41);
    world.run();
    let by_index = offer(&world).expect("it is offered");
    assert_eq!(by_index.source, Some(m(2)));
    assert_ne!(
        by_index.nonce, by_term.nonce,
        "other log ends, another nonce"
    );
}

#[test]
fn a_cut_off_leader_is_a_survivor_like_any_other() {
    let mut world = without_majority(3, &[m(1)]);
    wait_for_offer(&mut world);
    let nonce = offer(&world).and_then(|offer| offer.nonce);
    let (cluster, mut observed) = world.look().expect("there is a cluster");
    let report = observed.members.get_mut(&m(1)).expect("it answers");
    let raft = report
        .report
        .as_mut()
        .and_then(|report| report.raft.as_mut());
    let raft = raft.expect("it runs");
    raft.leads = true;
    let silent = operator::observe::Peer {
        health: PeerHealth::Unreachable,
        ready: false,
    };
    raft.peers = BTreeMap::from([(m(2), silent), (m(3), silent)]);
    let planned = plan(&cluster, &observed, world.now);
    assert_eq!(
        planned.progress.recovery.and_then(|offer| offer.nonce),
        nonce
    );
}

#[test]
fn a_damaged_member_is_no_survivor() {
    let mut world = without_majority(5, &[m(1), m(2)]);
    let mut disks = world.disks.values_mut();
    let disk = disks.find(|disk| disk.member == Some(m(1)));
    disk.expect("it has a disk").damage = Some("a frame is bad".into());
    wait_for_offer(&mut world);
    let offer = offer(&world).expect("it is offered");
    assert_eq!(offer.source, Some(m(2)));
    assert_eq!(offer.missing, [1, 3, 4, 5].map(m).to_vec());
}

#[test]
fn a_majority_that_is_back_before_the_first_pod_goes_keeps_its_store() {
    let mut world = about_to_stop(3, &[m(1)]);
    cut(&mut world, &[m(1), m(2), m(3)]);
    let done = world.run();
    assert!(
        !done.iter().any(|line| line.contains("MajorityLost")),
        "{done:#?}"
    );
    assert_eq!((operation(&world), offer(&world)), (None, None));
    assert_eq!(world.raft.config.map(|config| config.voters.len()), Some(3));
}

/// Somebody took the pod of a survivor away, and not we.
#[test]
fn another_member_that_is_back_before_the_first_pod_goes_voids_the_nonce_whoever_lacks_a_pod() {
    let mut world = about_to_stop(5, &[m(1), m(2)]);
    world.pod_mut(m(2)).life = Life::Deleting;
    cut(&mut world, &[m(1), m(3)]);
    let done = world.run();
    assert!(
        !done.iter().any(|line| line.contains("MajorityLost")),
        "{done:#?}"
    );
}

#[test]
fn survivors_that_moved_before_the_first_pod_goes_void_the_nonce() {
    let mut world = about_to_stop(5, &[m(1), m(2)]);
    set_log(&mut world, m(2), 3, 77);
    let done = world.run();
    assert!(
        !done.iter().any(|line| line.contains("MajorityLost")),
        "{done:#?}"
    );
    assert_eq!(operation(&world), None);
    assert!(
        world.waits()[0].contains("is about another situation"),
        "{:#?}",
        world.waits()
    );
}

#[test]
fn survivors_are_asked_again_right_before_the_first_pod_goes() {
    let mut world = about_to_stop(3, &[m(1)]);
    let seen = world.look().expect("there is a cluster");
    let actions = world.think(&seen).actions;
    let first = actions.iter().position(
        |action| matches!(action, Action::ConfirmLoss { survivors } if survivors.len() == 1),
    );
    let deleted = actions
        .iter()
        .position(|action| matches!(action, Action::DeletePod { .. }));
    assert!(first.is_some() && first < deleted, "{actions:#?}");
    // What it decided on is over by then.
    set_log(&mut world, m(1), 3, 77);
    let done = world.pass(&seen, usize::MAX);
    assert!(
        done.last().expect("it tried").contains("refused"),
        "{done:#?}"
    );
    assert_eq!(world.objects.pods.len(), 3);
}

#[test]
fn who_leads_the_lost_incarnation_is_not_believed_and_gets_no_pod_again() {
    let mut world = World::at_rest(3);
    let stale = world.look().expect("there is a cluster");
    for number in [2, 3] {
        world.lose_volume(m(number));
    }
    wait_for_offer(&mut world);
    world.acknowledge();
    world.run();
    let (cluster, observed) = world.look().expect("there is a cluster");
    let mut deceived = observed.clone();
    let earlier = stale.1.members.get(&m(1)).expect("it led").clone();
    deceived.members.insert(m(1), earlier);
    assert_eq!(
        plan(&cluster, &deceived, world.now),
        plan(&cluster, &observed, world.now)
    );
    // An operator that has slept through it makes nobody's pod again.
    let mut slept = stale;
    slept.1.pods.clear();
    let done = world.pass(&slept, usize::MAX);
    assert!(
        done.iter().all(|line| !line.starts_with("create pod")),
        "{done:#?}"
    );
    assert_eq!(world.objects.pods.len(), 3);
}

#[test]
fn a_volume_of_another_cluster_of_this_name_is_left_alone() {
    let mut world = World::at_rest(3);
    let mut foreign = world.objects.volume_of(m(1)).expect("a volume").clone();
    foreign.name = "demo-1-9".into();
    foreign.member = m(9);
    foreign.uid = "another".into();
    foreign.cluster_id = "another".into();
    world.objects.volumes.insert(foreign.name.clone(), foreign);
    for number in [2, 3] {
        world.lose_volume(m(number));
    }
    wait_for_offer(&mut world);
    world.acknowledge();
    world.run();
    let state = |world: &World, name: &str| world.objects.volumes[name].state;
    assert_eq!(state(&world, "demo-1-9"), VolumeState::Formatted);
    let voters = &world.raft.config.as_ref().expect("it serves").voters;
    assert_eq!(voters.len(), 3);
    assert!(voters.iter().all(|voter| voter.number() > 9), "{voters:?}");
}

/// As long as the first may fail, nothing else is given up.
#[test]
fn other_survivors_keep_their_volumes_until_the_first_is_rewritten() {
    let mut world = without_majority(5, &[m(1), m(2)]);
    wait_for_offer(&mut world);
    world.acknowledge();
    let all = (1..=5).map(m).collect();
    world.edit(|cluster| cluster.spec.recovery.accept_unconfirmed = all);
    for _ in 0..40 {
        pass(&mut world);
        let is_rewritten = world
            .disks
            .values()
            .any(|disk| disk.member.is_some_and(|member| member.incarnation() == 2));
        let second = world.objects.volume_of(m(2)).expect("it stays").state;
        if is_rewritten {
            world.run();
            let second = world.objects.volume_of(m(2)).expect("it stays").state;
            assert_eq!(second, VolumeState::Retired);
            return;
        }
        assert_eq!(second, VolumeState::Formatted);
    }
    panic!("it is never rewritten: {:#?}", world.waits());
}

/// The majority goes at every moment of every change; whoever is left is enough.
#[test]
fn a_majority_lost_in_the_middle_of_any_change_ends_in_a_whole_store() {
    let changes: [fn(&mut World); 4] = [
        |world| world.edit(|cluster| cluster.spec.replicas = 5),
        |world| world.edit(|cluster| cluster.spec.replicas = 1),
        |world| world.edit(|cluster| cluster.spec.image = Some("taskstore:2".into())),
        |world| {
            world.lose_volume(m(2));
            world.run();
            world.tick(600);
        },
    ];
    let mut recovered = 0;
    for (number, change) in changes.into_iter().enumerate() {
        for passes in 0..20 {
            let mut world = World::at_rest(3);
            change(&mut world);
            for _ in 0..passes {
                pass(&mut world);
            }
            let size = world.cluster.as_ref().map(|cluster| cluster.spec.replicas);
            let config = world.raft.config.clone().expect("it is there");
            let all: Vec<MemberId> = config.voters.iter().copied().collect();
            for member in &all[..all.len() / 2 + 1] {
                if world.objects.volume_of(*member).is_some() && all.len() > 1 {
                    world.lose_volume(*member);
                }
            }
            wait_for_offer(&mut world);
            world.acknowledge();
            world.run();
            for _ in 0..3 {
                world.tick(3_700);
                world.run();
            }
            let at = format!("change {number} after {passes} passes");
            let voters = world.raft.config.clone().expect("it is there").voters;
            assert_eq!(i32::try_from(voters.len()).ok(), size, "{at}");
            assert!(voters.iter().all(|voter| world.serves(*voter)), "{at}");
            assert_eq!(operation(&world), None, "{at}: {:#?}", world.waits());
            let in_use = world.objects.volumes.values();
            let in_use = in_use.filter(|volume| volume.state != VolumeState::Retired);
            assert_eq!(in_use.count(), voters.len(), "{at}");
            recovered += u32::from(voters.iter().all(|voter| voter.incarnation() == 2));
        }
    }
    assert!(recovered > 40, "only {recovered} had lost a majority");
}
