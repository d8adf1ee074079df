//! A volume in memory: what it holds now, and what of that a power cut could not take away.
//!
//! The model is stricter than most file systems: a name is safe once its directory was fsynced, bytes once
//! their file was. Inodes tell a file that was renamed from one that was made anew.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::step::Act;

const IMAGE: &str = "image";

/// Whether a crash leaves the image: it may always be lost, and its files are the largest by far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    Lost,
    Left,
}

/// A file's bytes, shared by all the moments at which it was the same.
#[derive(Clone)]
struct Blob {
    bytes: Arc<[u8]>,
    hash: blake3::Hash,
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        self.hash == other.hash
    }
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Blob {
        let hash = blake3::hash(&bytes);
        Blob {
            bytes: bytes.into(),
            hash,
        }
    }
}

/// Directories and files by inode.
#[derive(Clone, Default, PartialEq)]
struct Content {
    root: u64,
    directories: HashMap<u64, BTreeMap<OsString, u64>>,
    files: HashMap<u64, Blob>,
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

impl Content {
    fn read(root: &Path, before: &Content, image: Image) -> Content {
        let mut content = Content {
            root: inode(root).expect("a volume is there"),
            ..Content::default()
        };
        content.read_directory(root, before, image);
        content
    }

    fn read_directory(&mut self, path: &Path, before: &Content, image: Image) {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            // Who writes beside the steps may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if image == Image::Lost && entry.file_name() == IMAGE {
                continue;
            }
            if metadata.is_dir() {
                self.read_directory(&entry.path(), before, image);
                names.insert(entry.file_name(), metadata.ino());
                continue;
            }
            let Ok(bytes) = fs::read(entry.path()) else {
                continue;
            };
            let known = before.files.get(&metadata.ino());
            let blob = match known.filter(|known| *known.bytes == *bytes) {
                Some(known) => known.clone(),
                None => Blob::new(bytes),
            };
            self.files.insert(metadata.ino(), blob);
            names.insert(entry.file_name(), metadata.ino());
        }
        self.directories.insert(inode(path).unwrap(), names);
    }

    /// Which inode became which, in another volume with the same names.
    fn compare_names(&self, here: u64, other: &Content, there: u64, into: &mut HashMap<u64, u64>) {
        into.insert(here, there);
        for (name, here) in self.directories.get(&here).into_iter().flatten() {
            if let Some(there) = other.directories[&there].get(name) {
                self.compare_names(*here, other, *there, into);
            }
        }
    }

    fn renumbered(&self, inodes: &HashMap<u64, u64>) -> Content {
        // Those without a name any more keep apart from the new ones.
        let new = |old: &u64| inodes.get(old).copied().unwrap_or(old | 1 << 63);
        let names = |names: &BTreeMap<OsString, u64>| {
            let names = names.iter().map(|(name, inode)| (name.clone(), new(inode)));
            names.collect()
        };
        let directories = self.directories.iter();
        let files = self.files.iter();
        Content {
            root: new(&self.root),
            directories: directories
                .map(|(inode, of)| (new(inode), names(of)))
                .collect(),
            files: files
                .map(|(inode, blob)| (new(inode), blob.clone()))
                .collect(),
        }
    }
}

/// How a moment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The memory of the kernel outlives the process.
    Kill,
    /// What was not fsynced is lost, of these.
    PowerCut { names: Names, bytes: Bytes },
}

/// What a power cut leaves of names whose directories were not fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    Kept,
    Lost,
    /// Only the newest change reached the disk: nobody promises an order.
    Newest,
}

/// What a power cut makes of bytes that were not fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    Kept,
    Lost,
    /// The length reached the disk and the bytes did not.
    Zeroed,
}

pub const ENDS: [End; 8] = [
    End::Kill,
    power_cut(Names::Lost, Bytes::Kept),
    power_cut(Names::Lost, Bytes::Lost),
    power_cut(Names::Lost, Bytes::Zeroed),
    power_cut(Names::Kept, Bytes::Lost),
    power_cut(Names::Kept, Bytes::Zeroed),
    power_cut(Names::Newest, Bytes::Kept),
    power_cut(Names::Newest, Bytes::Lost),
];

const fn power_cut(names: Names, bytes: Bytes) -> End {
    End::PowerCut { names, bytes }
}

/// What the disk holds, and what of it could not be lost.
#[derive(Clone, PartialEq)]
struct State {
    now: Content,
    durable: Content,
    /// The last change of names: directory, name, what it leads to since.
    newest: Vec<(u64, OsString, Option<u64>)>,
}

pub struct ModelDisk {
    root: PathBuf,
    state: State,
    /// The path of the next step is not there yet.
    is_new: bool,
    image: Image,
}

impl ModelDisk {
    /// Everything there is durable.
    pub fn of(root: &Path, image: Image) -> ModelDisk {
        let now = Content::read(root, &Content::default(), image);
        let durable = now.clone();
        ModelDisk {
            root: root.into(),
            state: State {
                now,
                durable,
                newest: Vec::new(),
            },
            is_new: false,
            image,
        }
    }

    /// Of a volume as it was left and written here. After a kill, what was not durable still is not.
    pub fn of_left(root: &Path, left: &Left) -> ModelDisk {
        let has_image = left.tree.0.keys().any(|path| path.ends_with(IMAGE));
        let image = if has_image { Image::Left } else { Image::Lost };
        let mut disk = ModelDisk::of(root, image);
        if let Some(was) = &left.unsynced {
            let mut inodes = HashMap::new();
            was.now.compare_names(
                was.now.root,
                &disk.state.now,
                disk.state.now.root,
                &mut inodes,
            );
            disk.state.durable = was.durable.renumbered(&inodes);
        }
        disk
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Only steps change the disk, so it is as it was after the last one.
    pub fn before(&mut self, act: Act<'_>) {
        self.is_new = !act.path().exists();
    }

    /// Whether anything is other than before.
    pub fn after(&mut self, act: Act<'_>, is_done: bool) -> bool {
        let before = self.state.clone();
        if !matches!(act, Act::Sync(_) | Act::SyncDirectory(_)) {
            self.state.now = Content::read(&self.root, &before.now, self.image);
            self.note_names(&before.now);
        }
        if let Some(inode) = inode(act.path()).filter(|_| is_done) {
            self.make_durable(act, inode);
        }
        before != self.state
    }

    fn note_names(&mut self, before: &Content) {
        let State {
            now,
            durable,
            newest,
        } = &mut self.state;
        if now.directories == before.directories {
            return;
        }
        newest.clear();
        let none = BTreeMap::new();
        for (directory, names) in &now.directories {
            // Nothing in a new one is safe.
            durable.directories.entry(*directory).or_default();
            let before = before.directories.get(directory).unwrap_or(&none);
            for name in names.keys().chain(before.keys()) {
                let leads_to = names.get(name).copied();
                if leads_to != before.get(name).copied() {
                    newest.push((*directory, name.clone(), leads_to));
                }
            }
        }
    }

    fn make_durable(&mut self, act: Act<'_>, inode: u64) {
        let State { now, durable, .. } = &mut self.state;
        match act {
            // The number may have been that of another file once.
            Act::Create(_) if self.is_new => drop(durable.files.remove(&inode)),
            Act::MakeDirectory(_) if self.is_new => {
                durable.directories.insert(inode, BTreeMap::new());
            }
            Act::Sync(_) => {
                if let Some(bytes) = now.files.get(&inode) {
                    durable.files.insert(inode, bytes.clone());
                }
            }
            Act::SyncDirectory(_) => {
                // The volume's own name is not its business.
                if let Some(names) = now.directories.get(&inode) {
                    durable.directories.insert(inode, names.clone());
                }
            }
            _ => {}
        }
    }

    /// What is left if all ends now.
    pub fn at(&self, end: End) -> Left {
        match end {
            End::Kill => Left {
                tree: self.state.tree(Names::Kept, Bytes::Kept),
                unsynced: Some(Arc::new(self.state.clone())),
            },
            End::PowerCut { names, bytes } => Left::durable(self.state.tree(names, bytes)),
        }
    }
}

impl State {
    fn tree(&self, names: Names, bytes: Bytes) -> Tree {
        let mut directories = match names {
            Names::Kept => self.now.directories.clone(),
            Names::Lost | Names::Newest => self.durable.directories.clone(),
        };
        if names == Names::Newest {
            for (directory, name, leads_to) in &self.newest {
                let names = directories.entry(*directory).or_default();
                match leads_to {
                    Some(inode) => names.insert(name.clone(), *inode),
                    None => names.remove(name),
                };
            }
        }
        let mut tree = Tree::default();
        self.gather(&directories, bytes, self.now.root, Path::new(""), &mut tree);
        tree
    }

    fn gather(
        &self,
        directories: &HashMap<u64, BTreeMap<OsString, u64>>,
        bytes: Bytes,
        inode: u64,
        path: &Path,
        tree: &mut Tree,
    ) {
        for (name, inode) in directories.get(&inode).into_iter().flatten() {
            let path = path.join(name);
            if self.durable.directories.contains_key(inode) {
                tree.0.insert(path.clone(), None);
                self.gather(directories, bytes, *inode, &path, tree);
            } else {
                tree.0.insert(path, Some(self.bytes_of(*inode, bytes)));
            }
        }
    }

    fn bytes_of(&self, inode: u64, bytes: Bytes) -> Blob {
        let durable = self.durable.files.get(&inode);
        let now = self.now.files.get(&inode);
        let empty = || Blob::new(Vec::new());
        match (bytes, now) {
            (Bytes::Kept, Some(now)) => now.clone(),
            (Bytes::Zeroed, Some(now)) => {
                let mut bytes = durable.map_or(Vec::new(), |durable| durable.bytes.to_vec());
                bytes.resize(now.bytes.len(), 0);
                Blob::new(bytes)
            }
            _ => durable.cloned().unwrap_or_else(empty),
        }
    }
}

/// A volume as a crash leaves it.
#[derive(Clone)]
pub struct Left {
    tree: Tree,
    /// After a kill: a power cut can still take what was not fsynced.
    unsynced: Option<Arc<State>>,
}

impl Left {
    pub fn durable(tree: Tree) -> Left {
        let unsynced = None;
        Left { tree, unsynced }
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The same for volumes with the same content that could lose the same.
    pub fn id(&self) -> LeftId {
        let now = self.tree.id();
        let Some(state) = &self.unsynced else {
            return now;
        };
        let lost = [
            (Names::Lost, Bytes::Kept),
            (Names::Kept, Bytes::Lost),
            (Names::Lost, Bytes::Lost),
        ]
        .map(|(names, bytes)| state.tree(names, bytes).id());
        if lost.iter().all(|lost| *lost == now) {
            return now;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(now.as_bytes());
        for lost in lost {
            hasher.update(lost.as_bytes());
        }
        hasher.finalize()
    }
}

/// A volume as it can be written down again. `None` is a directory.
#[derive(Clone, Default)]
pub struct Tree(BTreeMap<PathBuf, Option<Blob>>);

pub type LeftId = blake3::Hash;

impl Tree {
    pub fn of(root: &Path) -> Tree {
        ModelDisk::of(root, Image::Lost).at(End::Kill).tree
    }

    /// The same for the same names and bytes.
    pub fn id(&self) -> LeftId {
        let mut hasher = blake3::Hasher::new();
        for (path, blob) in &self.0 {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&[0, u8::from(blob.is_some())]);
            if let Some(blob) = blob {
                hasher.update(blob.hash.as_bytes());
            }
        }
        hasher.finalize()
    }

    pub fn write_to(&self, root: &Path) {
        for (path, blob) in &self.0 {
            let path = root.join(path);
            match blob {
                None => fs::create_dir(path).unwrap(),
                Some(blob) => fs::write(path, &blob.bytes).unwrap(),
            }
        }
    }

    /// Files whose bytes differ, and what they hold here and there.
    pub fn changed<'a>(&'a self, other: &'a Tree) -> Vec<(&'a Path, &'a [u8], &'a [u8])> {
        let mut changed = Vec::new();
        for (path, blob) in &self.0 {
            if let (Some(here), Some(Some(there))) = (blob, other.0.get(path))
                && here.hash != there.hash
            {
                changed.push((path.as_path(), &*here.bytes, &*there.bytes));
            }
        }
        changed
    }
}
