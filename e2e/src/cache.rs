//! Built things outside the tree, found again by the hash of all that went into them.
//!
//! An entry is a folder that appears by one rename, so a killed build leaves only a temporary
//! folder, which the next build of that name removes.

use anyhow::{Context, Result};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Older entries of one name kept beside the newest: enough to switch between branches.
const OLDER_KEPT: usize = 3;

/// `$XDG_CACHE_HOME/taskstore`, or `~/.cache/taskstore`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?,
        )
        .join(".cache"),
    };
    Ok(base.join("taskstore"))
}

/// Hash of everything an entry is made from.
#[derive(Default)]
pub struct Key(blake3::Hasher);

impl Key {
    pub fn text(mut self, text: &str) -> Self {
        self.0
            .update(&(text.len() as u64).to_le_bytes())
            .update(text.as_bytes());
        self
    }

    pub fn file(mut self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        self.0
            .update(&(bytes.len() as u64).to_le_bytes())
            .update(&bytes);
        Ok(self)
    }

    pub fn short(&self) -> String {
        self.0.finalize().to_hex()[..16].to_owned()
    }
}

/// The entry's folder, made by `build` (which gets an empty folder to fill) when it is not there.
pub async fn entry<F>(
    kind: &str,
    name: &str,
    key: &Key,
    build: impl FnOnce(PathBuf) -> F,
) -> Result<PathBuf>
where
    F: Future<Output = Result<()>>,
{
    let shelf = root()?.join(kind);
    let finished = shelf.join(format!("{name}-{}", key.short()));
    if finished.is_dir() {
        return Ok(finished);
    }
    let fresh = shelf.join(format!(".{name}.new"));
    fs::create_dir_all(&shelf)?;
    // Two sessions may want the same entry: the second waits and then finds it.
    let _lock = lock(&shelf.join(format!(".{name}.lock"))).await?;
    if finished.is_dir() {
        return Ok(finished);
    }
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    build(fresh.clone()).await?;
    fs::rename(&fresh, &finished)?;
    forget_old(&shelf, name)?;
    Ok(finished)
}

/// An exclusive lock that ends with the returned file, also when the process is killed.
pub async fn lock(path: &Path) -> Result<fs::File> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    tokio::task::spawn_blocking(move || {
        file.lock()?;
        Ok(file)
    })
    .await?
}

fn forget_old(shelf: &Path, name: &str) -> Result<()> {
    let prefix = format!("{name}-");
    let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(shelf)? {
        let entry = entry?;
        let file = entry.file_name();
        let rest = file.to_str().and_then(|file| file.strip_prefix(&prefix));
        if rest
            .is_some_and(|key| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    entries.sort();
    entries.reverse();
    for (_, path) in entries.into_iter().skip(1 + OLDER_KEPT) {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
