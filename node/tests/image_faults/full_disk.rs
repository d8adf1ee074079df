//! A disk that fills up: a small one, mounted for the child alone, goes with it.

use std::fs::{self, File};
use std::future::ready;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use openraft::storage::RaftStateMachine;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use taskstore::storage::machine::with_meta;
use tempfile::TempDir;

use crate::at_rest::{CLUSTER, SCRATCH, ends, of, runtime};
use crate::children::{self, Child, FATAL, Said, say};
use crate::member::{Expected, LARGE, Member};

const DEADLINE: Duration = Duration::from_secs(60);
const SQUEEZES: u64 = 8;
const CHILDREN: u64 = 3;
const FILLER: &str = "filler";
/// A small snapshot fits, the image wants more.
const LITTLE_BYTES: u64 = 24 << 20;
/// The image begins its batch, and the rest is taken in no time.
const ENOUGH_BYTES: u64 = 96 << 20;
/// Runs the child on a disk of its own, then, whatever became of it, the start after it.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=$1m tmpfs "$2" || exit 1
root=$2 next=$3
shift 3
"$@"
code=$?
printf '\n@code %s\n' $code
[ "$next" = - ] && exit
rm -f "$root/filler"
IMAGE_FAULTS_TASK="$next $root" exec "$@"
"#;

fn on_disk(megabytes: u32, root: &Path, task: &str, next: &str) -> Child {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "bash", "-c", SCRIPT])
        .args(["full-disk", &megabytes.to_string()])
        .arg(root)
        .arg(next)
        .arg(std::env::current_exe().expect("this program"))
        .args(children::arguments());
    Child::of(&mut command, task)
}

fn is_full<T: std::fmt::Debug>(done: &io::Result<T>) -> bool {
    matches!(done, Err(error) if error.kind() == io::ErrorKind::StorageFull)
}

fn free_bytes(root: &Path) -> u64 {
    let volume = statvfs(root).expect("looked at");
    volume.f_bavail * volume.f_frsize
}

/// Takes the space until so much is left.
fn fill(root: &Path, left_bytes: u64) {
    let file = File::options()
        .create(true)
        .append(true)
        .open(root.join(FILLER));
    let file = file.expect("a filler");
    loop {
        let from = file.metadata().expect("looked at").len();
        let take = free_bytes(root).saturating_sub(left_bytes);
        // Another writer may be faster.
        if take == 0 || fallocate(&file, FallocateFlags::empty(), from, take).is_ok() {
            return;
        }
    }
}

fn free(root: &Path) {
    fs::remove_file(root.join(FILLER)).expect("removed");
}

fn start(root: &Path) -> Member {
    let expected = Expected::of(LARGE);
    Member::start(root, CLUSTER, expected, ends("full")).expect("started")
}

async fn is_right(member: &Member) {
    member.check().await.expect("read").expect("right");
}

async fn keep_and_restart(member: Member, root: &Path) -> Member {
    member.keep_all().await.expect("kept");
    member.cut().await.expect("cut");
    is_right(&member).await;
    let index = member.index();
    let position = *member.store.image_position().borrow();
    assert_eq!(position.expect("complete").index, index);
    drop(member);
    let member = start(root);
    assert_eq!((member.from_image, member.index()), (true, index));
    member.sweep().await.expect("swept");
    is_right(&member).await;
    member
}

pub fn run_patient(words: &[&str]) {
    let root = Path::new(words[0]);
    runtime().block_on(async {
        fill(root, 64 << 20);
        let mut member = start(root);
        member.apply_many(4).await;
        member.cut().await.expect("cut");
        loop {
            member.apply_many(2).await;
            let kept = member.store.write_behind(|_| ready(Ok(()))).await;
            if is_full(&kept) {
                break;
            }
            kept.expect("kept");
        }
        for _ in 0..3 {
            member.apply_many(4).await;
            assert!(is_full(&member.keep_all().await));
            assert!(is_full(&member.cut().await));
            is_right(&member).await;
        }
        free(root);
        let member = keep_and_restart(member, root).await;
        say("went on");

        drop(member);
        fs::remove_dir_all(root.join("image")).expect("removed");
        fill(root, LITTLE_BYTES);
        let mut member = start(root);
        assert!(!member.from_image);
        // What was removed may have been open still.
        fill(root, LITTLE_BYTES);
        is_right(&member).await;
        member.apply_many(2).await;
        assert!(is_full(&member.keep_all().await));
        is_right(&member).await;
        free(root);
        let member = keep_and_restart(member, root).await;
        say("started");

        drop(member);
        let mut leader = start(&root.join("leader"));
        leader.apply_many(4).await;
        leader.cut().await.expect("cut");
        let sent = leader.store.snapshots().newest().expect("cut");
        let sent = with_meta(sent).expect("good");
        let follower_root = root.join("follower");
        fill(root, LITTLE_BYTES);
        let mut follower = start(&follower_root);
        let installed = follower.machine.install_snapshot(&sent.meta, sent.snapshot);
        installed.await.expect("installed");
        is_right(&follower).await;
        assert!(is_full(&follower.keep_all().await));
        is_right(&follower).await;
        free(root);
        keep_and_restart(follower, &follower_root).await;
        say("installed");
    });
}

#[test]
fn a_full_disk_only_delays_the_image_a_start_and_an_install() {
    let root = TempDir::new_in(SCRATCH).expect("a folder");
    let task = format!("patient {}", root.path().display());
    let mut child = on_disk(320, root.path(), &task, "-");
    for expected in ["went on", "started", "installed", "code 0"] {
        assert_eq!(child.next(DEADLINE), Said::Line(expected.into()));
    }
}

/// Squeezes the disk while a batch is on its way into sled, again and again.
pub fn run_squeezed(words: &[&str]) {
    let root = Path::new(words[0]);
    let mut rng = fastrand::Rng::with_seed(words[1].parse().expect("a number"));
    let ended = runtime().block_on(async {
        let mut member = start(root);
        let mut met = 0;
        // A batch lasts as long as the machine takes for it: the disk is to fill up meanwhile.
        member.apply_many(8).await;
        let lasts = batch(&member).map_err(of("keep"))?;
        let lasts_us = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX).max(1);
        for _ in 0..SQUEEZES {
            member.apply_many(8).await;
            fill(root, ENOUGH_BYTES);
            let delay = Duration::from_micros(rng.u64(..lasts_us));
            let is_writing = AtomicBool::new(false);
            let kept = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_writing.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                    std::thread::sleep(delay);
                    fill(root, 0);
                });
                let flushed = |_| {
                    is_writing.store(true, Ordering::Release);
                    ready(Ok(()))
                };
                let kept = member.store.write_behind(flushed);
                wait(kept)
            });
            // What is only on the disk may have to wait.
            match member.check().await {
                Ok(right) => right?,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                Err(error) => return Err(of("read")(error)),
            }
            match kept {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    met += u32::from(!error.to_string().contains("the image needs"));
                }
                kept => drop(kept.map_err(of("keep"))?),
            }
            free(root);
            let mut tries = 0;
            while let Err(error) = keep_and_check(&member).await? {
                tries += 1;
                if error.kind() != io::ErrorKind::StorageFull || tries > 3 {
                    return Err(format!("with space again: {error}"));
                }
            }
        }
        Ok(format!("met {met}"))
    });
    match ended {
        Ok(met) => say(met),
        Err(wrong) => say(format!("silent {wrong}")),
    }
}

/// How long a batch takes that nobody disturbs.
fn batch(member: &Member) -> io::Result<Duration> {
    let begun = OnceLock::new();
    let flushed = |_| {
        begun.get_or_init(Instant::now);
        ready(Ok(()))
    };
    wait(member.store.write_behind(flushed))?;
    Ok(begun.get().map_or(Duration::ZERO, Instant::elapsed))
}

async fn keep_and_check(member: &Member) -> Result<io::Result<()>, String> {
    match member.keep_all().await {
        Ok(()) => {}
        failed => return Ok(failed),
    }
    match member.check().await {
        Ok(right) => right.map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

/// The store's own runtime is this thread's, which waits here.
fn wait<T>(kept: impl Future<Output = T>) -> T {
    futures::executor::block_on(kept)
}

pub fn run_next(words: &[&str]) {
    let root = Path::new(words[0]);
    let ended: Result<String, String> = runtime().block_on(async {
        let mut member = start(root);
        member.sweep().await.map_err(of("sweep"))?;
        member.check().await.map_err(of("read"))??;
        let row = format!("next {} {}", member.from_image, member.index());
        member.apply_many(2).await;
        member.keep_all().await.map_err(of("keep"))?;
        member.check().await.map_err(of("read"))??;
        Ok(row)
    });
    match ended {
        Ok(row) => say(row),
        Err(wrong) => say(format!("silent {wrong}")),
    }
}

#[test]
fn a_disk_that_fills_up_under_a_batch_costs_time_only() {
    let seed = children::seed();
    let (mut met, mut condemned, mut wrong) = (0, 0, Vec::new());
    for number in 0..CHILDREN {
        let root = TempDir::new_in(SCRATCH).expect("a folder");
        let task = format!(
            "squeezed {} {}",
            root.path().display(),
            seed.wrapping_add(number)
        );
        let mut child = on_disk(512, root.path(), &task, "squeezed-next");
        let mut said = Vec::new();
        loop {
            match child.next(DEADLINE) {
                Said::Line(line) => said.push(line),
                Said::Ended(Some(0)) => break,
                other => {
                    wrong.push(format!("child {number}: {said:?}, then {other:?}"));
                    break;
                }
            }
        }
        let words: Vec<&str> = said.iter().map(String::as_str).collect();
        let fatal = format!("code {FATAL}");
        match words[..] {
            [line, "code 0", next] if line.starts_with("met ") && next.starts_with("next true") => {
                met += line[4..].parse::<u32>().expect("a number");
            }
            [line, code, next]
                if line.starts_with("fatal ")
                    && code == fatal
                    && next.starts_with("next false") =>
            {
                println!("{line}");
                condemned += 1;
            }
            _ => wrong.push(format!("child {number}: {said:?}")),
        }
    }
    println!(
        "storage faults: image squeezes={} met={met} condemned={condemned} silent=0 seed={seed}",
        SQUEEZES * CHILDREN,
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(met + condemned > 0, "no batch met the full disk");
}
