//! What `kubectl taskstore` prints, over the model world.

mod world;

use operator::plugin;
use taskstore_api::v1;
use world::{World, m};

fn planned(world: &World) -> String {
    let (cluster, observed) = world.look().expect("there is a cluster");
    let plan = world.think(&(cluster.clone(), observed));
    plugin::plan::words(&cluster, &plan)
}

#[test]
fn a_plan_says_what_is_recorded_done_and_waited_for() {
    let mut world = World::at_rest(3);
    let rest = planned(&world);
    assert!(rest.contains("would do nothing"), "{rest}");

    world.edit(|cluster| cluster.spec.replicas = 5);
    let next = planned(&world);
    let (record, act) = next.split_once("Then, ").expect(&next);
    assert!(
        record.contains("operation: ScaleOut, step Reserve, since "),
        "{next}"
    );
    assert!(
        act.contains("reserve 2 members at m1\n    safe: the same operation gets the same numbers"),
        "{next}"
    );

    world.edit(|cluster| cluster.spec.paused = true);
    let paused = planned(&world);
    assert!(
        paused.starts_with("It waits:\n  PausedBySpec: ") && !paused.contains("safe"),
        "{paused}"
    );
}

#[test]
fn a_status_shows_who_leads_and_how_far_the_others_are_behind() {
    let world = World::at_rest(3);
    let (cluster, _) = world.look().expect("there is a cluster");
    let raft = v1::RaftStatus {
        term: 4,
        last_log_index: 90,
        committed_index: 88,
        peers: vec![
            peer(2, v1::PeerHealth::CaughtUp, 8),
            peer(3, v1::PeerHealth::Unreachable, 64),
        ],
        ..v1::RaftStatus::default()
    };
    let told = plugin::status::words(&cluster, "shop/demo", &Ok((m(1), raft)));
    let line = |start: &str| {
        let found = told.lines().find(|line| line.starts_with(start));
        found
            .expect(&told)
            .split("  ")
            .last()
            .map(str::trim)
            .unwrap_or_default()
    };
    assert!(
        told.starts_with("shop/demo: 3 of 3 voters Ready, 3 wanted\n"),
        "{told}"
    );
    assert_eq!(
        (line("m1 "), line("m2 "), line("m3 ")),
        ("0", "≤8", "unreachable"),
        "{told}"
    );
    assert!(
        told.contains("Voter, leads") && told.contains("No operation is in flight."),
        "{told}"
    );
    assert!(
        told.contains("m1 leads in term 4; its log ends at 90, committed are 88"),
        "{told}"
    );

    let unknown = plugin::status::words(&cluster, "shop/demo", &Err(anyhow::anyhow!("forbidden")));
    assert!(unknown.contains("is not known: forbidden"), "{unknown}");
}

fn peer(number: u32, health: v1::PeerHealth, lag_entries: u64) -> v1::PeerStatus {
    v1::PeerStatus {
        member_id: m(number).0,
        health: health.into(),
        lag_entries,
        ready: true,
    }
}
