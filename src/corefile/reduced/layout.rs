//! The file of a small core: where each part of the memory goes, and the head that says so.
//!
//! What was dumped and is not kept is in no segment: a debugger says that it cannot read it, and
//! takes nothing for zeros. What was not dumped, such as code, is announced as before. What was
//! dumped of a mapped file and is not kept is announced by a segment of no bytes, whose physical
//! address is the number of bytes ([`Segment::left_out`]): debuggers pass over it, and
//! [`overview`] tells by it which mapped files are modules, as it does of the whole core.
//!
//! [`overview`]: crate::corefile::overview

use crate::corefile::head::{CoreHead, bytes_of};
use crate::corefile::image::CoreImage;
use crate::corefile::memory::Memory;
use crate::corefile::notes::Mapping;
use crate::corefile::segments::Segment;
use crate::elf::spans::Spans;
use object::elf::{
    FileHeader64, PN_XNUM, PT_LOAD, PT_NOTE, ProgramFlags, ProgramHeader64, SHT_NULL, SectionFlags,
    SectionHeader64, SymbolSection,
};
use object::read::elf::ProgramHeader;
use object::{LittleEndian as LE, U16, U32, U64};

/// A part of the memory in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    address: u64,
    size: u64,
}

/// A small core that is to be written.
#[derive(Debug)]
pub(crate) struct CoreLayout {
    /// ELF header, program headers and notes.
    head: Vec<u8>,
    parts: Vec<Part>,
    /// What has the number of segments where the ELF header has no room for it.
    tail: Vec<u8>,
    /// Where the tail begins.
    end: u64,
}

/// Parts begin at multiples of this.
const ALIGN: u64 = 16;

impl CoreLayout {
    /// Lays out the core with this head, of which `spans` of the memory are kept.
    pub(crate) fn new(head: &CoreHead, image: &CoreImage<'_>, spans: &Spans) -> Self {
        let kept = parts(&image.segments, spans);
        let mut files = image.notes.files.clone();
        files.sort_by_key(|f| f.start);
        let rest = head.loads.iter().filter(|p| p.p_memsz(LE) > p.p_filesz(LE));
        let mut loads: Vec<ProgramHeader64<LE>> = rest.map(not_dumped).collect();
        loads.extend(head.loads.iter().filter_map(|p| left_out(p, &files, &kept)));
        let count = 1 + kept.len() + loads.len();
        let notes: Vec<u8> = head.notes.concat();
        let start = (size_of::<FileHeader64<LE>>() + count * HEADER) as u64;
        let mut offset = start + notes.len() as u64;
        let notes_end = offset;
        let mut placed = Vec::new();
        for (part, flags) in kept {
            offset = offset.next_multiple_of(ALIGN);
            placed.push(Part { offset, ..part });
            loads.push(load(offset, part.address, part.size, part.size, flags));
            offset += part.size;
        }
        for load in loads.iter_mut().filter(|p| p.p_filesz(LE) == 0) {
            load.p_offset = U64::new(LE, notes_end);
        }
        loads.sort_by_key(|p| (p.p_vaddr(LE), p.p_memsz(LE)));
        let end = offset.next_multiple_of(ALIGN);
        let (header, tail) = headers(head.header, count, end);
        let mut all = bytes_of(&header).to_vec();
        let note = ProgramHeader64::<LE> {
            p_type: U32::new(LE, PT_NOTE),
            p_align: U64::new(LE, 4),
            ..load(start, 0, notes.len() as u64, 0, ProgramFlags(0))
        };
        all.extend([note].iter().chain(&loads).flat_map(bytes_of));
        all.extend(notes);
        let end = if tail.is_empty() { offset } else { end };
        CoreLayout { head: all, parts: placed, tail, end }
    }

    /// Writes the file: gives `put` its bytes in order.
    ///
    /// # Errors
    /// Those of `put`.
    pub(crate) fn write<E>(
        &self,
        memory: &Memory<'_>,
        put: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        const STEP: u64 = 64 << 10;
        put(&self.head)?;
        let mut at = self.head.len() as u64;
        let mut buffer = Vec::new();
        for part in &self.parts {
            put(&[0; ALIGN as usize][..(part.offset - at) as usize])?;
            let mut done = 0;
            while done < part.size {
                buffer.clear();
                buffer.resize(STEP.min(part.size - done) as usize, 0);
                // It was there when it was chosen.
                let _ = memory.read(part.address + done, &mut buffer);
                put(&buffer)?;
                done += buffer.len() as u64;
            }
            at = part.offset + part.size;
        }
        put(&[0; ALIGN as usize][..(self.end - at) as usize])?;
        put(&self.tail)
    }
}

/// Bytes of a program header.
const HEADER: usize = size_of::<ProgramHeader64<LE>>();

/// The parts of the spans, each within one segment, with its flags.
fn parts(segments: &[Segment], spans: &Spans) -> Vec<(Part, ProgramFlags)> {
    let mut found = Vec::new();
    for (start, end) in spans {
        let mut at = *start;
        while at < *end {
            let Some(segment) = super::stacks::dumped(segments, at) else { break };
            let after = segments.partition_point(|s| s.start() <= at);
            let next = segments.get(after).map_or(u64::MAX, Segment::start);
            // Where segments overlap, memory is read from the one that begins last.
            let stop = segment.start().saturating_add(segment.dumped.size).min(*end).min(next);
            found.push((Part { offset: 0, address: at, size: stop - at }, segment.flags));
            at = stop;
        }
    }
    found
}

/// What the kernel did not dump of a segment.
fn not_dumped(p: &ProgramHeader64<LE>) -> ProgramHeader64<LE> {
    let dumped = p.p_filesz(LE);
    let address = p.p_vaddr(LE).saturating_add(dumped);
    load(0, address, 0, p.p_memsz(LE) - dumped, p.p_flags(LE))
}

/// Says how much of a mapped file was dumped and is not kept, if there is any.
fn left_out(
    p: &ProgramHeader64<LE>,
    files: &[Mapping],
    kept: &[(Part, ProgramFlags)],
) -> Option<ProgramHeader64<LE>> {
    let (start, size) = (p.p_vaddr(LE), p.p_filesz(LE));
    let of_file = files.partition_point(|f| f.end <= start);
    files.get(of_file).filter(|f| f.start < start.saturating_add(size.max(1)))?;
    if Segment::of(p).left_out > 0 {
        return Some(*p);
    }
    let first = kept.partition_point(|(part, _)| part.address < start);
    let parts = kept[first..].iter().map(|(part, _)| part);
    let (mut next, mut left) = (start, size);
    for part in parts.take_while(|part| part.address - start < size) {
        left = left.saturating_sub(part.size);
        if part.address == next {
            next += part.size;
        }
    }
    let marker = load(0, next, 0, 0, p.p_flags(LE));
    (left > 0).then(|| ProgramHeader64 { p_paddr: U64::new(LE, left), ..marker })
}

fn load(
    offset: u64,
    address: u64,
    size: u64,
    in_memory: u64,
    flags: ProgramFlags,
) -> ProgramHeader64<LE> {
    ProgramHeader64 {
        p_type: U32::new(LE, PT_LOAD),
        p_flags: U32::new(LE, flags),
        p_offset: U64::new(LE, offset),
        p_vaddr: U64::new(LE, address),
        p_paddr: U64::new(LE, 0),
        p_filesz: U64::new(LE, size),
        p_memsz: U64::new(LE, in_memory),
        p_align: U64::new(LE, 1),
    }
}

/// The ELF header of a core with so many program headers, and the section header at `end` that it
/// needs where there are too many for it.
fn headers(old: FileHeader64<LE>, count: usize, end: u64) -> (FileHeader64<LE>, Vec<u8>) {
    let is_many = count >= usize::from(PN_XNUM);
    let header = FileHeader64 {
        e_phoff: U64::new(LE, size_of::<FileHeader64<LE>>() as u64),
        e_phentsize: U16::new(LE, HEADER as u16),
        e_phnum: U16::new(LE, if is_many { PN_XNUM } else { count as u16 }),
        e_shoff: U64::new(LE, if is_many { end } else { 0 }),
        e_shentsize: U16::new(LE, size_of::<SectionHeader64<LE>>() as u16),
        e_shnum: U16::new(LE, u16::from(is_many)),
        e_shstrndx: U16::new(LE, SymbolSection(0)),
        ..old
    };
    let section = SectionHeader64::<LE> {
        sh_name: U32::new(LE, 0),
        sh_type: U32::new(LE, SHT_NULL),
        sh_flags: U64::new(LE, SectionFlags(0)),
        sh_addr: U64::new(LE, 0),
        sh_offset: U64::new(LE, 0),
        sh_size: U64::new(LE, 1),
        sh_link: U32::new(LE, 0),
        sh_info: U32::new(LE, count as u32),
        sh_addralign: U64::new(LE, 0),
        sh_entsize: U64::new(LE, 0),
    };
    (header, if is_many { bytes_of(&section).to_vec() } else { Vec::new() })
}
