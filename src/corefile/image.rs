//! The ELF structure of a core: header, segments, notes. 64-bit little-endian only; other
//! cores are named and refused.

use super::memory::Memory;
use super::notes::Notes;
use super::segments::{Machine, Segment};
use crate::elf::{Source, read_program_headers};
use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::ReadRef;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

/// Most segments. The kernel's own bound is vm.max_map_count, 65,530 unless raised.
const MAX_SEGMENTS: u32 = 1 << 20;
/// Most bytes of notes. 10,000 threads with AVX-512 and AMX have about 40 MiB.
const MAX_NOTES: u64 = 256 << 20;

pub(crate) struct Image<'s> {
    /// Its architecture.
    pub machine: Machine,
    /// Segments, sorted by address.
    pub segments: Vec<Segment>,
    /// The contents of its notes.
    pub notes: Notes,
    /// The memory that was dumped.
    pub memory: Memory<'s>,
    size: u64,
}

impl<'s> Image<'s> {
    /// Parses a core.
    ///
    /// # Errors
    /// What the file is instead, or what is wrong with it.
    pub(crate) fn parse(source: &'s dyn Source) -> Result<Self> {
        let mut start = [0; 64];
        let got = source.read_at(0, &mut start);
        ensure!(got > 0, "it is empty");
        ensure!(start.starts_with(&elf::ELFMAG), "it is not an ELF file");
        ensure!(got == start.len(), "it ends in its ELF header");
        ensure!(
            start[4] == elf::ELFCLASS64.0,
            "it is a 32-bit core, and only 64-bit ones can be read"
        );
        ensure!(
            start[5] == elf::ELFDATA2LSB.0,
            "it is a big-endian core, and only little-endian ones can be read"
        );
        let header =
            FileHeader64::<LE>::parse(&start[..]).context("it has a damaged ELF header")?;
        ensure!(header.e_type(LE) == elf::ET_CORE, "it is an ELF file, but not a core");
        let machine = match header.e_machine(LE) {
            elf::EM_X86_64 => Machine::X86_64,
            elf::EM_AARCH64 => Machine::Aarch64,
            other => {
                bail!("it is of a machine whose cores cannot be read (ELF machine {})", other.0)
            }
        };
        let headers = program_headers(source, header)?;
        let loads = headers.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD);
        let mut segments: Vec<Segment> = loads.map(Segment::of).collect();
        segments.sort_unstable_by_key(Segment::start);
        let memory = Memory::new(source, segments.iter().map(|s| s.dumped).collect());
        let mut notes = Notes::default();
        for p in headers.iter().filter(|p| p.p_type(LE) == elf::PT_NOTE) {
            notes.add(machine, &read_notes(source, p)?)?;
        }
        ensure!(!notes.threads.is_empty(), "it ends before its first thread: no NT_PRSTATUS");
        Ok(Image { machine, segments, notes, memory, size: source.size() })
    }

    /// Bytes that the segments announce but the file does not have.
    pub(crate) fn missing(&self) -> u64 {
        let ends = self.segments.iter().map(|s| s.dumped.offset.saturating_add(s.dumped.size));
        ends.max().unwrap_or(0).saturating_sub(self.size)
    }

    /// Whether the memory at an address is executable.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        let after = self.segments.partition_point(|s| s.start() <= address);
        let before = self.segments[..after].last();
        before.is_some_and(|s| s.is_code && address - s.start() < s.size)
    }
}

fn program_headers(
    source: &dyn Source,
    header: &FileHeader64<LE>,
) -> Result<Vec<ProgramHeader64<LE>>> {
    let mut count = u32::from(header.e_phnum(LE));
    if count == u32::from(elf::PN_XNUM) {
        // For more than 65,534 segments the number is in sh_info of the first section
        // header, at the end of the file.
        let mut section = [0; 64];
        let got = source.read_at(header.e_shoff(LE), &mut section);
        ensure!(
            got == section.len(),
            "it is cut: it has more than 65,534 segments, and the number of them stood at its end"
        );
        let first = (&section[..])
            .read_at::<elf::SectionHeader64<LE>>(0)
            .ok()
            .context("its section header is damaged")?;
        count = object::read::elf::SectionHeader::sh_info(first, LE);
    }
    ensure!(count <= MAX_SEGMENTS, "it claims {count} segments");
    ensure!(
        usize::from(header.e_phentsize(LE)) == size_of::<ProgramHeader64<LE>>(),
        "its segment headers have a strange size"
    );
    read_program_headers(source, header, LE, count as usize)
        .context("it ends in its segment headers")
}

fn read_notes(source: &dyn Source, p: &ProgramHeader64<LE>) -> Result<Vec<u8>> {
    // A truncated file has at most the rest of it.
    let size = p.p_filesz(LE).min(source.size().saturating_sub(p.p_offset(LE)));
    ensure!(size <= MAX_NOTES, "it claims {size} bytes of notes");
    let mut bytes = vec![0; size as usize];
    let got = source.read_at(p.p_offset(LE), &mut bytes);
    bytes.truncate(got);
    Ok(bytes)
}
