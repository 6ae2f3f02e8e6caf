//! A directory on a FUSE file system of the test's own: it takes what is written to it, fails with
//! an error of the test's choice, or does not answer at all.
//!
//! ```ignore
//! let target = Fuse::mount();
//! target.on_write(1 << 20, Answer::Fail(Errno::EIO as i32));   // after so many bytes
//! ```
//!
//! One flat directory, writable by everybody like /tmp; names and owners as the kernel tells
//! them; everything in memory.
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// How a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bytes are taken.
    Take,
    /// The write fails with this error number.
    Fail(i32),
    /// There is no answer until [`Fuse::go_on`].
    Hold,
    /// The bytes are taken after so many milliseconds.
    Late(u64),
}

/// A mounted directory. Drop answers whatever waits, and unmounts it.
pub struct Fuse {
    directory: TempDir,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

struct Shared {
    device: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Node>,
    last: u64,
    /// After how many bytes written in all, and what then.
    rule: Option<(u64, Answer)>,
    taken: u64,
    /// Not after how many bytes, but behind which of a file.
    by_place: bool,
    /// Requests of this operation are not answered.
    hold: Option<u32>,
    held_requests: Vec<Vec<u8>>,
    held: Vec<(u64, u64, Vec<u8>, u64)>,
}

#[derive(Clone, Default)]
struct Node {
    name: String,
    linked: bool,
    mode: u32,
    uid: u32,
    gid: u32,
    data: Vec<u8>,
}

/// include/uapi/linux/fuse.h
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

const ROOT: u64 = 1;
const HEADER: usize = 40;
const MAX_WRITE: u32 = 128 << 10;

impl Fuse {
    /// Mounts it in the mount namespace of the test; containers that are made afterwards see it.
    pub fn mount() -> Self {
        let directory = TempDir::with_prefix("fuse").unwrap();
        let device =
            OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!(
            "fd={},rootmode=41777,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        mount(
            Some("test"),
            directory.path(),
            Some("fuse.test"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("mount fuse");
        let shared = Arc::new(Shared {
            device,
            state: Mutex::new(State { last: ROOT, ..State::default() }),
            changed: Condvar::new(),
        });
        let serving = shared.clone();
        let server = std::thread::spawn(move || serving.serve());
        Self { directory, shared, server: Some(server) }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// From so many bytes on, counted from now, every write gets this answer.
    pub fn on_write(&self, after: u64, answer: Answer) {
        let mut state = self.shared.lock();
        (state.taken, state.by_place) = (0, false);
        state.rule = Some((after, answer));
    }

    /// Every write that ends behind so many bytes of its file gets this answer: a disk
    /// that is bad from there on.
    pub fn beyond(&self, size: u64, answer: Answer) {
        self.on_write(size, answer);
        self.shared.lock().by_place = true;
    }

    /// From now on nobody gets an answer who makes a file.
    pub fn hold_create(&self) {
        self.hold(op::CREATE);
    }

    /// From now on nobody gets an answer to this operation (one of [`op`]).
    pub fn hold(&self, operation: u32) {
        self.shared.lock().hold = Some(operation);
    }

    /// Waits until a request is held. False: none was, in that time.
    pub fn wait_held(&self, most: Duration) -> bool {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, most, |state| {
                state.held.is_empty() && state.held_requests.is_empty()
            })
            .unwrap();
        !state.held.is_empty() || !state.held_requests.is_empty()
    }

    /// Takes the writes that are held, and all that come.
    pub fn go_on(&self) {
        let mut state = self.shared.lock();
        state.rule = None;
        state.hold = None;
        for request in std::mem::take(&mut state.held_requests) {
            drop(state);
            self.shared.answer(&request);
            state = self.shared.lock();
        }
        for (unique, node, data, offset) in std::mem::take(&mut state.held) {
            self.shared.reply(unique, &state.write(node, offset, &data));
        }
    }

    /// What is in a file, without asking the kernel (which might wait for an answer).
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.shared
            .lock()
            .files
            .values()
            .find(|node| node.linked && node.name == name)
            .map(|node| node.data.clone())
    }

    /// The names that are there, in the same way.
    pub fn names(&self) -> Vec<String> {
        self.shared
            .lock()
            .files
            .values()
            .filter(|node| node.linked)
            .map(|node| node.name.clone())
            .collect()
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.go_on();
        // Lazily: somebody may still have it open. The server ends when the last one has gone,
        // and nobody waits for that.
        if let Err(cause) = umount2(self.directory.path(), MntFlags::MNT_DETACH) {
            eprintln!("umount {:?}: {cause}", self.directory.path());
        }
        drop(self.server.take());
    }
}

impl State {
    fn find(&self, name: &str) -> Option<u64> {
        self.files.iter().find(|(_, node)| node.linked && node.name == name).map(|(id, _)| *id)
    }

    fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Result<Vec<u8>, i32> {
        let file = self.files.get_mut(&node).ok_or(libc_enoent())?;
        let end = offset as usize + data.len();
        if file.data.len() < end {
            file.data.resize(end, 0);
        }
        file.data[offset as usize..end].copy_from_slice(data);
        Ok([data.len() as u32, 0].iter().flat_map(|n| n.to_ne_bytes()).collect())
    }

    fn attributes(&self, id: u64) -> Option<Vec<u8>> {
        let root = Node { mode: 0o41777, linked: true, ..Node::default() };
        let node = if id == ROOT { &root } else { self.files.get(&id)? };
        let size = node.data.len() as u64;
        let mut out: Vec<u8> =
            [id, size, size.div_ceil(512), 0, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        out.extend(
            [0, 0, 0, node.mode, u32::from(node.linked), node.uid, node.gid, 0, 4096, 0]
                .iter()
                .flat_map(|n| n.to_ne_bytes()),
        );
        Some(out)
    }

    /// `struct fuse_entry_out`: nothing may be cached.
    fn entry(&self, id: u64) -> Result<Vec<u8>, i32> {
        let mut out: Vec<u8> =
            [id, 0, 0, 0, 0].iter().flat_map(|n: &u64| n.to_ne_bytes()).collect();
        out.extend(self.attributes(id).ok_or(libc_enoent())?);
        Ok(out)
    }
}

fn libc_enoent() -> i32 {
    nix::errno::Errno::ENOENT as i32
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self) {
        let mut buffer = vec![0; MAX_WRITE as usize + 4096];
        loop {
            match (&self.device).read(&mut buffer) {
                Ok(size) => self.answer(&buffer[..size]),
                // ENOENT: the request was taken back. Anything else: unmounted.
                Err(cause) if cause.raw_os_error() == Some(libc_enoent()) => {}
                Err(_) => return,
            }
        }
    }

    fn reply(&self, unique: u64, result: &Result<Vec<u8>, i32>) {
        let (error, body) = match result {
            Ok(body) => (0, body.as_slice()),
            Err(error) => (-error, &[][..]),
        };
        let mut out = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        out.extend(error.to_ne_bytes());
        out.extend(unique.to_ne_bytes());
        out.extend(body);
        // Whoever asked may be gone.
        let _ = (&self.device).write_all(&out);
    }

    fn answer(&self, request: &[u8]) {
        let (code, unique, id) = (word(request, 4), long(request, 8), long(request, 16));
        let (header, body) = request.split_at(HEADER);
        let mut state = self.lock();
        if state.hold == Some(code) {
            state.held_requests.push(request.to_vec());
            self.changed.notify_all();
            return;
        }
        let result = match code {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return,
            op::INIT => {
                let mut out: Vec<u8> =
                    [7u32, 31, 1 << 16, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
                out.extend([12u16, 9].iter().flat_map(|n| n.to_ne_bytes()));
                out.extend([MAX_WRITE, 1].iter().flat_map(|n| n.to_ne_bytes()));
                out.resize(64, 0);
                Ok(out)
            }
            op::LOOKUP => {
                state.find(&name(body)).ok_or(libc_enoent()).and_then(|id| state.entry(id))
            }
            op::GETATTR | op::SETATTR => {
                const SIZE: u32 = 1 << 3;
                if code == op::SETATTR
                    && word(body, 0) & SIZE != 0
                    && let Some(node) = state.files.get_mut(&id)
                {
                    node.data.resize(long(body, 16) as usize, 0);
                }
                state
                    .attributes(id)
                    .ok_or(libc_enoent())
                    .map(|attributes| [vec![0; 16], attributes].concat())
            }
            op::CREATE => {
                state.last += 1;
                let id = state.last;
                let mode = word(body, 4);
                let node = Node {
                    name: name(&body[16..]),
                    linked: true,
                    mode,
                    uid: word(header, 24),
                    gid: word(header, 28),
                    data: Vec::new(),
                };
                state.files.insert(id, node);
                state.entry(id).map(|entry| [entry, vec![0; 16]].concat())
            }
            op::UNLINK => state.find(&name(body)).ok_or(libc_enoent()).map(|id| {
                state.files.get_mut(&id).unwrap().linked = false;
                Vec::new()
            }),
            op::OPEN | op::OPENDIR => Ok(vec![0; 16]),
            op::READ => {
                let data =
                    state.files.get(&id).map(|node| node.data.as_slice()).unwrap_or_default();
                let start = (long(body, 8) as usize).min(data.len());
                Ok(data[start..(start + word(body, 16) as usize).min(data.len())].to_vec())
            }
            op::WRITE => {
                let (offset, data) = (long(body, 8), &body[40..]);
                let before = if state.by_place { offset } else { state.taken };
                let rule = state.rule.filter(|(after, _)| before + data.len() as u64 > *after);
                match rule.map_or(Answer::Take, |(_, answer)| answer) {
                    Answer::Take => {
                        state.taken += data.len() as u64;
                        state.write(id, offset, data)
                    }
                    Answer::Fail(error) => Err(error),
                    Answer::Late(milliseconds) => {
                        // what is tested is a slow target
                        std::thread::sleep(Duration::from_millis(milliseconds));
                        state.write(id, offset, data)
                    }
                    Answer::Hold => {
                        state.held.push((unique, id, data.to_vec(), offset));
                        self.changed.notify_all();
                        return;
                    }
                }
            }
            op::STATFS => {
                let mut out: Vec<u8> = [1u64 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20]
                    .iter()
                    .flat_map(|n| n.to_ne_bytes())
                    .collect();
                out.extend([4096u32, 255, 4096].iter().flat_map(|n| n.to_ne_bytes()));
                out.resize(80, 0);
                Ok(out)
            }
            op::READDIR | op::RELEASE | op::RELEASEDIR | op::FLUSH => Ok(Vec::new()),
            _ => Err(nix::errno::Errno::ENOSYS as i32),
        };
        self.reply(unique, &result);
    }
}
