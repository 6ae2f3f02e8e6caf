//! The core on its way to the disk: the kernel's accounts of what counts against RLIMIT_CORE and
//! where the file ends, over a file with holes or a compressed one.

use crate::dump::copy::lanes::{CHUNK, Stop};
use crate::sys::counter::Counter;
use crate::sys::filesystem::{self, FsType};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, process};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What takes the bytes of a core, in ascending order of their offsets.
pub trait Sink {
    /// Writes `bytes` at `offset`; what was left out before them are zeros.
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop>;
    /// No more comes: the core has this size.
    fn end(&mut self, size: u64) -> Result<(), Stop>;
}

/// The file that is written: how far it has come, and how far it may.
pub struct Target {
    file: OwnedFd,
    /// Every byte that moves counts, for whoever watches.
    moved: Counter,
    written: AtomicU64,
    /// Most bytes on disk.
    room: u64,
    /// What must stay free of the file system, in bytes. Others write there, too: it is looked at
    /// again and again.
    floor: Option<u64>,
    full: AtomicBool,
    short: AtomicBool,
    /// Most bytes of one call: fewer where they take long, so that somebody sees them move.
    step: AtomicUsize,
}

/// A call that takes longer than this is followed by a smaller one, one that takes less than half
/// of it by a larger one.
const SLOW: Duration = Duration::from_millis(500);

/// Smaller than this is none.
const SMALLEST: usize = 4096;

/// After how many bytes it is looked how much is free. So many may be too many, of each dump at a
/// time.
const LOOK: u64 = 1 << 20;

/// How much a target takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Most bytes on disk.
    pub room: Option<u64>,
    /// Bytes that must stay free of its file system.
    pub floor: Option<u64>,
}

impl Target {
    /// `kind`: of its file system.
    pub fn new(file: OwnedFd, moved: Counter, space: Space, kind: FsType) -> Self {
        let step = if kind == FsType::Served { 4 * SMALLEST } else { CHUNK };
        Target {
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

    /// Something came in.
    pub fn moved(&self, n: usize) {
        self.moved.add(n as u64);
    }

    /// Whether the room was used up. What is written after that is only what makes the file
    /// readable.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether that was because others have taken what must stay free.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Whether less is free than must stay. What cannot be asked is no reason to stop.
    fn is_below_floor(&self) -> bool {
        let space = || filesystem::space(&self.file).ok().filter(|space| space.total > 0);
        self.floor.is_some_and(|floor| space().is_some_and(|space| space.available < floor))
    }

    /// The first `n` bytes stay, the others are written again.
    pub fn again_from(&self, n: u64) {
        self.written.store(n, Ordering::Relaxed);
    }

    /// Whether there is room for `n` bytes more; if not, it is used up.
    pub fn fits(&self, n: usize) -> bool {
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
    pub fn write_at(&self, mut bytes: &[u8], mut at: u64) -> Result<(), Stop> {
        while !bytes.is_empty() {
            match self.call(bytes, |b| process::write_at(&self.file, b, at))? {
                0 => return Err(Stop::Write(Errno::NOSPC)),
                n => (bytes, at) = (&bytes[n..], at + n as u64),
            }
        }
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> Result<usize, Stop> {
        self.call(bytes, |b| process::write(&self.file, b))
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file in which zeros that were left out are holes.
pub struct Sparse(pub Arc<Target>);

impl Sink for Sparse {
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop> {
        self.0.write_at(bytes, offset)
    }

    fn end(&mut self, size: u64) -> Result<(), Stop> {
        process::set_size(&*self.0, size).map_err(Stop::Write)
    }
}

/// A zstd frame, compressed in one pass.
pub struct Zstd {
    encoder: Option<zstd::Encoder<'static, Appending>>,
    target: Arc<Target>,
    at: u64,
    /// RLIMIT_FSIZE of the process, which counts what goes in.
    room: u64,
}

/// The crashed process is waiting. Levels below 0 take as long for text, and programs become a
/// seventh larger by them.
pub const LEVEL: i32 = 1;

impl Zstd {
    /// A frame for what comes after the first `at` bytes of a core. `room`: most bytes of the core.
    pub fn new(target: &Arc<Target>, at: u64, room: Option<u64>) -> Result<Self, Stop> {
        let new = || {
            let mut encoder = zstd::Encoder::new(Appending(target.clone()), LEVEL)?;
            encoder.include_checksum(true)?;
            Ok(encoder)
        };
        Ok(Zstd {
            encoder: Some(new().map_err(|e| stop(e, target))?),
            target: target.clone(),
            at,
            room: room.unwrap_or(u64::MAX),
        })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.at += bytes.len() as u64;
        if self.at > self.room {
            return Err(Stop::Write(Errno::FBIG));
        }
        self.encoder
            .as_mut()
            .map_or(Ok(()), |e| e.write_all(bytes))
            .map_err(|e| stop(e, &self.target))
    }

    fn zeros_to(&mut self, offset: u64) -> Result<(), Stop> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while self.at < offset {
            self.add(&ZEROS[..ZEROS.len().min((offset - self.at) as usize)])?;
        }
        Ok(())
    }

    /// Ends the frame, which holds the first `size` bytes of the core.
    pub fn close(&mut self, size: u64) -> Result<(), Stop> {
        self.zeros_to(size)?;
        self.encoder
            .take()
            .map_or(Ok(()), |e| e.finish().map(drop))
            .map_err(|e| stop(e, &self.target))
    }
}

impl Sink for Zstd {
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop> {
        self.zeros_to(offset)?;
        self.add(bytes)
    }

    fn end(&mut self, size: u64) -> Result<(), Stop> {
        self.close(size)
    }
}

fn stop(e: std::io::Error, target: &Target) -> Stop {
    if target.is_full() {
        return Stop::Full;
    }
    Stop::Write(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// A file that is written from its start to its end.
struct Appending(Arc<Target>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes).map_err(|stop| match stop {
            Stop::Write(e) => e.into(),
            _ => Errno::NOSPC.into(),
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The file being written, with the kernel's accounts.
pub struct Output<S> {
    /// Where it goes.
    pub sink: S,
    /// Where the next byte goes.
    pub position: u64,
    /// Bytes that count against the limit so far.
    emitted: u64,
    /// Where the last byte that the kernel would have emitted ends: the size of a file that is cut
    /// there.
    pub reach: u64,
    limit: u64,
    /// Small units on their way to the file, ending at `position`.
    pending: Vec<u8>,
}

impl<S: Sink> Output<S> {
    /// A new file, empty. `limit`: most bytes emitted.
    pub fn new(sink: S, limit: Option<u64>) -> Self {
        Output {
            sink,
            position: 0,
            emitted: 0,
            reach: 0,
            limit: limit.unwrap_or(u64::MAX),
            pending: Vec::new(),
        }
    }

    /// Accounts for one unit of the kernel's, `n` bytes at `offset`.
    pub fn account(&mut self, offset: u64, n: u64) -> Result<(), Stop> {
        self.emitted =
            self.emitted.checked_add(n).filter(|e| *e <= self.limit).ok_or(Stop::Limit)?;
        self.reach = offset + n;
        Ok(())
    }

    /// Writes bytes that are accounted for, small ones later.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.position += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes what is on its way.
    pub fn flush(&mut self) -> Result<(), Stop> {
        let at = self.position - self.pending.len() as u64;
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() { Ok(()) } else { self.sink.write(&pending, at) }
    }

    /// Leaves a hole.
    pub fn skip(&mut self, n: u64) -> Result<(), Stop> {
        self.flush()?;
        self.position += n;
        Ok(())
    }

    /// Writes whole pages straight from the input; they are accounted for.
    pub fn pages(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.flush()?;
        if !bytes.is_empty() {
            self.sink.write(bytes, self.position)?;
        }
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// A core that ends in a hole has its full size all the same. The kernel emits the last byte
    /// for that, so it counts.
    pub fn finish(&mut self) -> Result<(), Stop> {
        self.flush()?;
        if self.position > self.reach {
            self.account(self.position - 1, 1)?;
        }
        self.sink.end(self.position)
    }

    /// The file ends here, whatever others have written.
    pub fn end_at(&mut self, end: u64) -> Result<(), Stop> {
        self.sink.end(end)
    }

    /// After a stop: the file ends where the kernel's would, behind the last byte emitted. Zeros at
    /// the very end may be a hole here.
    pub fn cut(&mut self) -> Result<(), Stop> {
        self.flush()?;
        self.sink.end(self.reach)
    }
}
