//! A volume is given to a new member where there is no room for two: on a small disk, mounted for that process
//! alone, which goes with it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use taskstore_api::v1;
use tokio::time::{Duration, Instant, sleep};

use crate::harness::{Cluster, PATIENCE};
use crate::tasks::create;

const NEW: u64 = (2 << 32) + 2;
const PAYLOAD_BYTES: usize = 256 << 10;
/// In the snapshot, and in all.
const CUT: usize = 120;
const TASKS: usize = 160;
/// Less than the new directory needs before the old one goes.
const ROOM_BYTES: u64 = 12 << 20;

/// A disk of $1 bytes at $2 with what $3 holds. The rewrite runs until $4 is there; when it ends before, it is run
/// again with more room. Then the new member starts.
const SCRIPT: &str = r#"
mount -t tmpfs -o size="$1" tmpfs "$2" || exit 90
cp -a --sparse=never "$3/." "$2/" || exit 91
bytes=$1 volume=$2 prepared=$3 go=$4 from=$5
shift 5
"$@" "$from" & pid=$!
while [ ! -e "$go" ] && kill -0 $pid 2> /dev/null; do sleep 0.05; done
if [ ! -e "$go" ]; then
    wait $pid
    echo "ended with code $?"
    diff -rq "$prepared" "$volume" && echo "everything is as before"
    mount -o remount,size=$((bytes + (64 << 20))) "$volume"
    "$@" "$from" & pid=$!
    while [ ! -e "$go" ]; do sleep 0.05; done
fi
kill $pid
wait $pid
exec "$@"
"#;

fn id(number: usize) -> String {
    format!("t{number}")
}

fn payload(number: usize) -> Vec<u8> {
    vec![number as u8; PAYLOAD_BYTES]
}

/// One member's volume: a snapshot, as much again in the log behind it, and the image.
async fn prepared() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::serving(1).await;
    let client = cluster.client(&[0]).with_deadline(PATIENCE);
    for number in 0..TASKS {
        let mut request = create(&id(number));
        request.task.as_mut().unwrap().payload = payload(number).into();
        client.create(request).await.unwrap();
        if number == CUT {
            let cut = cluster
                .admin(0)
                .await
                .snapshot(v1::SnapshotRequest {})
                .await;
            cut.unwrap();
        }
    }
    cluster.terminate(0);
    cluster.exit(0, Duration::from_secs(20)).await;
    let (volume, prepared) = (cluster.data_dir(0), cluster.dir.path().join("prepared"));
    fs::rename(&volume, &prepared).unwrap();
    fs::create_dir(&volume).unwrap();
    (cluster, prepared)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut directories, mut files) = (vec![directory.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

fn bytes(directory: &Path) -> u64 {
    let pages = |path: &PathBuf| fs::metadata(path).unwrap().len().next_multiple_of(4096);
    files(directory).iter().map(pages).sum()
}

async fn until_output(cluster: &Cluster, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !cluster.output(0).contains(words) {
        assert!(Instant::now() < deadline, "{}", cluster.last_words());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Rewrites on a disk with little room beside what is prepared, and starts the new member.
async fn rewritten(cluster: &mut Cluster, prepared: &Path, is_too_small: bool) {
    let from = cluster.members[0].id;
    let (volume, go) = (cluster.data_dir(0), cluster.dir.path().join("go"));
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "bash", "-c", SCRIPT])
        .args(["small-disk", &(bytes(prepared) + ROOM_BYTES).to_string()])
        .args([&volume, prepared, &go])
        .arg(format!("--rewrite-from={from}"));
    cluster.start_within(0, NEW, &mut command);
    if is_too_small {
        until_output(cluster, "everything is as before").await;
        let output = cluster.output(0);
        assert!(output.contains("has no room for a second directory"));
        assert!(output.contains("ended with code 74"));
    }
    cluster.until(0, |status| status.raft.is_some()).await;
    fs::write(&go, "").unwrap();
    let status = cluster.until(0, |status| status.ready).await;
    assert!(status.raft.unwrap().leads);
    let client = cluster.client(&[0]).with_deadline(PATIENCE);
    for number in 0..TASKS {
        let get = v1::GetRequest {
            namespace: "shop".into(),
            id: id(number),
            view: v1::View::Full.into(),
        };
        let task = client.get(get).await;
        let task = task.unwrap_or_else(|error| panic!("{error}\n{}", cluster.last_words()));
        assert!(task.payload[..] == payload(number), "task {number}");
    }
    // The disk is only there for the process and its children.
    let root = PathBuf::from(format!("/proc/{}/root", cluster.members[0].child.id()));
    let inside = root.join(volume.strip_prefix("/").unwrap());
    assert!(!inside.join("store-1").exists());
    let segments = files(&inside.join("store-2/log"));
    assert_eq!(segments.len(), 9);
    for segment in segments {
        let metadata = fs::metadata(&segment).unwrap();
        assert!(metadata.blocks() * 512 >= metadata.len(), "reserved");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_had_again_makes_room_for_the_new_directory() {
    let (mut cluster, prepared) = prepared().await;
    assert!(prepared.join("store-1/image").exists());
    rewritten(&mut cluster, &prepared, false).await;
    assert!(
        cluster
            .output(0)
            .contains("what can be had again is removed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_too_small_is_left_as_it_was_until_there_is_room() {
    let (mut cluster, prepared) = prepared().await;
    fs::remove_dir_all(prepared.join("store-1/image")).unwrap();
    let mut snapshots = files(&prepared.join("store-1/snapshots"));
    snapshots.sort();
    // By name the newest one is the last, but for the ballast.
    let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|is| is == "snapshot");
    let newest = snapshots.iter().rfind(|path| is_snapshot(path)).cloned();
    for path in snapshots
        .iter()
        .filter(|path| Some(*path) != newest.as_ref())
    {
        fs::remove_file(path).unwrap();
    }
    rewritten(&mut cluster, &prepared, true).await;
}
