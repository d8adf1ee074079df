//! Nothing in the storage changes a file beside the steps, and each step has one place.

use std::fs;
use std::path::Path;

use super::Step;

/// Their business are the operations themselves, or the files of sled.
const OPERATIONS: [&str; 3] = ["files.rs", "log/disk.rs", "image/db.rs"];
const CHANGES: [&str; 20] = [
    "fs::write(",
    "fs::rename",
    "fs::copy",
    "fs::remove_",
    "fs::create_dir",
    "fs::hard_link",
    "fs::set_",
    "File::create",
    "File::options",
    ".create(",
    ".create_new(",
    ".write(true)",
    ".append(true)",
    ".write_all_at(",
    ".set_len(",
    ".sync_all(",
    ".sync_data(",
    "fallocate(",
    "ftruncate(",
    "DirBuilder",
];
/// How often something of the kind is right there: opened to be written through steps, or inside one.
const THROUGH_STEPS: [(&str, &str, usize); 3] = [
    ("log/segment.rs", ".write(true)", 1),
    ("log/segment.rs", "disk.write_at(", 1),
    ("log/segment.rs", "disk.sync(", 1),
];

/// Sources without their tests, by path below the storage.
fn product_sources(folder: &Path, below: &str, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{below}{name}");
        if entry.path().is_dir() {
            product_sources(&entry.path(), &format!("{path}/"), into);
        } else if name != "tests.rs" && !path.starts_with("step") {
            let text = fs::read_to_string(entry.path()).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests {").next();
            let product = product.unwrap_or_default().replace("ChangedFile::", "");
            into.push((path, product));
        }
    }
}

fn storage() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage");
    product_sources(&folder, "", &mut sources);
    assert!(sources.len() > 20, "{} sources", sources.len());
    sources
}

#[test]
fn every_change_of_a_file_is_a_step() {
    let words = CHANGES.into_iter().chain(["disk.write_at(", "disk.sync("]);
    for (path, text) in storage() {
        if OPERATIONS.contains(&path.as_str()) {
            continue;
        }
        for word in words.clone() {
            let is_it = |(of, what, _): &&(&str, &str, usize)| *of == path && *what == word;
            let allowed = THROUGH_STEPS.iter().find(is_it);
            let found = text.matches(word).count();
            assert_eq!(
                found,
                allowed.map_or(0, |(_, _, count)| *count),
                "{path} has `{word}`: a change of a file goes through `files` and has its step"
            );
        }
    }
}

#[test]
fn every_step_has_one_place() {
    let sources = storage();
    let text: String = sources.iter().map(|(_, text)| text.as_str()).collect();
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != ':' && c != '_')
        .collect();
    for step in Step::ALL {
        let name = format!("Step::{step:?}");
        let places = words.iter().filter(|word| **word == name).count();
        assert_eq!(places, 1, "{name}");
    }
}
