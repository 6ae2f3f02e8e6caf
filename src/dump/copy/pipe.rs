//! The lane through the kernel's pipe, unit by unit. The other lanes read the head of the core
//! here.
//!
//! The kernel emits a core in units (a header, a note, a page) and stops before the unit that would
//! go over RLIMIT_CORE. Pages that were never there it leaves as holes, which cost nothing. A pipe
//! has neither: zeros come for holes, and no limit holds. Here both are made again. One difference
//! is wanted: a page that exists but holds only zeros counts against the limit as in the kernel,
//! and yet becomes a hole.

use super::crashed_memory::CrashedMemory;
use super::output::CoreOutput;
use super::pages::{is_zero, page_size};
use super::pipe_reader::{PipeReader, READ};
use super::sink::Sink;
use super::stop::{Bounds, Stop};
use crate::elf::{Head, Load};
use crate::sys::AsFd;
use crate::sys::pagemap::Pagemap;

/// What comes after the head.
pub(crate) fn body<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    bounds: &Bounds,
    source: Option<CrashedMemory>,
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
pub(crate) struct Start {
    pub head: Head,
    /// The contents of NT_FILE, if there is one.
    pub files: Option<Vec<u8>>,
    pub threads: Vec<u64>,
}

/// Headers and notes, unit by unit. What is not an ELF core of a kind that we know has no head: all
/// of it is then taken for pages.
pub(crate) fn head<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
) -> Result<Start, Stop> {
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
        } else if let Some(place) = head.thread_pointer_in(note) {
            registers.clear();
            unit_kept(input, output, note.content, &mut registers)?;
            threads.extend(place.read(&registers));
        } else {
            for part in note.parts() {
                unit(input, output, part)?;
            }
        }
        gap(input, output, 4)?;
    }
    gap(input, output, page_size())?;
    Ok(Start { head, files, threads })
}

/// One unit of the kernel's: all of it or nothing.
fn unit<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    size: usize,
) -> Result<(), Stop> {
    copy_unit(input, output, size, |_| {})
}

/// The same, keeping a copy. The kernel bounds the list of mapped files to 4 MiB.
fn unit_kept<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    size: usize,
    kept: &mut Vec<u8>,
) -> Result<(), Stop> {
    copy_unit(input, output, size, |bytes| kept.extend_from_slice(bytes))
}

fn copy_unit<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    size: usize,
    mut seen: impl FnMut(&[u8]),
) -> Result<(), Stop> {
    output.account(output.position, size as u64)?;
    let mut left = size;
    while left > 0 {
        let bytes = match input.take(left.min(READ)) {
            Ok(bytes) => bytes,
            Err(stop) => {
                // The file keeps the bytes of a unit that ends short.
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
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    align: u64,
) -> Result<(), Stop> {
    let n = output.position.next_multiple_of(align) - output.position;
    if n > 0 {
        let bytes = input.take(n as usize)?;
        if align == page_size() {
            output.skip(n)?;
        } else {
            output.put(bytes)?;
        }
    }
    Ok(())
}

/// The memory: pages, each one unit.
fn data<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    loads: &[Load],
    pagemap: Option<&Pagemap>,
) -> Result<(), Stop> {
    let mut loads = loads.iter().peekable();
    let unit = page_size() as usize;
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
            let page = &chunk[at..size.min(at + unit)];
            let end = at + page.len();
            let offset = output.position + (at - run) as u64;
            let hole = page.len() == unit && is_zero(page);
            let free = hole
                && !pagemap
                    .is_some_and(|m| address(&mut loads, offset).is_some_and(|a| m.emitted(a)));
            let fits = if free { Ok(()) } else { output.account(offset, page.len() as u64) };
            if hole || fits.is_err() {
                output.pages(&chunk[run..at])?;
                fits?;
                output.skip(unit as u64)?;
                run = end;
            }
            at = end;
        }
        output.pages(&chunk[run..size])?;
        input.consume(size);
    }
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
