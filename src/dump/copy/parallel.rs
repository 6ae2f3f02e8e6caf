//! The lane for a large core: the head comes through the pipe, the memory from the process itself
//! while the kernel waits in the pipe. Several threads make large reads, and leave out pages that
//! were never touched. Where that fails, the stream is still unread and gives the same file.

use super::crashed_memory::{CrashedMemory, Failed};
use super::pages::runs;
use super::regions::{BATCH, Batch, RegionPart, Walk};
use super::stop::Stop;
use super::target::CopyTarget;
use super::zstd_frames::{Frames, Packer};
use crate::elf::spans::{Spans, next_open};
use crate::elf::{Head, Load, starts_of_files};
use crate::sys::memory::Span;
use crate::sys::{Errno, process};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Below this many bytes threads and page maps cost more than they bring.
pub(crate) const WORTH: u64 = 8 << 20;

/// Most threads of a plain copy: more do not help one file.
const THREADS: usize = 4;

/// Most threads of a compressed copy.
const PACKERS: usize = 16;

/// Bytes of a thread's stack.
const STACK: usize = 256 << 10;

/// A read that takes longer is stuck: a page that only the crashed process itself could have filled
/// (userfaultfd). The kernel's own dump does not block there.
const STUCK: Duration = Duration::from_secs(2);

/// Whether the lane can give the file that the stream would give, and the mapped files if so.
/// `room`: how many bytes may be emitted; a limit that could act is exact only on the stream.
pub(crate) fn suits(head: &Head, files: Option<&[u8]>, room: u64) -> Option<Vec<u64>> {
    let plain = head.is_wide()
        && !head.has_more
        && head.segments < 0xffff
        && head.end >= WORTH
        && head.end <= room;
    // Without the list of mapped files nothing says which pages may be left out.
    files.filter(|_| plain).and_then(starts_of_files)
}

/// What `work` gives, or `None` if that takes too long: it reads where a read can be stuck.
pub(crate) fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (say, hear) = mpsc::channel();
    std::thread::Builder::new().stack_size(STACK).spawn(move || say.send(work())).ok()?;
    hear.recv_timeout(STUCK).ok()
}

/// Copies the memory to its places in the file, whose size the caller sets. `held`: the process has
/// been let go, its memory is held, and this much of it is copied already.
pub(crate) fn copy_memory(
    source: &'static CrashedMemory,
    loads: Vec<Load>,
    files: Vec<u64>,
    target: &Arc<CopyTarget>,
    held: Option<Spans>,
) -> Result<(), Failed> {
    run(source, Walk::new(loads, files), target, held, None)
}

/// The same, compressed, with the memory as it is now.
pub(crate) fn compress(
    source: &'static CrashedMemory,
    loads: Vec<Load>,
    files: Vec<u64>,
    target: &Arc<CopyTarget>,
    frames: &'static Frames,
) -> Result<(), Failed> {
    run(source, Walk::new(loads, files), target, None, Some(frames))
}

fn run(
    source: &'static CrashedMemory,
    walk: Walk,
    target: &Arc<CopyTarget>,
    held: Option<Spans>,
    frames: Option<&'static Frames>,
) -> Result<(), Failed> {
    // A thread that is stuck in a read cannot be freed, only left behind, and what it uses with it.
    // It ends with this process.
    let work: &'static Work = Box::leak(Box::new(Work {
        walk: Mutex::new(walk),
        source,
        target: target.clone(),
        held,
        frames,
        whole: AtomicU64::new(u64::MAX),
        cause: Mutex::new(None),
        stop: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        start: Instant::now(),
    }));
    let threads = process::cpus()
        .min(source.threads)
        .clamp(1, if frames.is_some() { PACKERS } else { THREADS });
    let clocks: &'static [Clock] = Vec::leak((0..threads).map(|_| Clock::default()).collect());
    let (say, hear) = mpsc::channel();
    let mut running = 0;
    for clock in clocks {
        let say = say.clone();
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            work.run(clock);
            let _ = say.send(());
        });
        running += usize::from(thread.is_ok());
    }
    if running == 0 {
        return Err(Failed::Stream(Stop::Memory(Errno::AGAIN), 0));
    }
    while running > 0 {
        let Err(_) = hear.recv_timeout(STUCK / 4) else {
            running -= 1;
            continue;
        };
        let stuck: Vec<_> = clocks.iter().filter(|clock| work.is_stuck(clock)).collect();
        for clock in &stuck {
            work.give_up(clock.batch.load(Ordering::SeqCst), Stop::Memory(Errno::TIMEDOUT));
        }
        // The others may be in the middle of a write, which would come after whatever the caller
        // does to the file.
        if stuck.len() == running {
            break;
        }
    }
    let whole = work.whole.load(Ordering::SeqCst);
    match (work.ended.load(Ordering::SeqCst), work.stop.load(Ordering::SeqCst)) {
        (true, _) => Err(Failed::Ended(whole)),
        (_, true) => Err(Failed::Stream(
            work.cause.lock().ok().and_then(|c| *c).unwrap_or(Stop::Memory(Errno::IO)),
            whole,
        )),
        _ => Ok(()),
    }
}

/// What a thread is doing.
#[derive(Debug, Default)]
struct Clock {
    /// Since when it has been reading, in milliseconds from the start and one; 0 when it is not.
    since: AtomicU64,
    /// Where its batch lies in the file.
    batch: AtomicU64,
}

/// What the threads share.
struct Work {
    source: &'static CrashedMemory,
    target: Arc<CopyTarget>,
    held: Option<Spans>,
    /// The file, if it is a compressed one.
    frames: Option<&'static Frames>,
    walk: Mutex<Walk>,
    /// The file is whole up to here: the start of the first batch that failed. Batches are handed
    /// out in the order of the file.
    whole: AtomicU64,
    /// What failed first.
    cause: Mutex<Option<Stop>>,
    stop: AtomicBool,
    ended: AtomicBool,
    start: Instant,
}

impl Work {
    fn run(&self, clock: &Clock) {
        let mut packer = match self.frames.map(|_| Packer::new()).transpose() {
            Ok(packer) => packer,
            Err(_) => return self.give_up(0, Stop::Memory(Errno::NOMEM)),
        };
        let mut batch = Batch::default();
        let mut spans: Vec<Span> = Vec::new();
        let mut buffer = vec![0u8; BATCH];
        while !self.stop.load(Ordering::SeqCst) {
            let (walked, reached) = match self.walk.lock() {
                Ok(mut walk) => {
                    let reached = walk.reached();
                    (walk.batch(&self.source.pagemap, &mut batch), reached)
                }
                Err(_) => (Err(Errno::IO), 0),
            };
            if let Err(e) = walked {
                return self.give_up(reached, Stop::Memory(e));
            }
            if !self.source.is_mapped() {
                self.ended.store(true, Ordering::SeqCst);
                return self.give_up(reached, Stop::Ended);
            }
            let Some(first) = batch.pieces.first() else { return };
            clock.batch.store(first.offset, Ordering::SeqCst);
            spans.clear();
            spans.extend(batch.pieces.iter().map(|p| p.span));
            if let Err(stop) = self.one(&batch, &spans, &mut buffer, packer.as_mut(), clock) {
                self.ended.fetch_or(stop == Stop::Ended, Ordering::SeqCst);
                return self.give_up(first.offset, stop);
            }
        }
    }

    /// No more batches: the one at `offset` failed.
    fn give_up(&self, offset: u64, why: Stop) {
        self.whole.fetch_min(offset, Ordering::SeqCst);
        if let Ok(mut cause) = self.cause.lock() {
            cause.get_or_insert(why);
        }
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Reads one batch and writes it.
    fn one(
        &self,
        batch: &Batch,
        spans: &[Span],
        buffer: &mut [u8],
        packer: Option<&mut Packer>,
        clock: &Clock,
    ) -> Result<(), Stop> {
        let size = spans.iter().map(|s| s.size).sum();
        let buffer = &mut buffer[..size];
        clock.since.store(self.start.elapsed().as_millis() as u64 + 1, Ordering::SeqCst);
        let read = self.source.read(spans, buffer, self.held.is_some());
        clock.since.store(0, Ordering::SeqCst);
        read?;
        // Another thread may have been given up while this one was reading: then the file belongs
        // to the stream.
        if self.stop.load(Ordering::SeqCst) {
            return Err(Stop::Memory(Errno::CANCELED));
        }
        self.target.moved(size);
        if let (Some(frames), Some(packer)) = (self.frames, packer) {
            return frames.put(packer, batch, buffer, &self.stop);
        }
        let mut start = 0;
        for piece in &batch.pieces {
            let bytes = &buffer[start..start + piece.span.size];
            start += piece.span.size;
            for run in runs(bytes) {
                self.write(piece, bytes, run)?;
            }
        }
        Ok(())
    }

    /// Writes a run of a piece, without what was copied before the release: that is the process as
    /// it was when it died.
    fn write(&self, piece: &RegionPart, bytes: &[u8], run: Range<usize>) -> Result<(), Stop> {
        let Some(done) = &self.held else {
            return self.target.write_at(&bytes[run.clone()], piece.offset + run.start as u64);
        };
        let start = piece.span.address;
        let (mut at, end) = (start + run.start as u64, start + run.end as u64);
        while let Some((from, to)) = next_open(done, at, end) {
            self.target.write_at(
                &bytes[(from - start) as usize..(to - start) as usize],
                piece.offset + (from - start),
            )?;
            at = to;
        }
        Ok(())
    }

    fn is_stuck(&self, clock: &Clock) -> bool {
        let since = clock.since.load(Ordering::SeqCst);
        since != 0 && self.start.elapsed().as_millis() as u64 + 1 - since > STUCK.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::{self, Ended};
    use crate::sys::counter::Counter;
    use crate::sys::filesystem::FsType;
    use crate::sys::filter;
    use crate::sys::kernel::page_size;
    use crate::sys::memory::ProcessMemory;
    use crate::sys::pagemap::Pagemap;
    use crate::sys::pidfd;
    use crate::sys::proc::Proc;

    /// Of our own memory, by a child with the filter of the copying stage: all that the threads do
    /// is in it.
    #[test]
    fn works_under_its_filter() {
        let memory: Vec<u8> =
            (0..4 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let address = (memory.as_ptr() as u64).next_multiple_of(page_size());
        let size = (memory.len() as u64 - page_size()) & !(page_size() - 1);
        let me = Proc::open(std::process::id() as i32).unwrap();
        let pidfd = pidfd::open(std::process::id() as i32).unwrap();
        let mem = ProcessMemory::new(std::process::id() as i32, me.open_file("mem").unwrap());
        let source = CrashedMemory {
            memory: mem,
            pagemap: Pagemap::new(me.open_file("pagemap").unwrap()),
            vdso: None,
            pidfd: Some(pidfd),
            robust: vec![],
            threads: usize::MAX,
        };
        let source: &'static CrashedMemory = Box::leak(Box::new(source));
        let file = tempfile::tempfile().unwrap();
        let moved = Counter::shared().unwrap();
        let target = Arc::new(CopyTarget::new(
            file.try_clone().unwrap().into(),
            moved,
            crate::dump::copy::target::Capacity::default(),
            FsType::Other,
        ));
        let child = child::fork(|| {
            let copied = filter::enter(&filter::COPY).is_ok()
                && copy_memory(
                    source,
                    vec![Load { offset: 0, address, size }],
                    vec![],
                    &target,
                    None,
                )
                .is_ok();
            i32::from(!copied)
        });
        assert_eq!(
            child.unwrap().end_within(std::time::Duration::from_secs(60)).unwrap(),
            Some(Ended::Exit(0))
        );
        let mut written = vec![0; size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, 0).unwrap();
        let start = (address - memory.as_ptr() as u64) as usize;
        assert!(moved.value() >= size, "nobody could see it move");
        assert!(written == memory[start..start + size as usize], "the copy differs");
    }
}
