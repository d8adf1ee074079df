//! Damage at rest: whatever happens to any object of a backup, reading it back says so and names an object
//! that is wrong; a download of it leaves no file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::entries::log;
use super::rig::{bucket_over, cut, lineage, name, objects, order};
use crate::backup::bucket::Bucket;
use crate::backup::download::download;
use crate::backup::error::Error;
use crate::backup::log::replay::{Upto, replay};
use crate::backup::log::ship::{End, Step, step};
use crate::backup::manifest::Manifest;
use crate::backup::progress::Noted;
use crate::backup::verify::verify;
use crate::backup::write::{Order, write};
use crate::storage::snapshot::Position;
use crate::task::tests::START_MS;

const TRIALS_MIN: usize = 500;
const FLIPS: usize = 50;
const CUTS: usize = 20;

/// One thing that is done to one object.
struct Harm {
    what: String,
    object: Path,
    /// None: it is removed.
    content: Option<Bytes>,
}

/// What an object is overwritten with, at places of chance and at both ends.
fn harms(rng: &mut fastrand::Rng, object: &Path, others: &BTreeMap<Path, Bytes>) -> Vec<Harm> {
    let content = &others[object];
    let harm = |what: String, content: Option<Bytes>| Harm {
        what,
        object: object.clone(),
        content,
    };
    let mut harms = vec![harm("removed".into(), None)];
    for n in 0..FLIPS {
        let at = match n {
            0 => 0,
            1 => content.len() - 1,
            _ => rng.usize(..content.len()),
        };
        let mut bad = content.to_vec();
        bad[at] ^= 1 << rng.u8(..8);
        harms.push(harm(format!("byte {at} flipped"), Some(bad.into())));
    }
    for n in 0..CUTS {
        let at = match n {
            0 => 0,
            1 => content.len() - 1,
            _ => rng.usize(..content.len()),
        };
        harms.push(harm(format!("cut at {at}"), Some(content.slice(..at))));
    }
    let longer = [content.clone(), Bytes::from_static(b"\0")].concat();
    harms.push(harm("longer by a byte".into(), Some(longer.into())));
    let swapped = others.iter().filter(|(_, other)| *other != content);
    harms.extend(swapped.map(|(from, other)| harm(format!("is {from}"), Some(other.clone()))));
    harms
}

/// A log that goes on behind the newest backup, and how far.
async fn ship_all(bucket: &Bucket, backup: Position) -> Position {
    let log = log(backup.index + 40);
    log.first.store(backup.index + 1, Ordering::Relaxed);
    // The backup was cut in the log's first term.
    let mut end = End::of_backup(Position { term: 1, ..backup }, START_MS);
    loop {
        match step(bucket, &lineage(), &end, &log).await.expect("shipped") {
            Step::Shipped(next) => end = next,
            Step::Idle => return end.last,
            Step::Gap => panic!("nothing is gone"),
        }
    }
}

async fn read_log(bucket: &Bucket, manifest: &Manifest, upto: Position) -> Result<(), Error> {
    let after = Position {
        term: 1,
        index: manifest.log_id.index,
    };
    let upto = Upto::Index(upto.index);
    replay(bucket, &lineage(), after, upto, |_, _| Ok(()))
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_to_a_backup_is_silent_and_each_is_named() {
    let seed = std::env::var("BACKUP_DAMAGE_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BACKUP_DAMAGE_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let store = Arc::new(InMemory::new());
    let bucket = bucket_over(store.clone());
    // An older one, one of the same state under another name, and the one that is damaged.
    let (older, newest) = (cut("older", 5), cut("newest", 9));
    for (text, cut, created_at_ms) in [
        ("b-1", &older, START_MS),
        ("b-2", &newest, START_MS + 1),
        ("b-3", &newest, START_MS + 2),
    ] {
        let asked = Order {
            created_at_ms,
            ..order(text)
        };
        let written = write(&bucket, &cut.handle, &asked, &Noted::default()).await;
        written.expect("written");
    }
    let behind = ship_all(&bucket, newest.handle.position()).await;
    let all = objects(&store).await;
    let of_newest: Vec<&Path> = all
        .keys()
        .filter(|path| path.as_ref().contains("/b-3/") || path.as_ref().contains("/log/"))
        .collect();
    let dir = tempfile::tempdir().expect("a folder");
    let (mut trials, mut silent, mut unnamed) = (0, 0, Vec::new());
    for object in &of_newest {
        for harm in harms(&mut rng, object, &all) {
            match &harm.content {
                Some(content) => {
                    let payload = PutPayload::from_bytes(content.clone());
                    store.put(&harm.object, payload).await.expect("put");
                }
                None => store.delete(&harm.object).await.expect("deleted"),
            }
            let (noted, at) = (Noted::default(), name("b-3"));
            // Every tenth by the way that a restore takes.
            let read = match trials % 10 {
                0 => {
                    let to = dir.path().join("b-3.snapshot");
                    let read = download(&bucket, &lineage(), &at, &to, &noted).await;
                    let left = std::fs::read_dir(dir.path()).expect("a folder").count();
                    assert_eq!(left, usize::from(read.is_ok()), "a file is left behind");
                    let _ = std::fs::remove_file(&to);
                    read
                }
                _ => verify(&bucket, &lineage(), &at, &noted).await,
            };
            let read = match read {
                Ok(manifest) => read_log(&bucket, &manifest, behind).await,
                Err(error) => Err(error),
            };
            trials += 1;
            match read {
                Ok(_) => {
                    silent += 1;
                    unnamed.push(format!("silent: {} {}", harm.object, harm.what));
                }
                Err(error) => {
                    let is_named = error.to_string().contains(harm.object.as_ref());
                    let is_damage = matches!(
                        error,
                        Error::Damaged { .. } | Error::Missing { .. } | Error::Newer { .. }
                    ) || matches!(error, Error::Foreign { .. });
                    if !is_named || !is_damage {
                        unnamed.push(format!("{} {}: {error}", harm.object, harm.what));
                    }
                }
            }
            let payload = PutPayload::from_bytes(all[*object].clone());
            store.put(object, payload).await.expect("put back");
        }
    }
    verify(&bucket, &lineage(), &name("b-3"), &Noted::default())
        .await
        .expect("undamaged, it is good");
    println!(
        "backup damage: objects={} trials={trials} silent={silent}",
        of_newest.len()
    );
    assert_eq!(silent, 0, "{unnamed:#?}");
    assert!(unnamed.is_empty(), "seed {seed}: {unnamed:#?}");
    assert!(trials >= TRIALS_MIN, "{trials}");
}
