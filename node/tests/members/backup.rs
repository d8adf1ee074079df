//! Backups of a running cluster, ordered over the admin port and read by the program that needs no cluster.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use taskstore::raft::loopback::own_address;
use taskstore_api::v1;
use tonic::{Code, Status};

use crate::damage::{dev, dev_client};
use crate::harness::{CLUSTER, Cluster, PATIENCE};
use crate::tasks::{claim_one, create};

fn request(url: &str, name: &str) -> v1::BackupRequest {
    v1::BackupRequest {
        destination: Some(v1::BackupDestination {
            url: url.into(),
            ..Default::default()
        }),
        name: name.into(),
        ..Default::default()
    }
}

/// Follows an order to its end; answers the phases that were seen and the facts.
async fn ordered(
    cluster: &Cluster,
    index: usize,
    request: v1::BackupRequest,
) -> Result<(Vec<v1::BackupPhase>, v1::BackupFacts), Status> {
    let mut stream = cluster
        .admin(index)
        .await
        .backup(request)
        .await?
        .into_inner();
    let mut phases = Vec::new();
    while let Some(progress) = stream.message().await? {
        phases.push(progress.phase());
        if let Some(facts) = progress.facts {
            return Ok((phases, facts));
        }
    }
    panic!("the stream ended without a word");
}

fn taskstore(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskstore"));
    command.args(["backup", "--url", url]).args(arguments);
    command.output().expect("the program runs")
}

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_backs_up_under_load_and_the_bucket_alone_proves_it() {
    let cluster = Arc::new(Cluster::serving(3).await);
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (client, stop) = (cluster.client(&[0, 1, 2]), stop.clone());
        tokio::spawn(async move {
            let mut created = 0;
            while !stop.load(Ordering::Relaxed) {
                client
                    .create(create(&format!("t-{created}")))
                    .await
                    .unwrap();
                created += 1;
            }
            created
        })
    };
    let (phases, facts) = ordered(&cluster, follower, request(&url, "b-1"))
        .await
        .unwrap();
    assert_eq!(phases.last(), Some(&v1::BackupPhase::Done));
    assert_eq!(
        (
            facts.cluster_id.as_str(),
            facts.incarnation,
            facts.member_id
        ),
        (CLUSTER, 1, cluster.members[follower].id)
    );
    // To another member, under the same name: the same backup, though the state has moved on.
    let (phases, again) = ordered(&cluster, leader, request(&url, "b-1"))
        .await
        .unwrap();
    assert_eq!(again, facts);
    assert!(!phases.contains(&v1::BackupPhase::Verifying), "{phases:?}");
    stop.store(true, Ordering::Relaxed);
    let created: u64 = load.await.unwrap();
    assert!(facts.tasks <= created);

    // At rest, what a snapshot says and what a backup of it says is the same.
    let snapshot = v1::SnapshotRequest {};
    let cut = cluster.admin(leader).await.snapshot(snapshot).await;
    let cut = cut.unwrap().into_inner();
    let previous = v1::BackupRequest {
        previous: facts.r#ref.clone(),
        ..request(&url, "b-2")
    };
    let (_, second) = ordered(&cluster, leader, previous).await.unwrap();
    assert_eq!(second.log_id, cut.log_id);
    assert_eq!(
        (&second.state_hash, second.bytes),
        (&cut.state_hash, cut.bytes)
    );
    assert_eq!(second.tasks, created);

    let verified = text(&taskstore(&url, &["verify", "b-2"]));
    assert!(verified.contains(&cut.state_hash), "{verified}");
    let listed = text(&taskstore(&url, &["list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["name"], &listed[1]["name"]),
        (&"b-1".into(), &"b-2".into())
    );
    assert_eq!(listed[1]["state"], "complete");
    let file = bucket.path().join("export.snapshot");
    text(&taskstore(&url, &["export", "b-1", file.to_str().unwrap()]));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), facts.bytes);
    let inspected = text(&taskstore(&url, &["inspect", "b-2"]));
    assert!(
        inspected.contains(&facts.r#ref.unwrap().checksum),
        "{inspected}"
    );

    let prune = v1::PruneBackupsRequest {
        destination: request(&url, "").destination,
        keep_count: 1,
        ..Default::default()
    };
    let pruned = cluster.admin(follower).await.prune_backups(prune).await;
    let pruned = pruned.unwrap().into_inner();
    assert_eq!(
        (pruned.deleted, pruned.kept),
        (vec!["b-1".into()], vec!["b-2".into()])
    );
    let gone = taskstore(&url, &["verify", "b-1"]);
    assert!(!gone.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_is_refused_with_the_field_and_a_dropped_one_makes_room() {
    let cluster = Cluster::serving(1).await;
    cluster.client(&[0]).create(create("kept")).await.unwrap();
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let mut with_credentials = request(&url, "b-1");
    if let Some(destination) = &mut with_credentials.destination {
        destination.credentials = "s3".into();
    }
    let rows = [
        (v1::BackupRequest::default(), "destination "),
        (request("ftp://host/x", "b-1"), "url "),
        (request("s3://user:secret@bucket/x", "b-1"), "url "),
        (request(&url, "B"), "name "),
        (with_credentials, "credentials "),
    ];
    for (request, field) in rows {
        let refused = ordered(&cluster, 0, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().starts_with(field),
            "{}",
            refused.message()
        );
        assert!(!refused.message().contains("secret"));
    }
    let check = |url: &str| v1::CheckDestinationRequest {
        destination: request(url, "").destination,
    };
    let mut admin = cluster.admin(0).await;
    let fine = admin
        .check_destination(check(&url))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(fine.missing, "", "{}", fine.reason);

    // One that takes for ever holds the place until its caller goes.
    let slow = v1::BackupRequest {
        bytes_per_second_max: 1,
        ..request(&url, "b-slow")
    };
    let under_way = admin.backup(slow).await.unwrap();
    let busy = ordered(&cluster, 0, request(&url, "b-1"))
        .await
        .unwrap_err();
    assert_eq!(busy.code(), Code::Unavailable);
    drop(under_way);
    let made = loop {
        match ordered(&cluster, 0, request(&url, "b-1")).await {
            Ok((_, facts)) => break facts,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    };
    assert_eq!(made.tasks, 1);
    let listed = text(&taskstore(&url, &["list"]));
    assert!(
        listed.contains("b-slow  unfinished") || !listed.contains("b-slow"),
        "{listed}"
    );
}

#[test]
fn a_program_that_asks_for_json_is_answered_in_it_also_by_the_check() {
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let said = text(&taskstore(&url, &["check", "--json"]));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["fit"], true);
    let plain = text(&taskstore(&url, &["check"]));
    assert_eq!(plain, "backups can be written here\n");
}

/// Listens until the bucket has this entry.
async fn shipped_to(cluster: &Cluster, index: usize, url: &str, entry: u64) -> v1::LogShipped {
    let order = v1::ShipLogRequest {
        destination: request(url, "").destination,
    };
    let stream = cluster.admin(index).await.ship_log(order).await;
    let mut stream = stream.unwrap().into_inner();
    let listen = async {
        loop {
            let shipped = stream.message().await.unwrap().expect("shipping goes on");
            if shipped.shipped_to.is_some_and(|to| to.index >= entry) {
                return shipped;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, listen).await {
        Ok(shipped) => shipped,
        Err(_) => panic!("entry {entry} never came\n{}", cluster.last_words()),
    }
}

async fn applied_index(cluster: &Cluster, index: usize) -> u64 {
    cluster.status(index).await.raft.unwrap().applied_index
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_follows_a_backup_whoever_ships_it_and_goes_on_when_nobody_listens() {
    let mut cluster = Cluster::serving(3).await;
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let client = cluster.client(&[0, 1, 2]);
    let create_some = async |from: u64| {
        for n in from..from + 20 {
            client.create(create(&format!("t-{n}"))).await.unwrap();
        }
    };
    create_some(0).await;
    // No backup is there: the first shipper makes one for the chain to start behind.
    let leader = cluster.leader().await;
    let (one, two) = ((leader + 1) % 3, (leader + 2) % 3);
    let first = shipped_to(&cluster, one, &url, applied_index(&cluster, leader).await).await;
    assert_eq!((first.chains_started, first.problem.as_str()), (1, ""));
    // Nobody listens any more, and a second member ships beside the first.
    create_some(20).await;
    let both = shipped_to(&cluster, two, &url, applied_index(&cluster, leader).await).await;
    assert_eq!(both.chains_started, 0);
    assert!(both.wall_time_ms > first.wall_time_ms);
    // One dies, the other goes on.
    cluster.kill(one);
    create_some(40).await;
    let last = applied_index(&cluster, leader).await;
    let told = shipped_to(&cluster, two, &url, last).await;
    let index = told.shipped_to.map_or(0, |to| to.index);
    cluster
        .until_metric(two, &format!("taskstore_log_shipped_index {index}"))
        .await;
    cluster
        .until_metric(two, "taskstore_log_unshipped_milliseconds 0")
        .await;

    let listed = text(&taskstore(&url, &["list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let backup = listed[0]["name"].as_str().unwrap().to_owned();
    assert!(backup.starts_with("chain-"), "{listed}");
    let verified = taskstore(&url, &["verify", &backup, "--with-log", "--json"]);
    let verified: serde_json::Value = serde_json::from_str(&text(&verified)).unwrap();
    assert!(
        verified["log"]["index"].as_u64() >= Some(last),
        "{verified}"
    );

    let stop = v1::ShipLogRequest::default();
    let ended = cluster.admin(two).await.ship_log(stop).await.unwrap();
    assert_eq!(ended.into_inner().message().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_goes_on_with_what_a_lost_cluster_left_in_its_bucket() {
    let mut cluster = Cluster::serving(3).await;
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let client = cluster.client(&[0, 1, 2]);
    let leader = cluster.leader().await;
    client.create(create("before")).await.unwrap();
    ordered(&cluster, leader, request(&url, "b-1"))
        .await
        .unwrap();
    client.create(create("behind")).await.unwrap();
    let lease = claim_one(&client).await;
    let last = applied_index(&cluster, leader).await;
    shipped_to(&cluster, leader, &url, last).await;
    for index in 0..3 {
        cluster.kill(index);
    }

    let drilled = text(&taskstore(&url, &["drill", "--json"]));
    let drilled: serde_json::Value = serde_json::from_str(&drilled).unwrap();
    assert_eq!(drilled["restorable"]["tasks"], 2, "{drilled}");

    let laptop = tempfile::tempdir().unwrap();
    let restore = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskstore"));
        command.args(["restore", "--json", "--url", &url, "--data-dir"]);
        command.arg(laptop.path()).args(more);
        command.output().expect("the program runs")
    };
    let early = restore(&["--upto-time", "2020-01-01T00:00:00Z"]);
    let complaint = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(
        complaint.contains("time must be at least where the backup b-1 ends"),
        "{complaint}"
    );
    let restored = text(&restore(&[]));
    let restored: serde_json::Value = serde_json::from_str(&restored).unwrap();
    assert_eq!(restored["tasks"], 2, "{restored}");
    assert!(
        restored["log_id"]["index"].as_u64() >= Some(last),
        "{restored}"
    );
    let again = restore(&[]);
    let complaint = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(complaint.contains("holds a store already"), "{complaint}");

    let address = own_address();
    let mut process = dev(laptop.path(), address);
    let client = dev_client(address);
    let again = [claim_one(&client).await, claim_one(&client).await];
    process.kill().unwrap();
    process.wait().unwrap();
    let mut ids = again.each_ref().map(|lease| lease.id.as_str());
    ids.sort_unstable();
    assert_eq!(ids, ["before", "behind"]);
    let lowest = again.iter().map(|lease| lease.lease_token).min();
    assert!(lowest > Some(lease.lease_token), "tokens only grow");
}
