//! The file that a core is written to: how many bytes have moved, how many more fit, and how much
//! of its file system must stay free.

use super::pages::CHUNK;
use super::stop::Stop;
use crate::sys::counter::Counter;
use crate::sys::filesystem::{self, FsType};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, descriptor};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The file that is written: how many bytes it has, and how many it may have.
pub(crate) struct CopyTarget {
    file: OwnedFd,
    /// Counts each byte that is read or written, for the watchdog.
    moved: Counter,
    written: AtomicU64,
    /// Most bytes on disk.
    room: u64,
    /// How many bytes of the file system must stay free. Others write there too, so this is checked
    /// again and again.
    floor: Option<u64>,
    full: AtomicBool,
    short: AtomicBool,
    /// Most bytes of one call. Slow targets get smaller calls, so that the watchdog sees bytes
    /// move.
    step: AtomicUsize,
}

/// A call that takes longer than this is followed by a smaller one, one that takes less than half
/// of it by a larger one.
const SLOW: Duration = Duration::from_millis(500);

/// Smallest size of a call.
const SMALLEST: usize = 4096;

/// How often the free space is checked, in bytes written. Each dump may exceed the limit by as
/// much.
const LOOK: u64 = 1 << 20;

/// How much a target takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Most bytes on disk.
    pub room: Option<u64>,
    /// Bytes that must stay free of its file system.
    pub floor: Option<u64>,
}

impl CopyTarget {
    /// `kind`: of its file system.
    pub(crate) fn new(file: OwnedFd, moved: Counter, space: Capacity, kind: FsType) -> Self {
        let step = if kind == FsType::Served { 4 * SMALLEST } else { CHUNK };
        CopyTarget {
            file,
            moved,
            written: AtomicU64::new(0),
            room: space.room.unwrap_or(u64::MAX),
            floor: space.floor.filter(|floor| *floor > 0),
            full: AtomicBool::new(false),
            short: AtomicBool::new(false),
            step: AtomicUsize::new(step),
        }
    }

    /// Counts bytes that were read or written, for the watchdog.
    pub(crate) fn moved(&self, n: usize) {
        self.moved.add(n as u64);
    }

    /// Whether the room was used up. What is written after that is only what makes the file
    /// readable.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether the target is full because others have used space that must stay free.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Whether less is free than must stay free. Where that cannot be found out, the copy goes on.
    fn is_below_floor(&self) -> bool {
        let space = || filesystem::space(&self.file).ok().filter(|space| space.total > 0);
        self.floor.is_some_and(|floor| space().is_some_and(|space| space.available < floor))
    }

    /// The first `n` bytes stay, the others will be written again.
    pub(crate) fn again_from(&self, n: u64) {
        self.written.store(n, Ordering::Relaxed);
    }

    /// Whether there is room for `n` bytes more; if not, it is used up.
    pub(crate) fn fits(&self, n: usize) -> bool {
        let fits = n as u64 <= self.room.saturating_sub(self.written.load(Ordering::Relaxed));
        self.full.fetch_or(!fits, Ordering::Relaxed);
        fits
    }

    fn call(
        &self,
        bytes: &[u8],
        write: impl FnOnce(&[u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Stop> {
        let step = self.step.load(Ordering::Relaxed);
        let mut bytes = &bytes[..bytes.len().min(step)];
        if !self.is_full() {
            let size = bytes.len() as u64;
            let before = self.written.fetch_add(size, Ordering::Relaxed);
            let left = self.room.saturating_sub(before);
            let is_due = before / LOOK != (before + size) / LOOK;
            if is_due && self.is_below_floor() {
                self.short.store(true, Ordering::Relaxed);
            }
            if left == 0 || self.is_short() {
                self.full.store(true, Ordering::Relaxed);
                return Err(Stop::Full);
            }
            bytes = &bytes[..bytes.len().min(left as usize)];
        }
        let start = Instant::now();
        let n = write(bytes).map_err(Stop::Write)?;
        let took = start.elapsed();
        if took > SLOW {
            self.step.store((step / 4).max(SMALLEST), Ordering::Relaxed);
        } else if took < SLOW / 2 && bytes.len() == step && step < CHUNK {
            self.step.store(2 * step, Ordering::Relaxed);
        }
        self.moved(n);
        Ok(n)
    }

    /// Writes all of `bytes` at an offset.
    pub(crate) fn write_at(&self, mut bytes: &[u8], mut at: u64) -> Result<(), Stop> {
        while !bytes.is_empty() {
            match self.call(bytes, |b| descriptor::write_at(&self.file, b, at))? {
                0 => return Err(Stop::Write(Errno::NOSPC)),
                n => (bytes, at) = (&bytes[n..], at + n as u64),
            }
        }
        Ok(())
    }

    /// Writes the start of `bytes` at the end of the file.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<usize, Stop> {
        self.call(bytes, |b| descriptor::write(&self.file, b))
    }
}

impl AsFd for CopyTarget {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
