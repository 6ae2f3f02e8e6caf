//! The head of a core: its ELF header, program headers and notes. 64-bit little-endian only; other
//! cores are named and refused.

use super::segments::{Machine, Segment};
use crate::elf::{Source, read_program_headers};
use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Pod, ReadRef};

/// Most segments. The kernel's own bound is vm.max_map_count, 65,530 unless raised.
const MAX_SEGMENTS: u32 = 1 << 20;
/// Most bytes of notes. 10,000 threads with AVX-512 and AMX have about 40 MiB.
pub(crate) const MAX_NOTES: u64 = 256 << 20;

/// The head of a core.
#[derive(Clone, Debug)]
pub(crate) struct CoreHead {
    /// Its architecture.
    pub machine: Machine,
    /// The ELF header.
    pub header: FileHeader64<LE>,
    /// The program headers of the memory, in the order of the file.
    pub loads: Vec<ProgramHeader64<LE>>,
    /// The contents of each segment of notes.
    pub notes: Vec<Vec<u8>>,
}

impl CoreHead {
    /// Reads the head of a core file.
    ///
    /// # Errors
    /// What the file is instead, or what is wrong with it.
    pub(crate) fn read(source: &dyn Source) -> Result<Self> {
        let mut start = [0; 64];
        let got = source.read_at(0, &mut start);
        let header = *file_header(&start[..got])?;
        let machine = machine(&header)?;
        let headers = program_headers(source, &header)?;
        let of_notes = headers.iter().filter(|p| p.p_type(LE) == elf::PT_NOTE);
        let notes = of_notes.map(|p| read_notes(source, p)).collect::<Result<_>>()?;
        let loads = headers.into_iter().filter(|p| p.p_type(LE) == elf::PT_LOAD).collect();
        Ok(CoreHead { machine, header, loads, notes })
    }

    /// The same of its parts, as they come through a pipe: the ELF header, the program headers,
    /// the notes.
    ///
    /// # Errors
    /// As for [`CoreHead::read`].
    pub(crate) fn of_parts(header: &[u8], segments: &[u8], notes: Vec<u8>) -> Result<Self> {
        let header = *file_header(header)?;
        let machine = machine(&header)?;
        let count = segments.len() / size_of::<ProgramHeader64<LE>>();
        let all = object::pod::slice_from_bytes::<ProgramHeader64<LE>>(segments, count);
        let (all, _) = all.ok().context("its segment headers are damaged")?;
        let loads = all.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD).copied().collect();
        Ok(CoreHead { machine, header, loads, notes: vec![notes] })
    }

    /// The segments, sorted by address.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = self.loads.iter().map(Segment::of).collect();
        segments.sort_unstable_by_key(Segment::start);
        segments
    }

    /// Where the last segment ends in the file: the size of the whole core, but for the section
    /// header that one with more than 65,534 segments has behind that.
    pub(crate) fn end(&self) -> u64 {
        let end = |p: &ProgramHeader64<LE>| p.p_offset(LE).saturating_add(p.p_filesz(LE));
        self.loads.iter().map(end).max().unwrap_or(0)
    }
}

fn file_header(start: &[u8]) -> Result<&FileHeader64<LE>> {
    ensure!(!start.is_empty(), "it is empty");
    ensure!(start.starts_with(&elf::ELFMAG), "it is not an ELF file");
    ensure!(start.len() >= size_of::<FileHeader64<LE>>(), "it ends in its ELF header");
    ensure!(start[4] == elf::ELFCLASS64.0, "it is a 32-bit core, and only 64-bit ones can be read");
    ensure!(
        start[5] == elf::ELFDATA2LSB.0,
        "it is a big-endian core, and only little-endian ones can be read"
    );
    FileHeader64::<LE>::parse(start).context("it has a damaged ELF header")
}

fn machine(header: &FileHeader64<LE>) -> Result<Machine> {
    ensure!(header.e_type(LE) == elf::ET_CORE, "it is an ELF file, but not a core");
    match header.e_machine(LE) {
        elf::EM_X86_64 => Ok(Machine::X86_64),
        elf::EM_AARCH64 => Ok(Machine::Aarch64),
        other => bail!("it is of a machine whose cores cannot be read (ELF machine {})", other.0),
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

/// The bytes of a header.
pub(super) fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    object::pod::bytes_of(value)
}
