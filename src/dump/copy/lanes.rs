//! The copy: the kernel's stream in, a file with the kernel's holes out. Runs with the crasher's
//! rights only.
//!
//! The kernel emits a core in units (a header, a note, a page) and stops before the unit that would
//! go over RLIMIT_CORE. It leaves the pages that were never there as holes, which cost nothing. In
//! a pipe all that is lost: zeros come for holes, and no limit holds. Here both are made again. One
//! difference is wanted: a page that is there but holds only zeros counts against the limit as in
//! the kernel, and yet becomes a hole.

use crate::dump::copy::early_release::{self, Done};
use crate::dump::copy::frames::Frames;
use crate::dump::copy::head::{Head, Load};
use crate::dump::copy::input::{Input, READ};
use crate::dump::copy::output::{Output, Sink, Sparse, Target, Zstd};
use crate::dump::copy::parallel::{self, Failed, Source};
use crate::dump::copy::small_core;
use crate::dump::policy::plan::PAGE;
use crate::sys::hold::Hold;
use crate::sys::pagemap::Pagemap;
use crate::sys::{AsFd, Errno};
use std::sync::Arc;

/// What the kernel may send ahead, and the most that is held in memory.
pub const CHUNK: usize = 1 << 20;

/// Why the copy ended before the end of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The next unit would go over RLIMIT_CORE.
    Limit,
    /// The target took no more.
    Write(Errno),
    /// The room that a limit leaves on the target is used up.
    Full,
    /// The stream could not be read.
    Read(Errno),
    /// The memory of the process, which has been let go, could not be read.
    Memory(Errno),
    /// The stream ended early: the crasher was killed.
    Ended,
}

/// What bounds a core, and how exactly.
#[derive(Debug, Default)]
pub struct Bounds {
    /// RLIMIT_CORE: most bytes emitted.
    pub limit: Option<u64>,
    /// RLIMIT_FSIZE: most bytes of the file.
    pub file_size: Option<u64>,
}

impl Bounds {
    /// What both leave.
    fn room(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX).min(self.file_size.unwrap_or(u64::MAX))
    }
}

/// Copies a core. `Ok` when it is whole; else why not, and what could be written is in the file.
/// With a `source` the memory comes from the process itself where that gives the same file; else
/// all of it comes through the pipe.
///
/// With a `release` the process is let go early if that lane is taken.
pub fn copy(
    pipe: impl AsFd,
    target: &Arc<Target>,
    bounds: &Bounds,
    source: Option<Source>,
    release: Option<Release<'_>>,
) -> Result<(), Stop> {
    let mut input = Input::new(pipe, target);
    let mut output = Output::new(Sparse(target.clone()), bounds.limit);
    let result = sparse(&mut input, &mut output, bounds, source, release);
    if matches!(result, Err(Stop::Limit | Stop::Ended | Stop::Read(_))) {
        let _ = output.cut();
    }
    result
}

/// The same, compressed.
pub fn compress(
    pipe: impl AsFd,
    target: &Arc<Target>,
    bounds: &Bounds,
    source: Option<Source>,
) -> Result<(), Stop> {
    let mut input = Input::new(pipe, target);
    let mut output = Output::new(Zstd::new(target, 0, bounds.file_size)?, bounds.limit);
    let result = packed(&mut input, &mut output, target, bounds, source);
    if result.is_err() {
        // A frame that is not closed could not be read at all.
        let _ = output.cut();
    }
    result
}

fn packed<I: AsFd>(
    input: &mut Input<I>,
    output: &mut Output<Zstd>,
    target: &Arc<Target>,
    bounds: &Bounds,
    mut source: Option<Source>,
) -> Result<(), Stop> {
    let Start { head, files, .. } = head(input, output)?;
    if let Some(files) = parallel::suits(&head, files.as_deref(), bounds.room())
        && let Some(source) = source.take_if(|s| s.pidfd.is_some())
    {
        output.flush()?;
        let start = output.position;
        output.sink.close(start)?;
        let frames: &'static Frames =
            Box::leak(Box::new(Frames::new(target, start).map_err(|_| Stop::Write(Errno::NOMEM))?));
        let copied = parallel::compress(
            Box::leak(Box::new(source)),
            head.loads.clone(),
            files,
            target,
            frames,
        );
        match copied.map_or_else(Err, |()| {
            frames.end(head.end).map_err(|why| Failed::Stream(why, head.end))
        }) {
            Ok(()) => return Ok(()),
            Err(Failed::Ended(_)) => return frames.cut().and(Err(Stop::Ended)),
            // Frames are written one after the other: there is nothing behind what failed, and no
            // other way to write it.
            Err(Failed::Stream(why @ (Stop::Full | Stop::Write(_)), _)) => {
                return frames.cut().and(Err(why));
            }
            // What could not be read comes through the pipe, of which nothing was read.
            Err(Failed::Stream(..)) => {
                frames.back()?;
                output.sink = Zstd::new(target, start, bounds.file_size)?;
            }
        }
    }
    body(input, output, bounds, source, &head)
}

fn sparse<I: AsFd>(
    input: &mut Input<I>,
    output: &mut Output<Sparse>,
    bounds: &Bounds,
    mut source: Option<Source>,
    release: Option<Release<'_>>,
) -> Result<(), Stop> {
    let Start { head, files, threads } = head(input, output)?;
    let small = source
        .as_ref()
        .and_then(|source| small_core::pieces(&head, files.as_deref(), bounds.room(), source));
    if let (Some(pieces), Some(source)) = (small, &source) {
        let target = &output.sink.0.clone();
        output.flush()?;
        match small_core::copy(source, &pieces, target) {
            Ok(()) => return output.end_at(head.end),
            Err(Failed::Ended(whole)) => return ended(output, whole.min(head.end)),
            // Pieces are written from front to back: what lies behind the first failure is not
            // there.
            Err(Failed::Stream(why @ (Stop::Full | Stop::Write(_)), _)) => return Err(why),
            Err(Failed::Stream(..)) => target.again_from(output.position),
        }
    }
    if let Some(files) = parallel::suits(&head, files.as_deref(), bounds.room())
        && let Some(source) = source.take_if(|s| s.pidfd.is_some())
    {
        let target = &output.sink.0.clone();
        output.flush()?;
        // A thread that is stuck in a read is left behind with what it uses; see there.
        let source: &'static Source = Box::leak(Box::new(source));
        let held = release
            .map_or(Ok(None), |release| release.act(source, &head, &files, &threads, target));
        let released = matches!(held, Ok(Some(_)));
        let open = |held: &Option<Done>, load: &&Load| {
            held.as_ref().is_none_or(|done| {
                early_release::next_open(done, load.address, load.address + load.size).is_some()
            })
        };
        let rest = |held| {
            parallel::copy(
                source,
                head.loads.iter().filter(|load| open(&held, load)).copied().collect(),
                files,
                target,
                held,
            )
        };
        match held.and_then(rest) {
            Ok(()) => return output.end_at(head.end),
            // The threads do not write from front to back: what lies behind the first failure has
            // gaps that nobody could tell from zeros.
            Err(Failed::Stream(why, whole)) if released || why == Stop::Full => {
                return output.end_at(whole.clamp(output.position, head.end)).and(Err(why));
            }
            Err(Failed::Ended(whole)) => return ended(output, whole.min(head.end)),
            // Nothing of the pipe was read, so the stream writes the same bytes again to the same
            // places. But the lane does not write from front to back: where it ran out of space,
            // what it has of the end would take the place of what is missing before.
            Err(Failed::Stream(..)) => {
                output.end_at(output.position)?;
                target.again_from(output.position);
            }
        }
    }
    body(input, output, bounds, source, &head)
}

/// The process has gone: the file is whole up to here.
fn ended(output: &mut Output<Sparse>, whole: u64) -> Result<(), Stop> {
    output.reach = whole.max(output.reach);
    Err(Stop::Ended)
}

/// What comes after the head.
fn body<I: AsFd, S: Sink>(
    input: &mut Input<I>,
    output: &mut Output<S>,
    bounds: &Bounds,
    source: Option<Source>,
    head: &Head,
) -> Result<(), Stop> {
    input.expect_all();
    data(
        input,
        output,
        &head.loads,
        source.filter(|_| bounds.limit.is_some()).map(|s| s.pagemap).as_ref(),
    )?;
    if output.position < head.end {
        return Err(Stop::Ended);
    }
    output.finish()
}

/// What the start of a core told.
#[derive(Default)]
struct Start {
    head: Head,
    /// The contents of NT_FILE, if there is one.
    files: Option<Vec<u8>>,
    /// The thread pointers.
    threads: Vec<u64>,
}

/// How the process is let go early.
pub struct Release<'a> {
    /// What its memory is held with.
    pub hold: Hold,
    /// Lets it go.
    pub go: &'a mut dyn FnMut(),
}

impl Release<'_> {
    /// Lets the process go, if its memory can be held; else it waits as usual.
    fn act(
        self,
        source: &'static Source,
        head: &Head,
        files: &[u64],
        threads: &[u64],
        target: &Arc<Target>,
    ) -> Result<Option<Done>, Failed> {
        // On other architectures than x86-64 nothing says where the threads' blocks are.
        if threads.is_empty() {
            return Ok(None);
        }
        let Some((held, done)) =
            early_release::prepare(self.hold, source, head, files, threads, target)?
        else {
            return Ok(None);
        };
        source.memory.detach();
        (self.go)();
        // For as long as this process lives.
        std::mem::forget(held);
        Ok(Some(done))
    }
}

/// Headers and notes, unit by unit. What is not an ELF core of a kind that we know has no head: all
/// of it is then taken for pages.
fn head<I: AsFd, S: Sink>(input: &mut Input<I>, output: &mut Output<S>) -> Result<Start, Stop> {
    let Some(mut head) = Head::of(input.peek(Head::LONGEST_START)?) else {
        return Ok(Start::default());
    };
    let mut files: Option<Vec<u8>> = None;
    let mut threads = Vec::new();
    let mut registers = Vec::new();
    unit(input, output, head.header_size)?;
    for _ in 0..head.segments {
        let bytes = input.take(head.segment_size)?;
        head.add_segment(bytes);
        output.account(output.position, bytes.len() as u64)?;
        output.put(bytes)?;
    }
    while output.position < head.notes_end {
        let note = Head::note(input.peek(12)?).ok_or(Stop::Ended)?;
        unit(input, output, 12)?;
        unit(input, output, note.name)?;
        gap(input, output, 4)?;
        if note.is_files() {
            unit_kept(input, output, note.content, files.insert(Vec::new()))?;
        } else if note.is_registers() {
            registers.clear();
            unit_kept(input, output, note.content, &mut registers)?;
            threads.extend(Head::thread_pointer(&registers));
        } else {
            for part in note.parts() {
                unit(input, output, part)?;
            }
        }
        gap(input, output, 4)?;
    }
    gap(input, output, PAGE)?;
    Ok(Start { head, files, threads })
}

/// One unit of the kernel's: all of it or nothing.
fn unit<I: AsFd, S: Sink>(
    input: &mut Input<I>,
    output: &mut Output<S>,
    size: usize,
) -> Result<(), Stop> {
    copy_unit(input, output, size, |_| {})
}

/// The same, keeping a copy. The kernel bounds the list of mapped files to 4 MiB.
fn unit_kept<I: AsFd, S: Sink>(
    input: &mut Input<I>,
    output: &mut Output<S>,
    size: usize,
    kept: &mut Vec<u8>,
) -> Result<(), Stop> {
    copy_unit(input, output, size, |bytes| kept.extend_from_slice(bytes))
}

fn copy_unit<I: AsFd, S: Sink>(
    input: &mut Input<I>,
    output: &mut Output<S>,
    size: usize,
    mut seen: impl FnMut(&[u8]),
) -> Result<(), Stop> {
    output.account(output.position, size as u64)?;
    let mut left = size;
    while left > 0 {
        let bytes = match input.take(left.min(READ)) {
            Ok(bytes) => bytes,
            Err(stop) => {
                // Of a unit that does not come whole the file has what came.
                output.reach = output.position;
                return Err(stop);
            }
        };
        left -= bytes.len();
        seen(bytes);
        output.put(bytes)?;
    }
    Ok(())
}

/// The kernel's alignment: a hole in a file, zeros in a pipe.
fn gap<I: AsFd, S: Sink>(
    input: &mut Input<I>,
    output: &mut Output<S>,
    align: u64,
) -> Result<(), Stop> {
    let n = output.position.next_multiple_of(align) - output.position;
    if n > 0 {
        let bytes = input.take(n as usize)?;
        if align == PAGE {
            output.skip(n)?;
        } else {
            output.put(bytes)?;
        }
    }
    Ok(())
}

/// The memory: pages, each one unit.
fn data<I: AsFd, S: Sink>(
    input: &mut Input<I>,
    output: &mut Output<S>,
    loads: &[Load],
    pagemap: Option<&Pagemap>,
) -> Result<(), Stop> {
    let mut loads = loads.iter().peekable();
    loop {
        let chunk = input.peek(READ)?;
        let size = chunk.len();
        if size == 0 {
            return Ok(());
        }
        // A run of pages that are written together.
        let mut run = 0;
        let mut at = 0;
        while at < size {
            let page = &chunk[at..size.min(at + PAGE as usize)];
            let end = at + page.len();
            let offset = output.position + (at - run) as u64;
            let hole = page.len() == PAGE as usize && is_zero(page);
            let free = hole
                && !pagemap
                    .is_some_and(|m| address(&mut loads, offset).is_some_and(|a| m.emitted(a)));
            let fits = if free { Ok(()) } else { output.account(offset, page.len() as u64) };
            if hole || fits.is_err() {
                output.pages(&chunk[run..at])?;
                fits?;
                output.skip(PAGE)?;
                run = end;
            }
            at = end;
        }
        output.pages(&chunk[run..size])?;
        input.consume(size);
    }
}

/// The runs of pages that do not hold zeros only; what lies between becomes a hole. The last page
/// may be short.
pub fn runs(bytes: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    const SIZE: usize = PAGE as usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        let page = |at: usize| &bytes[at..bytes.len().min(at + SIZE)];
        while at < bytes.len() && is_zero(page(at)) {
            at += SIZE;
        }
        let start = at;
        while at < bytes.len() && !is_zero(page(at)) {
            at += SIZE;
        }
        (start < bytes.len()).then(|| start..bytes.len().min(at))
    })
}

fn is_zero(page: &[u8]) -> bool {
    const ZERO: [u8; PAGE as usize] = [0; PAGE as usize];
    page == &ZERO[..page.len()]
}

/// The address of the page at an offset of the file; offsets only grow.
fn address<'l>(
    loads: &mut std::iter::Peekable<impl Iterator<Item = &'l Load>>,
    offset: u64,
) -> Option<u64> {
    while loads.peek().is_some_and(|l| l.offset + l.size <= offset) {
        loads.next();
    }
    loads.peek().filter(|l| l.offset <= offset).map(|l| l.address + (offset - l.offset))
}
