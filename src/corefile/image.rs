//! The ELF structure of a core: header, segments, notes. 64-bit little-endian only; other
//! cores are named and refused.

use super::memory::Memory;
use super::notes::Notes;
use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::ReadRef;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use std::fmt;

/// Bytes at offsets, of an open file or of memory.
pub(crate) trait Source {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`, as far as there are bytes, and returns their number.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize;
}

impl Source for std::fs::File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|o| self.get(o..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        n
    }
}

/// Most segments. The kernel's own bound is vm.max_map_count, 65,530 unless raised.
const MAX_SEGMENTS: u32 = 1 << 20;
/// Most bytes of notes. 10,000 threads with AVX-512 and AMX have about 40 MiB.
const MAX_NOTES: u64 = 256 << 20;

/// The processor architecture, which determines registers and system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// AMD64.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Machine::X86_64 => "x86-64",
            Machine::Aarch64 => "AArch64",
        })
    }
}

/// A PT_LOAD segment: a part of the process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Address in the process.
    pub address: u64,
    /// Size in the process, in bytes.
    pub size: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Size in the file, in bytes.
    pub in_file: u64,
    /// Whether it is executable.
    pub code: bool,
}

/// A parsed core file.
pub(crate) struct Image<'s> {
    /// Its architecture.
    pub machine: Machine,
    /// Segments, sorted by address.
    pub loads: Vec<Load>,
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
        let segments = segments(source, header)?;
        let mut loads: Vec<Load> =
            segments.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD).map(load).collect();
        loads.sort_unstable_by_key(|l| l.address);
        let memory = Memory::new(source, loads.clone());
        let mut notes = Notes::default();
        for p in segments.iter().filter(|p| p.p_type(LE) == elf::PT_NOTE) {
            notes.add(machine, &read_notes(source, p)?)?;
        }
        ensure!(!notes.threads.is_empty(), "it ends before its first thread: no NT_PRSTATUS");
        Ok(Image { machine, loads, notes, memory, size: source.size() })
    }

    /// Bytes that the segments announce but the file does not have.
    pub(crate) fn missing(&self) -> u64 {
        let end = self.loads.iter().map(|l| l.offset.saturating_add(l.in_file)).max().unwrap_or(0);
        end.saturating_sub(self.size)
    }

    /// Whether the memory at an address is executable.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        let i = self.loads.partition_point(|l| l.address <= address);
        i > 0
            && self.loads[i - 1].code
            && address - self.loads[i - 1].address < self.loads[i - 1].size
    }
}

fn load(p: &ProgramHeader64<LE>) -> Load {
    Load {
        address: p.p_vaddr(LE),
        size: p.p_memsz(LE),
        offset: p.p_offset(LE),
        in_file: p.p_filesz(LE),
        code: p.p_flags(LE).0 & elf::PF_X.0 != 0,
    }
}

fn segments(source: &dyn Source, header: &FileHeader64<LE>) -> Result<Vec<ProgramHeader64<LE>>> {
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
    let mut bytes = vec![0; count as usize * size_of::<ProgramHeader64<LE>>()];
    ensure!(
        source.read_at(header.e_phoff(LE), &mut bytes) == bytes.len(),
        "it ends in its segment headers"
    );
    Ok((&bytes[..])
        .read_slice_at::<ProgramHeader64<LE>>(0, count as usize)
        .ok()
        .context("its segment headers are damaged")?
        .to_vec())
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
