//! What can happen to the files of an image at rest.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE_BYTES: u64 = 4 << 10;

/// Kinds, each with its share of the trials.
const KINDS: [(&str, u32); 9] = [
    ("flip", 9),
    ("zero", 9),
    ("truncate", 3),
    ("append", 1),
    ("missing", 2),
    ("swapped", 2),
    ("foreign", 1),
    ("older", 1),
    ("mixed", 6),
];

pub fn kind(trial: u64) -> &'static str {
    let all: u32 = KINDS.iter().map(|(_, share)| share).sum();
    let mut place = (trial % u64::from(all)) as u32;
    for (kind, share) in KINDS {
        if place < share {
            return kind;
        }
        place -= share;
    }
    unreachable!("the shares add up")
}

/// Images of other moments and of another cluster, to take from.
pub struct Others {
    pub older: PathBuf,
    pub foreign: PathBuf,
}

pub fn spoil(kind: &str, image: &Path, others: &Others, rng: &mut fastrand::Rng) {
    match kind {
        "flip" => flip(&one_of(image, rng), rng),
        "zero" => zero(&image.join("db"), rng),
        "truncate" => truncate(&one_of(image, rng), rng),
        "append" => append(&one_of(image, rng), rng),
        "missing" => fs::remove_file(one_of(image, rng)).expect("removed"),
        "swapped" => {
            let file = rng.choice(files(&others.older)).expect("a file");
            let to = image.join(file.file_name().expect("a name"));
            fs::copy(&file, to).expect("copied");
        }
        "foreign" => put_in_place(&others.foreign, image),
        "older" => put_in_place(&others.older, image),
        "mixed" => mix(&image.join("db"), &others.older.join("db"), rng),
        other => panic!("no such kind: {other}"),
    }
}

/// Mostly the large one, in which everything is.
fn one_of(image: &Path, rng: &mut fastrand::Rng) -> PathBuf {
    match rng.u8(..6) {
        0 => rng.choice(files(image)).expect("a file"),
        _ => image.join("db"),
    }
}

fn files(image: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(image).expect("an image");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

pub fn flip(path: &Path, rng: &mut fastrand::Rng) {
    let file = open(path);
    let at = rng.u64(..length(&file));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    byte[0] ^= 1 << rng.u8(..8);
    file.write_all_at(&byte, at).expect("written");
}

pub fn zero(path: &Path, rng: &mut fastrand::Rng) {
    let file = open(path);
    let page = rng.u64(..length(&file).div_ceil(PAGE_BYTES));
    let zeros = [0; PAGE_BYTES as usize];
    file.write_all_at(&zeros, page * PAGE_BYTES)
        .expect("written");
}

fn truncate(path: &Path, rng: &mut fastrand::Rng) {
    let file = open(path);
    file.set_len(rng.u64(..length(&file))).expect("truncated");
}

fn append(path: &Path, rng: &mut fastrand::Rng) {
    let mut file = open(path);
    let mut bytes = vec![0; rng.usize(1..10_000)];
    rng.fill(&mut bytes);
    file.seek(SeekFrom::End(0)).expect("sought");
    file.write_all(&bytes).expect("appended");
}

/// Any page may be of either moment, as a power cut leaves a file that was not fsynced.
fn mix(path: &Path, older: &Path, rng: &mut fastrand::Rng) {
    let mut old = Vec::new();
    let read = File::open(older).and_then(|mut file| file.read_to_end(&mut old));
    read.expect("read");
    let file = open(path);
    let most_are_old = rng.bool();
    for (number, page) in old.chunks(PAGE_BYTES as usize).enumerate() {
        if (rng.u8(..8) > 0) == most_are_old {
            let at = number as u64 * PAGE_BYTES;
            file.write_all_at(page, at).expect("written");
        }
    }
}

fn open(path: &Path) -> File {
    let open = File::options().read(true).write(true).open(path);
    open.expect("opened")
}

fn length(file: &File) -> u64 {
    file.metadata().expect("looked at").len()
}

fn put_in_place(from: &Path, to: &Path) {
    fs::remove_dir_all(to).expect("removed");
    copy(from, to);
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let (from, to) = {
            let entry = entry.expect("an entry");
            (entry.path(), to.join(entry.file_name()))
        };
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).expect("copied")),
        }
    }
}
