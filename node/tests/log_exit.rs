//! A disk that cannot be looked at now is not a damaged one: the process ends, so that it is started again.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

#[test]
fn a_disk_that_cannot_be_looked_at_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("store");
    fs::create_dir(&volume).unwrap();
    // As with too many open files: nothing is known of what stands there.
    symlink("CURRENT", volume.join("CURRENT")).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_taskstore"))
        .args(["dev", "--client-port", "0", "--health-port", "0"])
        .arg("--data-dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(74), "{said}");
    assert!(said.contains("the process ends"), "{said}");
}
