//! What is in a tree of files, and what changed between two looks at it.
//!
//! A container's tree is read through `/proc/PID/root`, so its mounts are seen as
//! its own processes see them.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{Error, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

/// What two looks at a file are compared by.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    inode: (u64, u64),
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    target: Option<PathBuf>,
}

/// All files of a tree by their path below its root.
pub struct Snapshot(BTreeMap<Vec<u8>, Seen>);

/// A file as it is after the crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Device and inode.
    pub id: (u64, u64),
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    /// The number of hard links; 0 for a directory.
    pub links: u64,
    /// The size in bytes; 0 for a directory.
    pub size: u64,
    pub target: Option<PathBuf>,
    /// Of a regular file.
    pub content: Vec<u8>,
    /// Allocated, in units of 512 bytes.
    pub blocks: u64,
    /// Where data is, `start..end` in bytes; the rest are holes.
    pub data: Vec<(u64, u64)>,
}

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Added(Node),
    Removed,
    Changed(Node),
}

impl Snapshot {
    /// Everything below `root`, except its /proc and /sys.
    pub fn take(root: &Path) -> Self {
        let mut seen = BTreeMap::new();
        walk(root, &PathBuf::new(), &mut seen);
        Self(seen)
    }

    /// The differences between this snapshot and the directory as it is now.
    pub fn changes(&self, root: &Path) -> BTreeMap<Vec<u8>, Change> {
        let now = Self::take(root);
        let mut changes = BTreeMap::new();
        for (path, seen) in &now.0 {
            let before = self.0.get(path);
            if before == Some(seen) {
                continue;
            }
            let change = if before.is_none() { Change::Added } else { Change::Changed };
            // Gone since: a helper that has let its process go still tidies up behind itself.
            let Ok(node) = node(&root.join(OsString::from_vec(path.clone()))) else { continue };
            changes.insert(path.clone(), change(node));
        }
        for path in self.0.keys().filter(|path| !now.0.contains_key(*path)) {
            changes.insert(path.clone(), Change::Removed);
        }
        changes
    }
}

fn walk(root: &Path, below: &Path, seen: &mut BTreeMap<Vec<u8>, Seen>) {
    let entries = match fs::read_dir(root.join(below)) {
        Err(cause) if cause.kind() == ErrorKind::NotFound && !below.as_os_str().is_empty() => {
            return;
        }
        entries => entries.unwrap_or_else(|cause| panic!("{root:?} {below:?}: {cause}")),
    };
    for entry in entries {
        let name = entry.unwrap().file_name();
        if below.as_os_str().is_empty() && (name == "proc" || name == "sys") {
            continue;
        }
        let path = below.join(name);
        // Gone since: then it is not there.
        let Ok(meta) = root.join(&path).symlink_metadata() else { continue };
        let directory = meta.is_dir();
        // A directory's size, links and times change with what is in it, which is seen for itself.
        let of_file = |value| if directory { 0 } else { value };
        seen.insert(
            path.as_os_str().as_bytes().to_vec(),
            Seen {
                inode: (meta.dev(), meta.ino()),
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                links: of_file(meta.nlink()),
                size: of_file(meta.size()),
                modified: if directory { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) },
                changed: if directory { (0, 0) } else { (meta.ctime(), meta.ctime_nsec()) },
                target: fs::read_link(root.join(&path)).ok(),
            },
        );
        if directory {
            walk(root, &path, seen);
        }
    }
}

/// An error if it is not there.
fn node(path: &Path) -> Result<Node, Error> {
    let meta = path.symlink_metadata()?;
    let mut node = Node {
        id: (meta.dev(), meta.ino()),
        kind: kind(&meta),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        links: if meta.is_dir() { 0 } else { meta.nlink() },
        size: if meta.is_dir() { 0 } else { meta.size() },
        target: fs::read_link(path).ok(),
        content: Vec::new(),
        blocks: 0,
        data: Vec::new(),
    };
    if meta.is_file() {
        let file = File::open(path)?;
        // What is allocated is settled only when it has been written out.
        file.sync_all().unwrap();
        (&file).read_to_end(&mut node.content).unwrap();
        node.blocks = file.metadata().unwrap().blocks();
        node.data = data(&file);
    }
    Ok(node)
}

fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_file() => "file",
        () => "other",
    }
}

fn data(file: &File) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
        ranges.push((start, at));
    }
    ranges
}
