//! What disks and hands do to a file.

use std::path::Path;

use crate::scene::{Files, Scene};

const PAGE_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Flip,
    ZeroedPage,
    Truncated,
    Appended,
    Gone,
    /// The file of another cluster stands in its place.
    Foreign,
}

pub const DAMAGES: [Damage; 6] = [
    Damage::Flip,
    Damage::ZeroedPage,
    Damage::Truncated,
    Damage::Appended,
    Damage::Gone,
    Damage::Foreign,
];

impl Damage {
    /// False: the file is as it was, or there is none.
    pub fn hit(
        self,
        path: &Path,
        files: &mut Files,
        scene: &Scene,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let Some(bytes) = files.get_mut(path) else {
            return false;
        };
        let before = bytes.clone();
        match self {
            Damage::Gone => return files.remove(path).is_some(),
            Damage::Foreign => bytes.clone_from(&scene.foreign[path]),
            Damage::Flip => bytes[rng.usize(0..before.len())] ^= 1 << rng.u32(0..8),
            Damage::Truncated => bytes.truncate(rng.usize(0..before.len())),
            Damage::Appended => bytes.extend((0..rng.usize(1..6_000)).map(|_| rng.u8(..))),
            Damage::ZeroedPage => {
                let page = rng.usize(0..before.len().div_ceil(PAGE_BYTES));
                let end = before.len().min((page + 1) * PAGE_BYTES);
                bytes[page * PAGE_BYTES..end].fill(0);
            }
        }
        *bytes != before
    }
}
