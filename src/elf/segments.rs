//! Program headers.

use super::source::{Source, read_exactly};
use object::read::elf::{FileHeader, ProgramHeader};

/// The part of a segment that is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Address in the process.
    pub address: u64,
    /// Size in the file, in bytes.
    pub size: u64,
}

impl Load {
    /// What a program header says. The sum of two of its values may overflow.
    pub(crate) fn of<P: ProgramHeader>(header: &P, endian: P::Endian) -> Self {
        Load {
            offset: header.p_offset(endian).into(),
            address: header.p_vaddr(endian).into(),
            size: header.p_filesz(endian).into(),
        }
    }

    /// Whether it is the legacy vsyscall page, the only one in the kernel's half of the address
    /// space: no page map shows it.
    pub(crate) fn is_legacy(&self) -> bool {
        self.address > i64::MAX as u64
    }
}

/// Reads the first `count` program headers; `None` if the source ends before. The caller bounds
/// `count`.
pub(crate) fn read_program_headers<H: FileHeader>(
    source: &dyn Source,
    header: &H,
    endian: H::Endian,
    count: usize,
) -> Option<Vec<H::ProgramHeader>> {
    let size = count.checked_mul(size_of::<H::ProgramHeader>())?;
    let table = read_exactly(source, header.e_phoff(endian).into(), size)?;
    let (headers, _) = object::pod::slice_from_bytes::<H::ProgramHeader>(&table, count).ok()?;
    Some(headers.to_vec())
}
