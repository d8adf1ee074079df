//! A crash after every single request of a write and of a deletion: what is listed is whole, and the same
//! order again ends with one backup.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::memory::InMemory;

use super::rig::{Cut, Fate, Fated, bucket_over, cut, lineage, name, objects, order, proven};
use crate::backup::bucket::Bucket;
use crate::backup::delete::delete;
use crate::backup::progress::Noted;
use crate::backup::write::write;

/// Every request after the first so many is refused, as for a process that is no more. The one before is
/// done, but unanswered where `is_lost`.
fn dying(memory: &Arc<InMemory>, requests: usize, is_lost: bool) -> (Bucket, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let store = Fated::new(memory.clone(), move |_, _| {
        match seen.fetch_add(1, Ordering::Relaxed) + 1 {
            n if n == requests && is_lost => Fate::Unanswered,
            n if n <= requests => Fate::Fine,
            _ => Fate::Refused,
        }
    });
    (bucket_over(store), count)
}

async fn written(bucket: &Bucket, cut: &Cut) -> bool {
    let written = write(bucket, &cut.handle, &order("b-1"), &Noted::default()).await;
    written.is_ok()
}

#[tokio::test]
async fn a_write_that_dies_at_any_request_leaves_a_whole_backup_or_none() {
    let (first, second) = (cut("first", 5), cut("second", 5));
    let (bucket, requests) = dying(&Arc::new(InMemory::new()), usize::MAX, false);
    assert!(written(&bucket, &first).await);
    let requests = requests.load(Ordering::Relaxed);
    assert!(requests > 5, "{requests}");
    let mut died = 0;
    for at in 0..requests {
        for is_lost in [false, true] {
            let memory = Arc::new(InMemory::new());
            let (bucket, _) = dying(&memory, at, is_lost);
            died += usize::from(!written(&bucket, &first).await);
            let before = proven(&memory).await;
            assert!(before.len() <= 1);
            // Another member goes on, with what it has.
            assert!(written(&bucket_over(memory.clone()), &second).await);
            let after = proven(&memory).await;
            assert_eq!(after.len(), 1, "after a death at {at}");
            assert!(
                before.is_empty() || before == after,
                "a backup never changes"
            );
        }
    }
    assert_eq!(died, 2 * requests, "each one died");
}

#[tokio::test]
async fn a_deletion_that_dies_at_any_request_lists_nothing_half_and_goes_on_the_next_time() {
    let cut = cut("deleted", 5);
    for at in 0.. {
        let memory = Arc::new(InMemory::new());
        assert!(written(&bucket_over(memory.clone()), &cut).await);
        let (bucket, _) = dying(&memory, at, at % 2 == 1);
        let done = delete(&bucket, &lineage(), &name("b-1")).await.is_ok();
        assert_eq!(proven(&memory).await.len(), usize::from(at == 0));
        delete(&bucket_over(memory.clone()), &lineage(), &name("b-1"))
            .await
            .expect("deleted");
        assert!(objects(&memory).await.is_empty());
        if done {
            assert!(at > 2, "{at}");
            return;
        }
    }
}
