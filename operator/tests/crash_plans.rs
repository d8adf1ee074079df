//! Every story with one trouble at every one of its effects: each run ends where the story ends without any,
//! and then writes nothing.
//!
//! All of them and not a sample. The last line sums up; a failed run is named with the story, the effect and
//! the trouble, and `ONLY="scale 3 to 5" cargo test -p taskstore-operator --test crash_plans` runs one story.

mod world;

use std::collections::BTreeSet;
use std::io::Write;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use crds::MemberId;
use crds::cluster::{OnDrain, VolumePolicy};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use operator::observe::{Life, PodPhase, VolumeState};
use world::World;
use world::trouble::{Effects, TROUBLES, Trouble};

/// A cluster at rest, and what happens to it.
struct Story {
    name: &'static str,
    /// Members at first; 0 for a cluster that is not yet there.
    from: i32,
    happens: fn(&mut World),
}

fn resize<const TO: i32>(world: &mut World) {
    world.edit(|cluster| cluster.spec.replicas = TO);
}

fn create<const SIZE: i32>(world: &mut World) {
    world.create(SIZE, VolumePolicy::Retain, VolumePolicy::Delete);
}

fn restore<const SIZE: i32>(world: &mut World) {
    world.create_restored(SIZE);
}

/// Somebody has put the volumes of an earlier cluster of this name aside.
fn restore_beside(world: &mut World) {
    world.delete_cluster();
    world.run();
    for volume in world.objects.volumes.values_mut() {
        volume.state = VolumeState::Retired;
    }
    world.raft = world::Raft::default();
    world.create_restored(3);
}

/// Each pod in turn has ended or is on its way out.
fn lose_pods(world: &mut World) {
    world.tick(60);
    for (number, pod) in world.objects.pods.values_mut().enumerate() {
        match number % 2 {
            0 => pod.phase = PodPhase::Ended,
            _ => pod.life = Life::Deleting,
        }
    }
}

fn delete_and_create(world: &mut World) {
    let size = world
        .cluster
        .as_ref()
        .map_or(3, |cluster| cluster.spec.replicas);
    world.delete_cluster();
    world.run();
    world.create(size, VolumePolicy::Retain, VolumePolicy::Delete);
}

fn hibernate(world: &mut World) {
    world.edit(|cluster| cluster.spec.hibernated = true);
}

fn hibernate_and_wake(world: &mut World) {
    hibernate(world);
    world.run();
    world.edit(|cluster| cluster.spec.hibernated = false);
}

/// Long enough ago that its place is given away at once.
fn lose_volume(world: &mut World) {
    world.lose_volume(MemberId::new(1, 2));
    world.run();
    world.tick(600);
}

fn lose_volume_of_leader(world: &mut World) {
    let leader = world.raft.leader.expect("it serves");
    world.lose_volume(leader);
    world.run();
    world.tick(600);
}

/// Its volume stays behind, and its user does not want to wait for the node.
fn drain(world: &mut World) {
    world.edit(|cluster| cluster.spec.replacement.on_drain = OnDrain::Replace);
    world.cordoned.push("n2".into());
    world.evict(MemberId::new(1, 2));
}

fn grow(world: &mut World) {
    world.edit(|cluster| cluster.spec.storage.size = Quantity("20Gi".into()));
}

fn fence(world: &mut World) {
    let leader = world.raft.leader.expect("it serves");
    world.edit(|cluster| cluster.spec.fenced = vec![leader]);
}

fn lose_node(world: &mut World) {
    world.kill_node("n2");
    world.run();
    world.tick(600);
}

/// Their disks are gone for good, and the user lets the store go on from who is left.
fn lose_majority(world: &mut World) {
    for number in [2, 3, 4] {
        world.lose_volume(MemberId::new(1, number));
    }
    acknowledge(world);
}

/// Nobody confirms the end of their pods either, and the user accepts that.
fn lose_majority_of_nodes(world: &mut World) {
    for number in [2, 3] {
        let node = world.pod_mut(MemberId::new(1, number)).node.clone();
        world.kill_node(&node.expect("it runs somewhere"));
    }
    world.edit(|cluster| {
        let accepted = [2, 3].map(|number| MemberId::new(1, number));
        cluster.spec.recovery.accept_unconfirmed = accepted.to_vec();
    });
    acknowledge(world);
}

fn acknowledge(world: &mut World) {
    world.run();
    world.tick(60);
    world.run();
    world.acknowledge();
}

fn change_image(world: &mut World) {
    world.edit(|cluster| cluster.spec.image = Some("taskstore:2".into()));
}

fn change_resources(world: &mut World) {
    world.edit(|cluster| {
        let cpu = ("cpu".to_owned(), Quantity("1".into()));
        cluster.spec.resources.requests.extend([cpu]);
    });
}

fn correct_image(world: &mut World) {
    world.edit(|cluster| cluster.spec.image = Some("bad:1".into()));
    world.run();
    change_image(world);
}

fn change_and_resize(world: &mut World) {
    change_resources(world);
    resize::<5>(world);
}

fn give_template(world: &mut World) {
    world.set_template("app:1", "work");
}

fn change_app_image(world: &mut World) {
    give_template(world);
    world.run();
    world.set_template("app:2", "work");
}

/// The bad one stops at the first member.
fn correct_app_image(world: &mut World) {
    give_template(world);
    world.run();
    world.set_template("bad:1", "work");
    world.run();
    world.set_template("app:2", "work");
}

/// While the app of every member ends again and again.
fn change_image_beside_broken_app(world: &mut World) {
    world.set_template("crashing:1", "work");
    outlast(world);
    change_image(world);
}

fn take_template(world: &mut World) {
    give_template(world);
    world.run();
    world.edit(|cluster| cluster.spec.template = None);
}

fn lose_status(world: &mut World) {
    world.edit(|cluster| cluster.status = None);
}

fn lose_status_and_pods(world: &mut World) {
    lose_status(world);
    lose_pods(world);
}

fn keep_volumes_no_longer(world: &mut World) {
    world.edit(|cluster| {
        cluster.spec.storage.when_deleted = VolumePolicy::Delete;
        cluster.spec.replicas = 3;
    });
}

/// An hour before noon, and then an hour after.
fn schedule_backup(world: &mut World) {
    world.back_up(|policy| policy.schedule = Some("0 12 * * *".into()));
    world.run();
    world.tick(7_200);
}

fn back_up_by_hand(world: &mut World) {
    world.back_up(|policy| policy.log_shipping = false);
    world.create_backup("by-hand");
}

fn lose_member_in_backup(world: &mut World) {
    back_up_by_hand(world);
    let member = world.until_under_way();
    world.pod_mut(member).life = Life::Deleting;
}

fn lose_operator_in_backup(world: &mut World) {
    back_up_by_hand(world);
    world.until_under_way();
    world.replace_operator();
}

/// Nobody may write there, until somebody may; the next one finds out.
fn correct_destination(world: &mut World) {
    world.bucket.lacks = Some("write".into());
    back_up_by_hand(world);
    outlast(world);
    world.bucket.lacks = None;
    world.tick(1);
    world.create_backup("later");
}

/// Two of three go, and one of them is read by a restore.
fn keep_one_backup(world: &mut World) {
    for name in ["one", "two"] {
        back_up_by_hand(world);
        world.create_backup(name);
        world.run();
        world.tick(60);
    }
    world.objects.backups.in_use.insert("one".into());
    world.back_up(|policy| policy.keep.count = 1);
    world.create_backup("three");
}

fn back_up_no_more(world: &mut World) {
    world.back_up(|_| {});
    world.run();
    world.edit(|cluster| cluster.spec.backup = None);
}

fn resize_and_back(world: &mut World) {
    resize::<5>(world);
    for _ in 0..6 {
        world.turn();
        let seen = world.look().expect("there is a cluster");
        world.pass(&seen, usize::MAX);
    }
    resize::<3>(world);
}

#[rustfmt::skip]
const STORIES: [Story; 46] = [
    Story { name: "create 1", from: 0, happens: create::<1> },
    Story { name: "create 3", from: 0, happens: create::<3> },
    Story { name: "create 5", from: 0, happens: create::<5> },
    Story { name: "restore 1", from: 0, happens: restore::<1> },
    Story { name: "restore 3", from: 0, happens: restore::<3> },
    Story { name: "restore beside a retired volume", from: 3, happens: restore_beside },
    Story { name: "scale 1 to 3", from: 1, happens: resize::<3> },
    Story { name: "scale 3 to 5", from: 3, happens: resize::<5> },
    Story { name: "scale 5 to 7", from: 5, happens: resize::<7> },
    Story { name: "scale 1 to 7", from: 1, happens: resize::<7> },
    Story { name: "scale 7 to 3", from: 7, happens: resize::<3> },
    Story { name: "scale 5 to 3", from: 5, happens: resize::<3> },
    Story { name: "scale 3 to 1", from: 3, happens: resize::<1> },
    Story { name: "scale out taken back", from: 3, happens: resize_and_back },
    Story { name: "pods lost", from: 3, happens: lose_pods },
    Story { name: "deleted and created", from: 3, happens: delete_and_create },
    Story { name: "status lost", from: 3, happens: lose_status },
    Story { name: "status and pods lost", from: 3, happens: lose_status_and_pods },
    Story { name: "hibernated", from: 3, happens: hibernate },
    Story { name: "woken", from: 3, happens: hibernate_and_wake },
    Story { name: "volume lost", from: 3, happens: lose_volume },
    Story { name: "volume of the leader lost", from: 5, happens: lose_volume_of_leader },
    Story { name: "node lost", from: 3, happens: lose_node },
    Story { name: "leader fenced", from: 3, happens: fence },
    Story { name: "volumes grown", from: 3, happens: grow },
    Story { name: "node drained", from: 3, happens: drain },
    Story { name: "majority lost of 3", from: 3, happens: lose_majority },
    Story { name: "majority lost of 5", from: 5, happens: lose_majority },
    Story { name: "majority of nodes lost", from: 3, happens: lose_majority_of_nodes },
    Story { name: "image changed", from: 3, happens: change_image },
    Story { name: "image put right", from: 3, happens: correct_image },
    Story { name: "resources changed", from: 3, happens: change_resources },
    Story { name: "resources and size changed", from: 3, happens: change_and_resize },
    Story { name: "template given", from: 3, happens: give_template },
    Story { name: "app image changed", from: 3, happens: change_app_image },
    Story { name: "app image put right", from: 3, happens: correct_app_image },
    Story { name: "image changed beside a broken app", from: 3, happens: change_image_beside_broken_app },
    Story { name: "template taken away", from: 3, happens: take_template },
    Story { name: "backup scheduled", from: 3, happens: schedule_backup },
    Story { name: "backup by hand", from: 3, happens: back_up_by_hand },
    Story { name: "member lost in a backup", from: 3, happens: lose_member_in_backup },
    Story { name: "operator lost in a backup", from: 3, happens: lose_operator_in_backup },
    Story { name: "destination put right", from: 3, happens: correct_destination },
    Story { name: "backups kept no longer", from: 3, happens: keep_one_backup },
    Story { name: "backed up no more", from: 3, happens: back_up_no_more },
    Story { name: "volumes kept no longer", from: 5, happens: keep_volumes_no_longer },
];

impl Story {
    /// The world right after what happens.
    fn begin(&self) -> World {
        let mut world = World::new();
        if self.from > 0 {
            world.create(self.from, VolumePolicy::Retain, VolumePolicy::Delete);
            world.run();
        }
        (self.happens)(&mut world);
        world
    }

    /// Without any trouble: how many effects it takes, and how it ends.
    fn told(&self) -> (usize, World) {
        let mut world = self.begin();
        let mut effects = Effects::without_trouble();
        settle(&mut world, &mut effects);
        let count = effects.done;
        outlast(&mut world);
        (count, world)
    }

    fn with(&self, at: usize, trouble: Trouble, ends: &World) {
        let mut world = self.begin();
        let size = ends.cluster.as_ref().expect("a cluster").spec.replicas;
        let mut effects = Effects::with(trouble, at);
        settle(&mut world, &mut effects);
        assert_eq!(effects.at, None, "the trouble has come");
        match trouble {
            Trouble::Paused => world.edit(|cluster| cluster.spec.paused = false),
            Trouble::Resized | Trouble::OvertakenMidway(_) => {
                world.edit(|cluster| cluster.spec.replicas = size);
            }
            _ => {}
        }
        outlast(&mut world);
        // Members that came and went have used up their numbers.
        let (ended, expected) = match trouble {
            Trouble::Resized | Trouble::OvertakenMidway(_) => (world.shape(), ends.shape()),
            _ => (world.summary(), ends.summary()),
        };
        assert_eq!(ended, expected);
        assert_eq!(templates(&world), templates(ends));
        let before = world.look();
        for _ in 0..3 {
            world.tick(600);
            let mut effects = Effects::without_trouble();
            turn_and_pass(&mut world, &mut effects);
            assert_eq!(effects.done, 0, "it writes at rest");
        }
        assert_eq!(world.look(), before, "the world is at rest");
    }
}

/// Images and template of the pods: one of each, once a change has reached all.
fn templates(world: &World) -> BTreeSet<(String, String, String)> {
    let pods = world.objects.pods.values();
    let present = pods.filter(|pod| pod.life == Life::Present);
    present
        .map(|pod| {
            let app = pod.app.as_ref().map(|app| &app.images);
            let images = format!("{app:?}");
            (pod.image.clone(), pod.template_hash.clone(), images)
        })
        .collect()
}

/// True when anything moved.
fn turn_and_pass(world: &mut World, effects: &mut Effects) -> bool {
    let (moved, before) = (world.turn(), effects.done);
    let Some(seen) = world.look() else {
        return moved;
    };
    world.troubled_pass(seen, effects);
    moved || effects.done > before || effects.is_stalled()
}

/// Time for what waits for time alone: a new operator counts anew for how long a member is lost, and what
/// was taken back counts to the limit of an hour.
fn outlast(world: &mut World) {
    for _ in 0..3 {
        settle(world, &mut Effects::without_trouble());
        world.tick(3_700);
    }
    settle(world, &mut Effects::without_trouble());
}

fn settle(world: &mut World, effects: &mut Effects) {
    for _ in 0..300 {
        if !turn_and_pass(world, effects) {
            return;
        }
    }
    panic!(
        "nothing settles: {:#?} {:#?}",
        world.summary(),
        world.waits()
    );
}

#[test]
fn every_story_survives_every_trouble_at_every_effect() {
    let only = std::env::var("ONLY").ok();
    let stories: Vec<&Story> = STORIES
        .iter()
        .filter(|story| only.as_deref().is_none_or(|only| only == story.name))
        .collect();
    let told: Vec<(usize, World)> = stories.iter().map(|story| story.told()).collect();
    let plans: Vec<(usize, usize, Trouble)> = told
        .iter()
        .enumerate()
        .flat_map(|(story, (effects, _))| {
            (0..*effects).flat_map(move |at| TROUBLES.map(|trouble| (story, at, trouble)))
        })
        .collect();
    let (next, run) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some((story, at, trouble)) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (story, (_, ends)) = (stories[*story], &told[*story]);
            let outcome = catch_unwind(AssertUnwindSafe(|| story.with(*at, *trouble, ends)));
            run.fetch_add(1, Ordering::Relaxed);
            if outcome.is_err() {
                let words = format!("{}: {trouble:?} at effect {at}", story.name);
                failed.lock().expect("nothing panics with it").push(words);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    let run = run.into_inner();
    let failed = failed.into_inner().expect("nothing panics with it");
    let effects: usize = told.iter().map(|(effects, _)| effects).sum();
    let line = format!(
        "crash plans: scenarios={} effects={effects} run={run} possible={} failed={}\n",
        stories.len(),
        plans.len(),
        failed.len()
    );
    // Not through the test's own output, which is shown only when it fails.
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("somebody may read it");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(only.is_some() || run >= 2_000, "only {run} runs");
}
