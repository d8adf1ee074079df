//! The house rules that a compiler does not check: pure parts stay pure, and imports run one way.

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "{} has sources", folder.display());
    found
}

/// A folder, or one file.
fn under(part: &str) -> Vec<(PathBuf, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(part);
    match std::fs::read_to_string(&path) {
        Ok(text) => vec![(path, text)],
        Err(_) => sources(&path),
    }
}

fn forbid(parts: &[&str], words: &[&str]) {
    for (path, text) in parts.iter().flat_map(|part| under(part)) {
        for word in words {
            assert!(!text.contains(word), "{} has `{word}`", path.display());
        }
    }
}

#[test]
fn plan_resources_and_status_have_no_io_clock_or_randomness() {
    forbid(
        &["plan", "resources", "restores/next.rs", "status"],
        &[
            "async ",
            ".await",
            "tokio",
            "Timestamp::now",
            "Instant::now",
            "SystemTime",
            "fastrand",
            "kube::Client",
            "kube::Api",
        ],
    );
}

#[test]
fn imports_run_one_way() {
    forbid(
        &["resources"],
        &[
            "crate::plan",
            "crate::apply",
            "crate::status",
            "crate::reconcile",
            "crate::clients",
        ],
    );
    forbid(
        &["plan"],
        &[
            "crate::apply",
            "crate::status",
            "crate::reconcile",
            "crate::clients",
            "crate::context",
        ],
    );
    forbid(
        &["status"],
        &[
            "crate::apply",
            "crate::reconcile",
            "crate::clients",
            "crate::context",
        ],
    );
    forbid(
        &["observe"],
        &[
            "crate::apply",
            "crate::plan",
            "crate::status",
            "crate::reconcile",
        ],
    );
    forbid(
        &["clients"],
        &[
            "crate::apply",
            "crate::plan",
            "crate::status",
            "crate::reconcile",
        ],
    );
}

#[test]
fn every_file_says_its_one_purpose() {
    for (path, text) in under("") {
        assert!(
            text.starts_with("//! "),
            "{} starts with its purpose",
            path.display()
        );
    }
}
