//! The copy: the kernel's stream in, a file with the kernel's holes out. Runs with the crasher's rights only.
//!
//! The kernel emits a core in units (a header, a note, a page) and stops before the unit that would go over RLIMIT_CORE. It leaves the pages that
//! were never there as holes, which cost nothing. In a pipe all that is lost: zeros come for holes, and no limit holds. Here both are made again.
//! One difference is wanted: a page that is there but holds only zeros counts against the limit as in the kernel, and yet becomes a hole.

use super::head::{Head, Load};
use super::memory::{self, Source};
use super::plan::PAGE;
use crate::sys::pagemap::Pagemap;
use crate::sys::{AsFd, Errno, OwnedFd, process};

/// One read of the pipe, and the most that is held in memory.
const CHUNK: usize = 1 << 20;

/// Why the copy ended before the end of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The next unit would go over RLIMIT_CORE.
    Limit,
    /// The target took no more.
    Write(Errno),
    /// The stream could not be read.
    Read(Errno),
    /// The stream ended early: the crasher was killed.
    Ended,
}

/// The kernel's stream, read in large pieces.
pub struct Input<I> {
    pipe: I,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<I: AsFd> Input<I> {
    /// Takes the read end of a pipe, and makes the pipe large.
    pub fn new(pipe: I) -> Self {
        process::enlarge_pipe(&pipe, CHUNK);
        Input { pipe, buffer: vec![0; CHUNK], start: 0, end: 0 }
    }

    /// The next `n` bytes (at most a chunk), or as many as there are before the end.
    fn peek(&mut self, n: usize) -> Result<&[u8], Stop> {
        if self.buffer.len() - self.start < n {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < n {
            match process::read(&self.pipe, &mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(got) => self.end += got,
                Err(e) => return Err(Stop::Read(e)),
            }
        }
        Ok(&self.buffer[self.start..self.end.min(self.start + n)])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// Exactly the next `n` bytes, taken.
    fn take(&mut self, n: usize) -> Result<&[u8], Stop> {
        if self.peek(n)?.len() < n {
            return Err(Stop::Ended);
        }
        self.consume(n);
        Ok(&self.buffer[self.start - n..self.start])
    }
}

/// The file being written, with the kernel's accounts.
pub struct Output<'a> {
    file: &'a OwnedFd,
    /// Where the next byte goes.
    position: u64,
    /// Bytes that count against the limit so far.
    emitted: u64,
    /// Where the last byte that the kernel would have emitted ends: the size of a file that is cut there.
    reach: u64,
    limit: u64,
    /// Small units on their way to the file, ending at `position`.
    pending: Vec<u8>,
}

impl<'a> Output<'a> {
    /// A new file, empty. `limit`: most bytes emitted.
    pub fn new(file: &'a OwnedFd, limit: Option<u64>) -> Self {
        Output { file, position: 0, emitted: 0, reach: 0, limit: limit.unwrap_or(u64::MAX), pending: Vec::new() }
    }

    /// Accounts for one unit of the kernel's, `n` bytes at `offset`.
    fn account(&mut self, offset: u64, n: u64) -> Result<(), Stop> {
        self.emitted = self.emitted.checked_add(n).filter(|e| *e <= self.limit).ok_or(Stop::Limit)?;
        self.reach = offset + n;
        Ok(())
    }

    /// Writes bytes that are accounted for, small ones later.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.position += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let at = self.position - self.pending.len() as u64;
        let pending = std::mem::take(&mut self.pending);
        write_all(self.file, &pending, at)
    }

    /// Leaves a hole.
    fn skip(&mut self, n: u64) -> Result<(), Stop> {
        self.flush()?;
        self.position += n;
        Ok(())
    }

    /// Writes whole pages straight from the input; they are accounted for.
    fn pages(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.flush()?;
        write_all(self.file, bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// A core that ends in a hole has its full size all the same. The kernel emits the last byte for that, so it counts.
    fn finish(&mut self) -> Result<(), Stop> {
        self.flush()?;
        if self.position > self.reach {
            self.account(self.position - 1, 1)?;
        }
        process::set_size(self.file, self.position).map_err(Stop::Write)
    }

    /// The rest was written by others: the file has its full size.
    fn end_at(&mut self, end: u64) -> Result<(), Stop> {
        process::set_size(self.file, end).map_err(Stop::Write)
    }

    /// After a stop: the file ends where the kernel's would, behind the last byte emitted. Zeros at the very end may be a hole here.
    fn cut(&mut self) -> Result<(), Stop> {
        self.flush()?;
        process::set_size(self.file, self.reach).map_err(Stop::Write)
    }
}

/// Writes all of `bytes` at an offset.
pub fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Stop> {
    while !bytes.is_empty() {
        match process::write_at(file, bytes, at) {
            Ok(0) => return Err(Stop::Write(Errno::NOSPC)),
            Ok(n) => (bytes, at) = (&bytes[n..], at + n as u64),
            Err(e) => return Err(Stop::Write(e)),
        }
    }
    Ok(())
}

/// What bounds a core, and how exactly.
#[derive(Debug, Default)]
pub struct Bounds {
    /// RLIMIT_CORE: most bytes emitted.
    pub limit: Option<u64>,
    /// RLIMIT_FSIZE: most bytes of the file.
    pub file_size: Option<u64>,
}

/// Copies a core. `Ok` when it is whole; else why not, and what could be written is in the file. With a `source` the memory comes from the process itself
/// where that gives the same file; else all of it comes through the pipe.
pub fn copy(pipe: impl AsFd, file: &OwnedFd, bounds: &Bounds, source: Option<Source>) -> Result<(), Stop> {
    let mut input = Input::new(pipe);
    let mut output = Output::new(file, bounds.limit);
    let result = run(&mut input, &mut output, bounds, source);
    if matches!(result, Err(Stop::Limit | Stop::Ended | Stop::Read(_))) {
        let _ = output.cut();
    }
    result
}

fn run<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>, bounds: &Bounds, source: Option<Source>) -> Result<(), Stop> {
    let (head, files) = head(input, output)?;
    let room = bounds.limit.unwrap_or(u64::MAX).min(bounds.file_size.unwrap_or(u64::MAX));
    let mut source = source;
    if let Some(files) = memory::suits(&head, files.as_deref(), room)
        && let Some(source) = source.take_if(|s| s.pidfd.is_some())
        && let Ok(file) = output.file.try_clone()
    {
        output.flush()?;
        match memory::copy(source, head.loads.clone(), files, file) {
            Ok(()) => return output.end_at(head.end),
            Err(memory::Failed::Ended(whole)) => {
                output.reach = whole.min(head.end).max(output.reach);
                return Err(Stop::Ended);
            }
            // Nothing of the pipe was read, so the stream writes the same bytes again to the same places.
            Err(memory::Failed::Stream) => {}
        }
    }
    data(input, output, &head.loads, source.filter(|_| bounds.limit.is_some()).map(|s| s.pagemap).as_ref())?;
    if output.position < head.end {
        return Err(Stop::Ended);
    }
    output.finish()
}

/// Headers and notes, unit by unit. What is not an ELF core of a kind that we know has no head: all of it is then taken for pages.
/// With the head comes the list of mapped files, if there is one.
fn head<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>) -> Result<(Head, Option<Vec<u8>>), Stop> {
    let Some(mut head) = Head::of(input.peek(Head::LONGEST_START)?) else { return Ok((Head::default(), None)) };
    let mut files: Option<Vec<u8>> = None;
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
        } else {
            for part in note.parts() {
                unit(input, output, part)?;
            }
        }
        gap(input, output, 4)?;
    }
    gap(input, output, PAGE)?;
    Ok((head, files))
}

/// One unit of the kernel's: all of it or nothing.
fn unit<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>, size: usize) -> Result<(), Stop> {
    copy_unit(input, output, size, |_| {})
}

/// The same, keeping a copy. The kernel bounds the list of mapped files to 4 MiB.
fn unit_kept<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>, size: usize, kept: &mut Vec<u8>) -> Result<(), Stop> {
    copy_unit(input, output, size, |bytes| kept.extend_from_slice(bytes))
}

fn copy_unit<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>, size: usize, mut seen: impl FnMut(&[u8])) -> Result<(), Stop> {
    output.account(output.position, size as u64)?;
    let mut left = size;
    while left > 0 {
        let bytes = input.take(left.min(CHUNK))?;
        left -= bytes.len();
        seen(bytes);
        output.put(bytes)?;
    }
    Ok(())
}

/// The kernel's alignment: a hole in a file, zeros in a pipe.
fn gap<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>, align: u64) -> Result<(), Stop> {
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
fn data<I: AsFd>(input: &mut Input<I>, output: &mut Output<'_>, loads: &[Load], pagemap: Option<&Pagemap>) -> Result<(), Stop> {
    let mut loads = loads.iter().peekable();
    loop {
        let chunk = input.peek(CHUNK)?;
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
            let free = hole && !pagemap.is_some_and(|m| address(&mut loads, offset).is_some_and(|a| m.emitted(a)));
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

/// The runs of pages that do not hold zeros only; what lies between becomes a hole. The last page may be short.
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
fn address<'l>(loads: &mut std::iter::Peekable<impl Iterator<Item = &'l Load>>, offset: u64) -> Option<u64> {
    while loads.peek().is_some_and(|l| l.offset + l.size <= offset) {
        loads.next();
    }
    loads.peek().filter(|l| l.offset <= offset).map(|l| l.address + (offset - l.offset))
}
