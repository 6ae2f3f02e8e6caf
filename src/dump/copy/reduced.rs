//! Small cores: of a core's memory only the stacks and what belongs to them.
//!
//! The head comes through the pipe. The memory comes from the process itself, a page at a time, of
//! which none may be able to hang: pages of no file that do not exist are zeros, those of a file
//! are left out, and so is what the kernel does not give ([`CrashedMemory::can_read`]). Without a
//! pidfd it comes through the pipe too: what may be kept is remembered on the way, and chosen from
//! that. What is chosen is in [`crate::corefile::reduced`].

use super::crashed_memory::CrashedMemory;
use super::output::CoreOutput;
use super::pages::page_size;
use super::pipe_reader::{PipeReader, READ};
use super::sink::Sink;
use super::stop::Stop;
use super::target::CopyTarget;
use crate::config::KeptMemory;
use crate::corefile::reduced::{SmallCore, candidates};
use crate::corefile::{CoreHead, MAX_NOTES};
use crate::elf::spans::Spans;
use crate::elf::{Head, Load, Source, starts_of_files};
use crate::sys::AsFd;
use crate::sys::memory::Span;
use object::LittleEndian as LE;
use object::elf::{PF_R, ProgramHeader64};
use object::read::elf::ProgramHeader;
use std::cell::Cell;

/// A small core on its way.
pub(crate) struct Reduced {
    head: CoreHead,
    /// Bytes of the core with all of the memory.
    pub full_size: u64,
    /// Bytes of the head that came through the pipe.
    came: u64,
}

impl Reduced {
    /// Takes the head of a core from the pipe. `None`: it is not of a program of which a small
    /// core can be made, and nothing was taken.
    ///
    /// # Errors
    /// The pipe ends in the head, or the notes are too large.
    pub(crate) fn begin<I: AsFd>(input: &mut PipeReader<I>) -> Result<Option<Self>, Stop> {
        let start = input.peek(Head::LONGEST_START)?;
        let Some(head) = Head::of(start).filter(Head::is_wide) else { return Ok(None) };
        // Whether the machine is known, the header alone says.
        if CoreHead::of_parts(start, &[], Vec::new()).is_err() {
            return Ok(None);
        }
        let header = take(input, head.header_size)?;
        let segments = take(input, head.segments as usize * head.segment_size)?;
        let notes_end = segments
            .chunks_exact(head.segment_size)
            .fold(head, |mut head, segment| {
                head.add_segment(segment);
                head
            })
            .notes_end;
        let at = (header.len() + segments.len()) as u64;
        let size = notes_end.checked_sub(at).filter(|size| *size <= MAX_NOTES);
        let notes = take(input, size.ok_or(Stop::Ended)? as usize)?;
        let head = CoreHead::of_parts(&header, &segments, notes).map_err(|_| Stop::Ended)?;
        Ok(Some(Reduced { full_size: head.end(), head, came: notes_end }))
    }

    /// Copies what is kept, from the process if it is known for certain, else from the pipe.
    ///
    /// # Errors
    /// The copy ended early. If the process has gone, the file has what was chosen by then.
    pub(crate) fn copy<I: AsFd, S: Sink>(
        &self,
        input: &mut PipeReader<I>,
        output: &mut CoreOutput<S>,
        source: Option<&CrashedMemory>,
        target: &CopyTarget,
        keep: KeptMemory,
    ) -> Result<(), Stop> {
        let Some(source) = source.filter(|source| source.pidfd.is_some()) else {
            let (memory, came) = self.remember(input)?;
            return self.write(&memory, output, keep).and(came);
        };
        let files = self.files();
        let barred: Vec<Load> =
            self.head.loads.iter().filter(|p| is_barred(p)).map(|p| Load::of(p, LE)).collect();
        let memory = OfProcess {
            source,
            head: &self.head,
            hides: !source.can_read(&barred, &files),
            files,
            target,
            failed: Cell::new(None),
        };
        self.write(&memory, output, keep)?;
        memory.failed.get().map_or(Ok(()), Err)
    }

    fn write<S: Sink>(
        &self,
        memory: &dyn Source,
        output: &mut CoreOutput<S>,
        keep: KeptMemory,
    ) -> Result<(), Stop> {
        // Notes without a thread are no core.
        let small = SmallCore::by_address(&self.head, memory, keep).map_err(|_| Stop::Ended)?;
        small.write(&mut |bytes| {
            for unit in bytes.chunks(page_size() as usize) {
                output.account(output.position, unit.len() as u64)?;
                output.put(unit)?;
            }
            Ok(())
        })?;
        output.finish()
    }

    /// The first address of each mapped file, sorted.
    fn files(&self) -> Vec<u64> {
        let note = self.head.notes.iter().find_map(|notes| files_note(notes));
        let mut files = note.and_then(starts_of_files).unwrap_or_default();
        files.sort_unstable();
        files
    }

    /// Reads the rest of the pipe, and what of it may be kept. Also returns how the pipe ended.
    fn remember<I: AsFd>(
        &self,
        input: &mut PipeReader<I>,
    ) -> Result<(Remembered, Result<(), Stop>), Stop> {
        let wanted = candidates(&self.head).map_err(|_| Stop::Ended)?;
        let mut memory = Remembered::default();
        input.expect_all();
        let mut at = self.came;
        for load in self.head.loads.iter().map(|p| Load::of(p, LE)).filter(|l| l.size > 0) {
            let gap = load.offset.saturating_sub(at);
            if let Err(stop) = skip(input, gap) {
                return Ok((memory, Err(stop)));
            }
            at = at.max(load.offset);
            if let Err(stop) = memory.take(input, &load, &wanted) {
                return Ok((memory, Err(stop)));
            }
            at += load.size;
        }
        Ok((memory, Ok(())))
    }
}

/// Whether the process itself could not read this memory.
fn is_barred(load: &ProgramHeader64<LE>) -> bool {
    load.p_filesz(LE) > 0 && !load.p_flags(LE).contains(PF_R) && !Load::of(load, LE).is_legacy()
}

/// The contents of NT_FILE.
fn files_note(mut notes: &[u8]) -> Option<&[u8]> {
    while let Some(note) = Head::note(notes) {
        let name = 12 + note.name.next_multiple_of(4);
        let content = notes.get(name..name.checked_add(note.content)?)?;
        if note.is_files() {
            return Some(content);
        }
        notes = notes.get(name + note.content.next_multiple_of(4)..)?;
    }
    None
}

/// Exactly the next `size` bytes.
fn take<I: AsFd>(input: &mut PipeReader<I>, size: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    while bytes.len() < size {
        bytes.extend_from_slice(input.take(READ.min(size - bytes.len()))?);
    }
    Ok(bytes)
}

fn skip<I: AsFd>(input: &mut PipeReader<I>, mut size: u64) -> Result<(), Stop> {
    while size > 0 {
        size -= input.take((READ as u64).min(size) as usize)?.len() as u64;
    }
    Ok(())
}

/// What came through the pipe and may be kept: sorted by address.
#[derive(Default)]
struct Remembered(Vec<(u64, Vec<u8>)>);

impl Remembered {
    /// Takes a load from the pipe.
    fn take<I: AsFd>(
        &mut self,
        input: &mut PipeReader<I>,
        load: &Load,
        wanted: &Spans,
    ) -> Result<(), Stop> {
        let mut at = load.address;
        let end = load.address.saturating_add(load.size);
        for (from, to) in &wanted[wanted.partition_point(|w| w.1 <= at)..] {
            let (from, to) = ((*from).max(at), (*to).min(end));
            if from >= to {
                break;
            }
            skip(input, from - at)?;
            let bytes = take(input, (to - from) as usize)?;
            let place = self.0.partition_point(|(address, _)| *address <= from);
            self.0.insert(place, (from, bytes));
            at = to;
        }
        skip(input, end - at)
    }
}

impl Source for Remembered {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, address: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let at = address.saturating_add(done as u64);
            let after = self.0.partition_point(|(start, _)| *start <= at);
            let Some((start, bytes)) = after.checked_sub(1).map(|i| &self.0[i]) else { break };
            let rest = bytes.get((at - start) as usize..).filter(|rest| !rest.is_empty());
            let Some(rest) = rest else { break };
            let n = rest.len().min(buffer.len() - done);
            buffer[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        done
    }
}

/// The memory of the crashed process, by its addresses.
struct OfProcess<'a> {
    source: &'a CrashedMemory,
    head: &'a CoreHead,
    /// Starts of the mapped files, sorted.
    files: Vec<u64>,
    /// Whether the kernel keeps from us what the process itself could not read.
    hides: bool,
    target: &'a CopyTarget,
    /// Why nothing more can be read.
    failed: Cell<Option<Stop>>,
}

impl OfProcess<'_> {
    /// Fills the buffer from a page on, all of it or nothing.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
        let end = address.checked_add(buffer.len() as u64)?;
        let mut runs = Vec::new();
        let load = self.load_at(address);
        if self.hides && load.is_some_and(is_barred) {
            return None;
        }
        let load = load.map(|load| load.p_vaddr(LE));
        let is_given = self.source.vdso.is_some_and(|vdso| load == Some(vdso));
        if is_given {
            runs.push((address, end));
        } else {
            let page = page_size();
            let (first, last) = (address & !(page - 1), end.checked_next_multiple_of(page)?);
            self.source.pagemap.runs(first, last, (last - first) / page, &mut runs).ok()?;
        }
        if runs.is_empty() {
            let of_file = load.is_none_or(|at| self.files.binary_search(&at).is_ok());
            buffer.fill(0);
            // Of a process that has gone the page map shows nothing.
            return (!of_file && self.source.is_mapped()).then_some(());
        }
        let span = Span { address, size: buffer.len() };
        match self.source.read(&[span], buffer, false) {
            Ok(()) => {
                self.target.moved(buffer.len());
                Some(())
            }
            Err(stop) => {
                self.failed.set(self.failed.get().or(Some(stop)));
                None
            }
        }
    }

    /// The segment that an address is in.
    fn load_at(&self, address: u64) -> Option<&ProgramHeader64<LE>> {
        // The kernel writes them in the order of their addresses.
        let loads = &self.head.loads;
        let after = loads.partition_point(|p| p.p_vaddr(LE) <= address);
        let load = loads.get(after.checked_sub(1)?)?;
        (address - load.p_vaddr(LE) < load.p_memsz(LE)).then_some(load)
    }
}

impl Source for OfProcess<'_> {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, address: u64, buffer: &mut [u8]) -> usize {
        let (mut done, page) = (0, page_size());
        while done < buffer.len() && self.failed.get() != Some(Stop::Ended) {
            let at = address.saturating_add(done as u64);
            let n = ((page - at % page) as usize).min(buffer.len() - done);
            if self.read(at, &mut buffer[done..done + n]).is_none() {
                break;
            }
            done += n;
        }
        done
    }
}
