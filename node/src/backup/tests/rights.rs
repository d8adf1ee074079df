//! The canary names the right that is missing, and leaves nothing behind.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::rig::{Fate, Fated, bucket_over, lineage, objects};
use crate::backup::check::{Unfit, check};
use crate::backup::credentials::Credentials;
use crate::backup::destination::Destination;
use crate::backup::error::{Access, Error};
use crate::backup::list::{backups, lineages};
use crate::backup::log::ship::first_indexes;

async fn checked(denied: Option<(Access, Fate)>) -> (Result<(), Unfit>, usize) {
    let memory = Arc::new(InMemory::new());
    let store = Fated::new(memory.clone(), move |access, _| match denied {
        Some((which, fate)) if which == access => fate,
        _ => Fate::Fine,
    });
    let checked = check(&bucket_over(store), &lineage(), "1").await;
    (checked, objects(&memory).await.len())
}

#[tokio::test]
async fn each_missing_right_is_named_and_an_outage_is_no_word() {
    let (fine, left) = checked(None).await;
    assert!(fine.is_ok() && left == 0, "{fine:?}");
    let rights = [
        Access::Write,
        Access::Read,
        Access::Create,
        Access::List,
        Access::Delete,
    ];
    for access in rights {
        let (refused, left) = checked(Some((access, Fate::Forbidden))).await;
        let Err(Unfit::Lacks { missing, reason }) = &refused else {
            panic!("{access}: {refused:?}");
        };
        assert_eq!(*missing, access, "{reason}");
        assert!(reason.contains("403 access denied"), "{reason}");
        assert_eq!(left, usize::from(access == Access::Delete), "{access}");
        for fate in [Fate::Refused, Fate::Silent] {
            let (refused, _) = checked(Some((access, fate))).await;
            assert!(
                matches!(refused, Err(Unfit::Failed(_))),
                "{access} {fate:?}: {refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_store_that_overwrites_is_no_place_for_backups() {
    let (refused, left) = checked(Some((Access::Create, Fate::Unconditional))).await;
    let Err(Unfit::Lacks { missing, reason }) = refused else {
        panic!("it was accepted");
    };
    assert_eq!((missing, left), (Access::Create, 0), "{reason}");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_empty_one_and_a_folder_in_it_is() {
    let nowhere = Fated::new(Arc::new(InMemory::new()), |_, _| Fate::NoBucket);
    let bucket = bucket_over(nowhere);
    let listed = [
        lineages(&bucket).await.map(drop),
        backups(&bucket, &lineage()).await.map(drop),
        first_indexes(&bucket, &lineage()).await.map(drop),
    ];
    for refused in listed {
        let Err(Error::Invalid { field, reason }) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(*field, "url");
        assert!(reason.contains("404 NoSuchBucket"), "{reason}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let destination = Destination {
        url: format!("file://{}", dir.path().display()),
        ..Destination::default()
    };
    let connected = destination.connect(&Credentials::Environment).await;
    for empty in [
        bucket_over(Arc::new(InMemory::new())),
        connected.expect("it is there"),
    ] {
        assert_eq!(lineages(&empty).await.expect("listed"), []);
        assert_eq!(backups(&empty, &lineage()).await.expect("listed").len(), 0);
        let segments = first_indexes(&empty, &lineage()).await;
        assert_eq!(segments.expect("listed"), [] as [u64; 0]);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let destination = Destination {
        url: "file:///nowhere/at/all".into(),
        ..Destination::default()
    };
    let refused = destination.connect(&Credentials::Environment).await;
    assert!(
        refused
            .expect_err("refused")
            .to_string()
            .starts_with("url ")
    );
}
