//! Whatever happens on the way, a run ends where a fault-free one ends, and then writes nothing.
//!
//! Three kinds of trouble: an operator killed after every single effect of a story; random edits, crashes,
//! evictions, lost volumes and dead nodes; and two operators at once, each behind caches of which every one
//! lags by its own.
//!
//! The referee of the world fails a run that takes a voter's volume, loses a quorum, takes a voter down while
//! another one is, changes voters with an open budget or opens it during an operation. A failing seed is run
//! again, and tells what was done, with
//! `SEED=n cargo test -p taskstore-operator --test convergence -- --nocapture`; `SEEDS=n` tries more of them.

mod world;

use crds::cluster::VolumePolicy;
use crds::{MemberId, TaskStoreCluster};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use operator::observe::{Life, Observed, PodPhase, VolumeState};
use operator::resources::{pod, sidecar};
use world::World;

/// The choices of a run, from its seed.
struct Dice(fastrand::Rng);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

fn started(size: i32) -> World {
    let mut world = World::new();
    world.create(size, VolumePolicy::Retain, VolumePolicy::Retain);
    world
}

/// The story, with the operator killed once after `effects` effects of pass `pass`.
fn killed_at(story: fn(&mut World), pass: usize, effects: usize) -> (Vec<String>, bool) {
    let mut world = started(3);
    world.run();
    story(&mut world);
    let mut is_hit = false;
    for number in 0..60 {
        world.turn();
        let Some(seen) = world.look() else { continue };
        let max = if number == pass { effects } else { usize::MAX };
        let done = world.pass(&seen, max);
        is_hit |= number == pass && done.len() == effects;
        if number == pass {
            world.replace_operator();
        }
    }
    world.run();
    // A new operator counts anew for how long a member was lost.
    world.tick(300);
    world.run();
    (world.summary(), is_hit)
}

fn survives_every_kill(story: fn(&mut World)) {
    let (expected, _) = killed_at(story, usize::MAX, 0);
    let mut kills = 0;
    for pass in 0..30 {
        for effects in 0..12 {
            let (ended, is_hit) = killed_at(story, pass, effects);
            assert_eq!(
                ended, expected,
                "killed after {effects} effects of pass {pass}"
            );
            kills += usize::from(is_hit);
            if !is_hit {
                break;
            }
        }
    }
    assert!(kills > 10, "the story has effects to be killed at: {kills}");
}

#[test]
fn a_bootstrap_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        let mut fresh = started(3);
        std::mem::swap(world, &mut fresh);
    });
}

#[test]
fn a_scale_out_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| world.edit(|cluster| cluster.spec.replicas = 5));
}

#[test]
fn a_scale_in_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.edit(|cluster| cluster.spec.replicas = 5);
        world.run();
        world.edit(|cluster| cluster.spec.replicas = 3);
    });
}

#[test]
fn a_replacement_of_a_lost_volume_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.lose_volume(MemberId::new(1, 2));
        world.run();
        world.tick(300);
    });
}

#[test]
fn a_replacement_of_a_leader_on_a_dead_node_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.kill_node("n1");
        world.run();
        world.tick(300);
    });
}

#[test]
fn a_replacement_of_a_leader_that_still_votes_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.label_volume(MemberId::new(1, 1), VolumeState::Retired);
        world.run();
        world.tick(300);
    });
}

/// Killed after every effect of a replacement, and then the lost member comes back: it keeps its place, or it
/// has lost it for good, and there are three that vote and one volume each.
#[test]
fn a_member_that_comes_back_at_any_moment_of_its_replacement_leaves_three_voters() {
    let mut kept = 0;
    let mut given = 0;
    for pass in 0..16 {
        for effects in 0..6 {
            let mut world = started(3);
            world.run();
            world.kill_node("n2");
            world.run();
            world.tick(300);
            for number in 0..=pass {
                world.turn();
                let seen = world.look().expect("there is a cluster");
                world.pass(&seen, if number == pass { effects } else { usize::MAX });
            }
            world.replace_operator();
            world.revive_node("n2");
            world.run();
            let voters = &world.raft.config.as_ref().expect("it is there").voters;
            assert_eq!(voters.len(), 3);
            let is_kept = voters.contains(&MemberId::new(1, 2));
            kept += usize::from(is_kept);
            given += usize::from(!is_kept);
            let in_use = world.objects.volumes.values();
            let in_use = in_use.filter(|volume| volume.state != VolumeState::Retired);
            assert_eq!(in_use.count(), 3, "killed after {effects} of {pass}");
            assert_eq!(world.objects.pods.len(), 3);
            assert_eq!(world.waits(), Vec::<String>::new());
        }
    }
    assert!(kept > 10 && given > 10, "kept {kept}, given {given}");
}

#[test]
fn an_adoption_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.delete_cluster();
        world.run();
        world.create(3, VolumePolicy::Retain, VolumePolicy::Retain);
    });
}

#[test]
fn a_changed_image_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| world.edit(|cluster| cluster.spec.image = image(2)));
}

#[test]
fn changed_resources_killed_at_every_effect_end_the_same() {
    survives_every_kill(|world| world.edit(|cluster| set_cpu(cluster, "2")));
}

#[test]
fn a_template_given_and_then_changed_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.set_template("app:1", "work");
        world.run();
        world.set_template("app:2", "work");
        world.edit(|cluster| cluster.spec.image = image(2));
    });
}

#[test]
fn a_scale_out_in_the_middle_of_a_rollout_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.edit(|cluster| set_cpu(cluster, "2"));
        for _ in 0..5 {
            world.turn();
            let seen = world.look().expect("there is a cluster");
            world.pass(&seen, usize::MAX);
        }
        world.edit(|cluster| cluster.spec.replicas = 5);
    });
}

/// The bad one reaches the first member, and the good one the rest.
#[test]
fn a_corrected_image_killed_at_every_effect_ends_the_same() {
    survives_every_kill(|world| {
        world.edit(|cluster| cluster.spec.image = Some("bad:1".into()));
        world.run();
        world.edit(|cluster| cluster.spec.image = image(2));
    });
}

fn image(version: usize) -> Option<String> {
    Some(format!("taskstore:{version}"))
}

fn set_cpu(cluster: &mut TaskStoreCluster, cpus: &str) {
    let cpu = Quantity(cpus.to_owned());
    cluster.spec.resources.requests.insert("cpu".into(), cpu);
}

/// Killed after every effect of a bootstrap, and then a founder's volume goes: the world's referee fails a
/// run that makes or formats one for a member that has a seat.
#[test]
fn a_founder_whose_volume_goes_at_any_moment_never_votes_on_a_new_one() {
    let founder = MemberId::new(1, 2);
    let mut lost = 0;
    for pass in 0..16 {
        for effects in 0..12 {
            let mut world = started(3);
            for number in 0..=pass {
                world.turn();
                let seen = world.look().expect("there is a cluster");
                world.pass(&seen, if number == pass { effects } else { usize::MAX });
            }
            world.replace_operator();
            world.lose_volume(founder);
            world.run();
            let is_missed = world.waits().iter().any(|wait| wait.contains("m2 is gone"));
            assert!(
                is_missed || world.raft.config.is_some(),
                "killed after {effects} effects of pass {pass}: {:#?}",
                world.waits()
            );
            lost += usize::from(is_missed);
        }
    }
    assert!(lost > 10, "it was lost when it counted: {lost}");
}

fn trouble(world: &mut World, dice: &mut Dice) {
    let members: Vec<MemberId> = world.objects.pods.values().map(|pod| pod.member).collect();
    let voters: Vec<MemberId> = world
        .raft
        .config
        .iter()
        .flat_map(|config| config.voters.clone())
        .collect();
    let pick = |dice: &mut Dice, from: &[MemberId]| {
        (!from.is_empty()).then(|| from[dice.below(from.len())])
    };
    match dice.below(18) {
        0 => {
            let size = [1, 3, 5, 7][dice.below(4)];
            if world.cluster.is_some() {
                world.edit(|cluster| cluster.spec.replicas = size);
            }
        }
        1 => {
            if let Some(member) = pick(dice, &members) {
                world.pod_mut(member).life = Life::Deleting;
            }
        }
        2 => {
            if let Some(member) = pick(dice, &members) {
                world.pod_mut(member).phase = PodPhase::Ended;
            }
        }
        3 | 4 => {
            if let Some(member) = pick(dice, &members) {
                evict_fairly(world, member);
            }
        }
        5 => {
            if let Some(member) = pick(dice, &voters) {
                world.raft.slow.insert(member);
            }
        }
        6 => world.raft.slow.clear(),
        7 => world.tick(7),
        8 => world.tick(61),
        9 | 10 => {
            if let Some(member) = pick(dice, &voters) {
                lose_fairly(world, member);
            }
        }
        11 => {
            if world.dead.is_empty() {
                kill_fairly(world, world::NODES[dice.below(world::NODES.len())].0);
            } else {
                let node = world.dead[0].clone();
                world.revive_node(&node);
            }
        }
        12 => {
            let wanted = match dice.below(4) {
                0 => None,
                3 => Some("bad:1".into()),
                version => image(version),
            };
            if world.cluster.is_some() {
                world.edit(|cluster| cluster.spec.image = wanted);
            }
        }
        13 => {
            // The last is more than any node has.
            let cpus = ["100m", "1", "1000"][dice.below(3)];
            if world.cluster.is_some() {
                world.edit(|cluster| set_cpu(cluster, cpus));
            }
        }
        14 => lose_majority(world, dice),
        15 => acknowledge(world),
        16 => {
            // Apps that are nowhere or end again and again, other images and other pods, and none.
            let image = ["app:1", "app:2", "bad:1", "crashing:1"][dice.below(4)];
            let command = ["work", "more"][dice.below(2)];
            match dice.below(4) {
                _ if world.cluster.is_none() => {}
                0 => world.edit(|cluster| cluster.spec.template = None),
                _ => world.set_template(image, command),
            }
        }
        _ => {
            world.replace_operator();
        }
    }
}

/// Whatever its users have left is enough for them.
fn lose_majority(world: &mut World, dice: &mut Dice) {
    if !all_are_up(world) {
        return;
    }
    let config = world.raft.config.as_ref().expect("all of them are up");
    let mut voters: Vec<MemberId> = config.voters.iter().copied().collect();
    let lost = voters.len() / 2 + 1;
    for _ in 0..lost {
        let member = voters.swap_remove(dice.below(voters.len()));
        world.lose_volume(member);
    }
}

/// A user who is quick to acknowledge, and accepts whatever is not confirmed.
fn acknowledge(world: &mut World) {
    let status = world
        .cluster
        .as_ref()
        .and_then(|known| known.status.clone());
    let offer = status.and_then(|status| status.recovery);
    if offer.is_some_and(|offer| offer.nonce.is_some()) {
        let all = world.objects.pods.values().map(|pod| pod.member).collect();
        world.edit(|cluster| cluster.spec.recovery.accept_unconfirmed = all);
        world.acknowledge();
    }
}

/// So that a quorum is left, which nobody else could bring back; one voter has nobody.
fn lose_fairly(world: &mut World, member: MemberId) {
    let is_on_dead_node = world
        .objects
        .pod_of(member)
        .and_then(|pod| pod.node.as_ref())
        .is_some_and(|node| world.dead.contains(node));
    if all_are_up(world) && !is_on_dead_node {
        world.lose_volume(member);
    }
}

/// The same; of a node with two voters both would be lost at once.
fn kill_fairly(world: &mut World, node: &str) {
    let Some(config) = &world.raft.config else {
        return;
    };
    let is_there = |member: &&MemberId| {
        let volume = world.objects.volume_of(**member);
        let disk = volume.and_then(|volume| world.disks.get(&volume.uid));
        disk.is_some_and(|disk| disk.node.as_deref() == Some(node))
    };
    let voters = config.voters.iter().filter(is_there).count();
    if all_are_up(world) && voters <= 1 {
        world.kill_node(node);
    }
}

/// The referee only judges evictions while nothing else has taken a voter down; one replica has no budget.
fn evict_fairly(world: &mut World, member: MemberId) {
    if all_are_up(world) {
        world.evict(member);
    }
}

fn all_are_up(world: &World) -> bool {
    world.raft.config.as_ref().is_some_and(|config| {
        config.voters.len() > 1
            && config.voters.iter().all(|voter| {
                world.objects.pod_of(*voter).is_some_and(|pod| {
                    pod.life == Life::Present && pod.phase == PodPhase::Running && pod.ready
                }) && world.serves(*voter)
            })
    })
}

fn all_voters_serve(world: &World) -> bool {
    let config = world.raft.config.as_ref().expect("it was initialized");
    config.voters.iter().all(|voter| world.serves(*voter))
}

type View = (TaskStoreCluster, Observed);

/// One operator's caches: how far each kind has come. A watch stalls now and then, by itself and for a
/// while, and never goes back.
#[derive(Clone, Copy, Default)]
struct Caches {
    kinds: [Watch; 7],
}

#[derive(Clone, Copy, Default)]
struct Watch {
    seen: usize,
    is_stalled: bool,
}

impl Caches {
    /// What its operator sees when the world is at the last of `views`.
    fn look(&mut self, views: &[View], dice: &mut Dice) -> View {
        let newest = views.len() - 1;
        for watch in &mut self.kinds {
            watch.is_stalled = if watch.is_stalled {
                !dice.one_in(8)
            } else {
                dice.one_in(16)
            };
            if !watch.is_stalled {
                watch.seen = newest;
            }
        }
        let [cluster, volumes, pods, budget, members, services, accounts] =
            self.kinds.map(|watch| &views[watch.seen]);
        let mut seen = views[newest].1.clone();
        let status = cluster.0.status.as_ref();
        // Without a recorded identity volumes and pods are listed anew.
        if status.is_some_and(|status| status.identity.is_some()) {
            seen.volumes.clone_from(&volumes.1.volumes);
            seen.pods.clone_from(&pods.1.pods);
        }
        seen.budget.clone_from(&budget.1.budget);
        seen.members.clone_from(&members.1.members);
        seen.client_service.clone_from(&services.1.client_service);
        seen.peer_service.clone_from(&services.1.peer_service);
        seen.account.clone_from(&accounts.1.account);
        (cluster.0.clone(), seen)
    }
}

/// Answers how many replacements began, and how many incarnations there were.
fn random_run(seed: u64) -> (usize, usize) {
    let mut dice = Dice(fastrand::Rng::with_seed(seed));
    let mut world = started(3);
    world.edit(|cluster| {
        cluster.spec.replacement.after = "10s".into();
        cluster.spec.replacement.max_per_hour = 10;
    });
    let mut views = Vec::new();
    let mut operators = [Caches::default(); 2];
    let mut earlier = None;
    let is_alone = std::env::var_os("SEED").is_some();
    for _ in 0..120 {
        if dice.one_in(6) {
            trouble(&mut world, &mut dice);
        }
        if !dice.one_in(4) {
            world.turn();
        }
        let Some(now) = world.look() else { continue };
        views.push(now);
        let operator = usize::from(dice.one_in(4));
        let mut seen = operators[operator].look(&views, &mut dice);
        if dice.one_in(8) {
            // It thought for long about what it saw.
            seen = earlier.clone().unwrap_or(seen);
        } else {
            earlier = Some(seen.clone());
        }
        let effects_max = if dice.one_in(5) {
            dice.below(4)
        } else {
            usize::MAX
        };
        let done = world.pass(&seen, effects_max);
        if is_alone {
            println!(
                "operator {operator}: {done:?}; raft {:?}",
                world.raft.config
            );
        }
    }
    world.raft.slow.clear();
    if dice.one_in(2) {
        // The other half has to do without that node for good.
        for node in world.dead.clone() {
            world.revive_node(&node);
        }
    }
    // What nothing can be made of is put right in the end.
    world.edit(|cluster| {
        let wanted = cluster.spec.image.clone();
        cluster.spec.image = wanted.filter(|wanted| !wanted.starts_with("bad"));
        set_cpu(cluster, "1");
    });
    world.tick(60);
    world.run();
    world.tick(60);
    world.run();
    // As many as the hour allows, then the rest.
    for _ in 0..10 {
        world.tick(660);
        world.run();
        acknowledge(&mut world);
    }
    world.run();
    let wanted = world
        .cluster
        .as_ref()
        .map_or(0, |cluster| cluster.spec.replicas as usize);
    let config = world.raft.config.clone().expect("it was initialized");
    assert_eq!(
        config.voters.len(),
        wanted,
        "seed {seed}: {:#?} {:#?}",
        world.summary(),
        world.waits()
    );
    let words = format!("{:#?} {:#?}", world.summary(), world.waits());
    assert!(
        config.learners.is_empty() && config.outgoing.is_empty(),
        "seed {seed}: {config:?} {words}"
    );
    let present = |pod: &&operator::observe::Pod| pod.life == Life::Present;
    assert_eq!(
        world.objects.pods.values().filter(present).count(),
        wanted,
        "seed {seed}: pods of voters and no others: {words}"
    );
    let is_alone = config.voters.len() == 1;
    assert!(
        all_voters_serve(&world) || (is_alone && !world.dead.is_empty()),
        "seed {seed}: every voter is healthy: {words}"
    );
    let seen = world.look().expect("there is a cluster");
    let revision = pod::RENDERER_REVISION;
    for pod in seen.1.pods.values().filter(present) {
        let hash = pod::template_hash(&seen.0, revision);
        assert_eq!(
            Some(&pod.template_hash),
            hash.as_ref(),
            "seed {seed}: {words}"
        );
        assert_eq!(pod.named_image, seen.0.spec.image, "seed {seed}: {words}");
        let app = sidecar::App::of(&seen.0).map(|app| app.images());
        let named = pod.app.as_ref().map(|app| app.images.clone());
        assert_eq!(named, app, "seed {seed}: {words}");
        let image = pod::image(&seen.0, &seen.1.default_image);
        assert_eq!(pod.image, image, "seed {seed}: {words}");
    }
    let before = seen.0.metadata.resource_version.clone();
    assert_eq!(
        world.pass(&seen, usize::MAX),
        Vec::<String>::new(),
        "seed {seed}: at rest"
    );
    assert_eq!(
        world.look().expect("still").0.metadata.resource_version,
        before,
        "seed {seed}: at rest"
    );
    let incarnation = config.voters.first().map_or(1, |voter| voter.incarnation());
    (world.replacements.len(), usize::from(incarnation))
}

#[test]
fn random_trouble_and_a_second_operator_end_in_the_wanted_size_at_rest() {
    if let Ok(seed) = std::env::var("SEED") {
        random_run(seed.parse().expect("SEED is a number"));
        return;
    }
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(200);
    let (mut replaced, mut recovered) = (0, 0);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| random_run(seed));
        let (replacements, incarnations) = outcome.unwrap_or_else(|panic| {
            eprintln!(
                "SEED={seed} cargo test -p taskstore-operator --test convergence -- --nocapture"
            );
            std::panic::resume_unwind(panic)
        });
        replaced += replacements;
        recovered += incarnations - 1;
    }
    eprintln!("{replaced} were replaced, {recovered} majorities lost");
    assert!(replaced as u64 > seeds / 4, "only {replaced} were replaced");
    assert!(recovered as u64 > seeds / 8, "only {recovered} recoveries");
}
