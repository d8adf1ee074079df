//! A backup from a snapshot to a bucket and back again.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::rig::{Fate, Fated, bucket_over, cut, lineage, name, objects, order, proven};
use crate::backup::bucket::Bucket;
use crate::backup::credentials::Credentials;
use crate::backup::delete::{delete, prune};
use crate::backup::destination::Destination;
use crate::backup::download::download;
use crate::backup::error::Error;
use crate::backup::list::{backups, lineages};
use crate::backup::manifest::ManifestRef;
use crate::backup::progress::{Noted, Phase};
use crate::backup::retention::Keep;
use crate::backup::verify::verify;
use crate::backup::write::{Order, write};
use crate::storage::snapshot::{SnapshotHandle, load};
use crate::task::state::Bounds;
use crate::task::tests::START_MS;

async fn folder(dir: &std::path::Path) -> Bucket {
    let destination = Destination {
        url: format!("file://{}", dir.display()),
        ..Destination::default()
    };
    let connected = destination.connect(&Credentials::Environment).await;
    connected.expect("a folder is a destination")
}

#[tokio::test]
async fn what_comes_back_is_the_snapshot_that_went() {
    let dir = tempfile::tempdir().expect("a folder");
    let memory = bucket_over(Arc::new(InMemory::new()));
    let cut = cut("whole", 9);
    for (at, bucket) in [memory, folder(dir.path()).await].into_iter().enumerate() {
        let noted = Noted::default();
        let progress = noted.watch();
        let first = ManifestRef {
            name: name("b-0"),
            checksum: "00".repeat(32),
        };
        let asked = Order {
            previous: Some(first),
            ..order("b-1")
        };
        let manifest = write(&bucket, &cut.handle, &asked, &noted)
            .await
            .expect("written");
        let state_hash = format!("{:032x}", cut.handle.header.state_hash);
        assert_eq!(manifest.snapshot.state_hash, state_hash);
        assert_eq!((manifest.parts.len(), manifest.counts.tasks), (3, 29));
        assert_eq!(manifest.previous, asked.previous);
        let last = *progress.borrow();
        assert_eq!(
            (last.phase, last.bytes_done),
            (Phase::Verifying, cut.handle.bytes)
        );

        let noted = Noted::default();
        let verified = verify(&bucket, &lineage(), &name("b-1"), &noted).await;
        assert_eq!(verified.expect("good"), manifest);
        let to = dir.path().join(format!("{at}.snapshot"));
        let back = download(&bucket, &lineage(), &name("b-1"), &to, &noted).await;
        let again = back.expect("downloaded");
        let handle = SnapshotHandle::open(&to, &lineage().identity()).expect("good");
        assert_eq!((again, &handle.id), (manifest, &cut.handle.id));
        let loaded = load(&handle, Bounds::default()).expect("loaded");
        assert_eq!(loaded.state.hash(), cut.handle.header.state_hash);
        let refused = download(&bucket, &lineage(), &name("b-1"), &to, &noted).await;
        assert!(
            matches!(refused, Err(Error::Local(_))),
            "nothing is overwritten"
        );
    }
}

#[tokio::test]
async fn a_download_overwrites_nothing_and_leaves_nothing_of_its_own_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(InMemory::new());
    let bucket = bucket_over(store.clone());
    let cut = cut("placed", 5);
    let noted = Noted::default();
    write(&bucket, &cut.handle, &order("b-1"), &noted)
        .await
        .expect("written");
    let to = dir.path().join("b-1.snapshot");
    // A file of somebody's that has the name of the unfinished one.
    let partial = dir.path().join("b-1.snapshot.partial");
    std::fs::write(&partial, "mine").expect("written");
    let refused = download(&bucket, &lineage(), &name("b-1"), &to, &noted).await;
    assert!(matches!(refused, Err(Error::Local(_))), "{refused:?}");
    assert_eq!(std::fs::read(&partial).expect("there"), b"mine");
    assert!(!to.exists());
    std::fs::remove_file(&partial).expect("removed");
    // And one that comes while the download is under way.
    let theirs = to.clone();
    let meanwhile = Fated::new(store, move |_, path| {
        if path.as_ref().ends_with(".part") {
            std::fs::write(&theirs, "theirs").expect("written");
        }
        Fate::Fine
    });
    let bucket = bucket_over(meanwhile);
    let refused = download(&bucket, &lineage(), &name("b-1"), &to, &noted).await;
    assert!(matches!(refused, Err(Error::Local(_))), "{refused:?}");
    assert_eq!(std::fs::read(&to).expect("there"), b"theirs");
    assert!(!partial.exists());
}

#[tokio::test]
async fn the_same_order_again_reports_the_backup_that_is_there() {
    let store = Arc::new(InMemory::new());
    let bucket = bucket_over(store.clone());
    let (first, second) = (cut("first", 5), cut("second", 5));
    let noted = Noted::default();
    let written = write(&bucket, &first.handle, &order("b-1"), &noted)
        .await
        .expect("written");
    let before = objects(&store).await;
    let later = Order {
        created_at_ms: START_MS + 1,
        ..order("b-1")
    };
    let again = write(&bucket, &second.handle, &later, &noted)
        .await
        .expect("answered");
    assert_eq!(again, written);
    assert_eq!(objects(&store).await, before);
}

#[tokio::test]
async fn two_members_at_one_name_end_with_one_backup_and_no_other_parts() {
    let store = Arc::new(InMemory::new());
    let bucket = bucket_over(store.clone());
    let (one, two) = (cut("one", 5), cut("two", 5));
    let (asked, noted) = (order("b-1"), Noted::default());
    let (one, two) = tokio::join!(
        write(&bucket, &one.handle, &asked, &noted),
        write(&bucket, &two.handle, &asked, &noted),
    );
    let (one, two) = (one.expect("answered"), two.expect("answered"));
    assert_eq!(one, two);
    assert_eq!(objects(&store).await.len(), one.parts.len() + 1);
    assert_eq!(proven(&store).await, [one]);
}

#[tokio::test]
async fn a_member_with_a_clock_ahead_does_not_make_its_backup_the_newest_for_ever() {
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let (older, newer) = (cut("older", 0), cut("newer", 2));
    assert!(older.handle.position() < newer.handle.position());
    for (text, cut, created_at_ms) in [
        ("ahead", &older, START_MS + 1_000_000),
        ("right", &newer, START_MS),
    ] {
        let asked = Order {
            created_at_ms,
            ..order(text)
        };
        let written = write(&bucket, &cut.handle, &asked, &Noted::default()).await;
        written.expect("written");
    }
    let listed = backups(&bucket, &lineage()).await.expect("listed");
    let listed: Vec<_> = listed.iter().map(|listed| listed.name.as_str()).collect();
    assert_eq!(listed, ["ahead", "right"], "oldest first");
    let keep = Keep {
        count: Some(1),
        ..Keep::default()
    };
    let pruned = prune(&bucket, &lineage(), &keep, START_MS).await;
    assert_eq!(pruned.expect("pruned").deleted, [name("ahead")]);
}

#[tokio::test]
async fn lineages_stand_apart_and_retention_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("a folder");
    let bucket = folder(dir.path()).await;
    let cut = cut("kept", 0);
    for n in 0..4 {
        let asked = Order {
            created_at_ms: START_MS + n,
            ..order(&format!("b-{n}"))
        };
        let written = write(&bucket, &cut.handle, &asked, &Noted::default()).await;
        written.expect("written");
    }
    assert_eq!(lineages(&bucket).await.expect("listed"), [lineage()]);
    let keep = Keep {
        count: Some(1),
        in_use: [name("b-1")].into(),
        ..Keep::default()
    };
    let pruned = prune(&bucket, &lineage(), &keep, START_MS).await;
    let pruned = pruned.expect("pruned");
    assert_eq!(pruned.deleted, [name("b-0"), name("b-2")]);
    assert_eq!(pruned.kept, [name("b-1"), name("b-3")]);
    let left = backups(&bucket, &lineage()).await.expect("listed");
    let left: Vec<_> = left.iter().map(|listed| listed.name.as_str()).collect();
    assert_eq!(left, ["b-1", "b-3"]);
    delete(&bucket, &lineage(), &name("b-3"))
        .await
        .expect("deleted");
    delete(&bucket, &lineage(), &name("b-3"))
        .await
        .expect("twice is once");
    let gone = verify(&bucket, &lineage(), &name("b-3"), &Noted::default()).await;
    assert!(matches!(gone, Err(Error::Missing { .. })));
}
