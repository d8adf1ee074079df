//! Memory that sled holds for the image. The only test of its process: what another one calls would free it too.

use std::sync::mpsc::channel;
use std::time::Duration;

use taskstore::storage::image::db::{Db, Key, Rows};
use taskstore::storage::image::watch::Watch;
use tempfile::TempDir;

#[test]
fn what_a_batch_replaces_is_freed_with_it() {
    let dir = TempDir::new().expect("a directory");
    let db = Db::open(dir.path(), Watch::new(Duration::from_secs(60))).expect("opened");
    let write = |tasks: u64| {
        let mut rows = Rows::default();
        for seq in 0..tasks {
            rows.put(Key::Task(seq), vec![7; 100]);
        }
        db.write(rows).expect("written");
    };
    write(20_000);
    write(20_000);
    // Freed after all that was given up before it.
    let (freed, is_freed) = channel();
    crossbeam_epoch::pin().defer(move || freed.send(()));
    write(1);
    assert!(
        is_freed.try_recv().is_ok(),
        "the pages of 40,000 rows are kept"
    );
}
