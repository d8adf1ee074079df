//! The house rules that no compiler checks: which folders are pure, who may see openraft and sled, and what
//! every file starts with.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files that hold decisions only.
const PURE: &[&str] = &[
    "node/src/task",
    "operator/src/plan",
    "operator/src/resources",
    "operator/src/status.rs",
    "crds/src",
];
/// Programs that print are not the pure part of their crate.
const NOT_PURE: &[&str] = &["crds/src/bin"];
/// What a decision must not touch: waiting, the clock, chance, the cluster, disk engines, consensus.
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "tokio::",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "fastrand",
    "Uuid::now_v7",
    "Uuid::new_v4",
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::{Api",
    "sled",
    "openraft",
];
const SEES_OPENRAFT: &[&str] = &[
    "node/src/raft",
    "node/src/storage",
    "node/src/app/crashes",
    "node/tests",
];
/// Imports inside the node run from left to right only.
const NODE_LAYERS: &[&str] = &[
    "cli", "app", "jobs", "server", "member", "service", "backup", "raft", "storage", "task",
];
/// Promises instead of code.
const STUBS: &[&str] = &["todo!(", "unimplemented!(", "#[ignore"];

#[test]
fn every_source_file_opens_with_its_purpose() {
    check(|_, text| (!text.starts_with("//!")).then(|| "does not open with //!".to_owned()));
}

#[test]
fn nothing_is_left_to_do() {
    check(|path, text| {
        if path.ends_with("e2e/tests/tidy.rs") {
            return None;
        }
        lines(text).find_map(|(line, code)| {
            STUBS
                .iter()
                .find(|stub| code.contains(*stub))
                .map(|stub| format!("line {line} holds {stub}"))
        })
    });
}

#[test]
fn decisions_are_pure() {
    check(|path, text| {
        if !within(path, PURE) || within(path, NOT_PURE) {
            return None;
        }
        code(text).find_map(|(line, code)| {
            IMPURE
                .iter()
                .find(|word| has_word(code, word))
                .map(|word| format!("line {line} uses {word}"))
        })
    });
}

#[test]
fn openraft_stays_in_its_two_folders() {
    check(|path, text| {
        if within(path, SEES_OPENRAFT) || path.ends_with("e2e/tests/tidy.rs") {
            return None;
        }
        code(text).find_map(|(line, code)| {
            has_word(code, "openraft").then(|| format!("line {line} uses openraft"))
        })
    });
}

#[test]
fn one_file_sees_sled() {
    check(|path, text| {
        if path == Path::new("node/src/storage/image/db.rs") || path.ends_with("e2e/tests/tidy.rs")
        {
            return None;
        }
        code(text).find_map(|(line, code)| {
            has_word(code, "sled::").then(|| format!("line {line} uses sled"))
        })
    });
}

#[test]
fn crates_import_one_way() {
    let forbidden = [
        ("crds", &["taskstore_api", "taskstore::", "operator::"][..]),
        (
            "node/api",
            &["crds::", "taskstore::", "operator::", "kube::"],
        ),
        (
            "node/src",
            &["crds::", "operator::", "kube::", "k8s_openapi"],
        ),
        ("operator/src", &["taskstore::"]),
        ("e2e/src", &["taskstore::", "operator::"]),
    ];
    check(|path, text| {
        let (_, words) = forbidden
            .iter()
            .find(|(folder, _)| within(path, &[folder]))?;
        code(text).find_map(|(line, code)| {
            words
                .iter()
                .find(|word| has_word(code, word))
                .map(|word| format!("line {line} uses {word}"))
        })
    });
}

#[test]
fn modules_of_the_node_import_one_way() {
    check(|path, text| {
        let inside = path.strip_prefix("node/src").ok()?;
        let name = inside.components().next()?.as_os_str().to_str()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        let own = NODE_LAYERS.iter().position(|layer| *layer == name)?;
        code(text).find_map(|(line, code)| {
            NODE_LAYERS[..own]
                .iter()
                .find(|above| code.contains(&format!("crate::{above}::")))
                .map(|above| format!("line {line}: {name} imports {above}"))
        })
    });
}

/// Applies a rule to every Rust file and fails with all that it says.
fn check(rule: impl Fn(&Path, &str) -> Option<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let mut files = Vec::new();
    for folder in ["crds", "node", "operator", "e2e"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(
        files.len() > 20,
        "only {} source files were found: the rules are not being checked",
        files.len()
    );
    let broken: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let path = file
                .strip_prefix(root)
                .expect("files were found below the root");
            let text = fs::read_to_string(file).expect("source files are readable");
            rule(path, &text).map(|what| format!("{}: {what}", path.display()))
        })
        .collect();
    assert!(
        broken.is_empty(),
        "{} files break this rule:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder)
        .expect("source folders are readable")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

fn within(path: &Path, folders: &[&str]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

/// Lines with their numbers, without comments, up to a file's own tests: those may do as they like.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text
        .find("\n#[cfg(test)]\nmod tests {")
        .unwrap_or(text.len());
    lines(&text[..tests])
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether `word` is there and not as the end of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    })
}
