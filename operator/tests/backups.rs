//! Decisions about backups, one at a time: what a schedule asks for, what goes when, and what people read.

mod world;

use std::collections::BTreeSet;

use crds::backup::{BackupPhase, TaskStoreBackupStatus};
use crds::conditions::get;
use crds::destination::{Destination, Lineage};
use crds::status::LogId;
use crds::{ConditionType, TaskStoreClusterStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::observe::backups::{Failure, Heard, Pruned, Shipped, Writing};
use operator::plan::Action;
use world::World;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A cluster whose destination is accepted and whose log is shipped, with a backup every day at noon.
fn backed_up() -> World {
    let mut world = World::at_rest(3);
    world.back_up(|policy| policy.schedule = Some("0 12 * * *".into()));
    world.run();
    world
}

fn actions(world: &World) -> Vec<String> {
    let seen = world.look().expect("there is a cluster");
    let plan = world.think(&seen);
    plan.actions.iter().map(Action::to_string).collect()
}

fn status(world: &World) -> TaskStoreClusterStatus {
    let cluster = world.cluster.as_ref().expect("there is a cluster");
    cluster.status.clone().expect("it was reported")
}

fn ready(world: &World) -> (String, String, String) {
    let conditions = status(world).conditions;
    let ready = get(&conditions, ConditionType::BackupReady).expect("it is said");
    (
        ready.status.clone(),
        ready.reason.clone(),
        ready.message.clone(),
    )
}

#[test]
fn a_run_is_asked_for_once_whatever_was_missed() {
    let rows = [
        // now, what happens before, what is created
        ("2026-11-18T11:59:59Z", "", ""),
        ("2026-11-18T12:00:00Z", "", "demo-i1-202611181200"),
        ("2026-11-30T18:00:00Z", "", "demo-i1-202611301200"),
        ("2026-11-18T12:00:00Z", "suspended", ""),
        ("2026-11-18T12:00:00Z", "another is open", ""),
        ("2026-11-18T12:00:00Z", "the destination is another", ""),
        // The object of this run is there, and status does not say so yet.
        ("2026-11-18T12:00:00Z", "it was created", ""),
    ];
    for (now, before, expected) in rows {
        let mut world = backed_up();
        world.now = at(now);
        match before {
            "suspended" => world.back_up(|policy| policy.suspend = true),
            "another is open" => world.create_backup("by-hand"),
            "the destination is another" => {
                world.back_up(|policy| policy.destination.url = "s3://other".into());
            }
            "it was created" => world.create_backup("demo-i1-202611181200"),
            _ => {}
        }
        let created: Vec<String> = actions(&world)
            .into_iter()
            .filter(|action| action.starts_with("create backup"))
            .collect();
        let wanted = match expected {
            "" => vec![],
            name => vec![format!("create backup {name}")],
        };
        assert_eq!(created, wanted, "{now} {before}");
    }
}

#[test]
fn the_next_run_is_when_the_operator_wakes() {
    let mut world = backed_up();
    let wake = |world: &World| world.think(&world.look().expect("one")).wake_at;
    assert_eq!(wake(&world), Some(at("2026-11-18T12:00:00Z")));
    world.back_up(|policy| {
        policy.schedule = Some("0 13 * * *".into());
        policy.time_zone = "Europe/Berlin".into();
    });
    assert_eq!(wake(&world), Some(at("2026-11-18T12:00:00Z")));
    world.back_up(|policy| policy.suspend = true);
    assert!(
        wake(&world) > Some(at("2026-11-19T00:00:00Z")),
        "for certificates"
    );
}

#[test]
fn an_object_goes_only_after_its_data_and_only_where_the_order_looked() {
    let lineage = |world: &World| Lineage {
        cluster_id: status(world).identity.expect("it began").cluster_id,
        incarnation: 1,
    };
    // The backup in question: what is other about it, and whether it goes.
    let rows = [
        ("", true),
        ("completed after the order", false),
        ("of another store", false),
        ("at another destination", false),
        ("failed", false),
        ("still there", false),
        ("nothing is left in the bucket", false),
    ];
    for (what, goes) in rows {
        let mut world = backed_up();
        for (index, name) in [(1, "old"), (2, "new")] {
            world.create_backup(name);
            let mut status = TaskStoreBackupStatus {
                phase: BackupPhase::Completed,
                destination: Some(Destination {
                    url: "s3://bucket".into(),
                    ..Destination::default()
                }),
                lineage: Some(lineage(&world)),
                log_id: Some(LogId { term: 1, index }),
                completed_at: Some(Time(world.now)),
                ..TaskStoreBackupStatus::default()
            };
            if name == "old" {
                match what {
                    "completed after the order" => {
                        let later = world.now + SignedDuration::from_secs(1);
                        status.completed_at = Some(Time(later));
                    }
                    "of another store" => status.lineage = Some(Lineage::default()),
                    "at another destination" => status.destination = None,
                    "failed" => status.phase = BackupPhase::Failed,
                    _ => {}
                }
            }
            let objects = &mut world.objects.backups.objects;
            objects.get_mut(name).expect("created").status = status;
        }
        let seen = world.look().expect("there is a cluster");
        world.pass(&seen, usize::MAX);
        let order = world.objects.backups.orders.prune.as_mut();
        let names = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let kept: &[&str] = match what {
            "still there" => &["old", "new"],
            "nothing is left in the bucket" => &[],
            _ => &["new"],
        };
        order.expect("it was given").heard = Heard::News(Pruned {
            deleted: BTreeSet::new(),
            kept: names(kept),
        });
        let deletes = actions(&world).contains(&"delete backup old".to_owned());
        assert_eq!(deletes, goes, "{what}");
    }
}

#[test]
fn only_the_newest_failed_runs_are_kept_to_be_read() {
    let mut world = backed_up();
    world.create_backup("by-hand");
    world.run();
    for day in 10..16 {
        let name = format!("demo-i1-202611{day}1200");
        world.create_backup(&name);
        let objects = &mut world.objects.backups.objects;
        objects.get_mut(&name).expect("created").status.phase = BackupPhase::Failed;
    }
    let deleted: Vec<String> = actions(&world);
    let expected: Vec<String> = [12, 11, 10]
        .map(|day| format!("delete backup demo-i1-202611{day}1200"))
        .into();
    assert_eq!(deleted, expected);
}

#[test]
fn people_read_what_is_wrong_with_the_log_and_nothing_of_a_short_break() {
    let mut world = backed_up();
    let hear = |world: &mut World, heard: Heard<Shipped>| {
        let order = world.objects.backups.orders.shipping.as_mut();
        order.expect("it was given").heard = heard;
        world.run();
        ready(world)
    };
    let news = |to: Option<&str>, problem: &str| {
        Heard::News(Shipped {
            to: to.map(at),
            problem: problem.into(),
        })
    };
    let (state, reason, words) = hear(&mut world, news(Some("2026-11-18T11:30:00Z"), ""));
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("True", "DestinationAccepted")
    );
    assert_eq!(words, "backups and the log go to s3://bucket");
    let to = status(&world)
        .backup
        .expect("it stands there")
        .recoverable_to;
    assert_eq!(to, Some(Time(at("2026-11-18T11:30:00Z"))));

    let (state, reason, words) = hear(&mut world, news(None, "no right to write"));
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("False", "LogNotShipped")
    );
    assert_eq!(words, "m2 does not ship the log: no right to write");
    let failed = Heard::Failed(Failure {
        words: "not reached".into(),
        is_final: false,
        at: world.now,
    });
    let (state, ..) = hear(&mut world, failed);
    assert_eq!(state, "True", "it is ordered again in a moment");
}

/// O7: what a backup goes through is written in steps, and nothing between them.
#[test]
fn progress_within_a_step_writes_nothing() {
    let mut world = backed_up();
    world.create_backup("by-hand");
    world.until_under_way();
    let seen = world.look().expect("there is a cluster");
    world.pass(&seen, usize::MAX);
    let order = world.objects.backups.orders.backup.clone();
    assert!(matches!(
        order.expect("it was given").news(),
        Some(Writing::UnderWay { .. })
    ));
    assert_eq!(actions(&world), Vec::<String>::new());
}
