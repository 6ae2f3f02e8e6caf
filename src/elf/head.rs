//! The head of a core as the kernel sends it, read piece by piece from a pipe: just enough of it to
//! know where the kernel's units end and how large the whole is.

use super::segments::Load;
use object::elf::{FileHeader32, FileHeader64, ProgramHeader32, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

/// What the head says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    wide: bool,
    endian: Endianness,
    /// Size of the ELF header.
    pub header_size: usize,
    /// Size of one program header.
    pub segment_size: usize,
    pub segments: u64,
    /// Where the notes end.
    pub notes_end: u64,
    /// Where the last segment ends: the size of the whole core.
    pub end: u64,
    /// The memory, in the order of the file.
    pub loads: Vec<Load>,
}

/// The sizes of one note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Bytes of its name.
    pub name: usize,
    /// Bytes of its contents.
    pub content: usize,
    kind: u32,
}

impl Note {
    /// Whether it holds the registers of a thread.
    pub(crate) fn is_registers(self) -> bool {
        object::elf::NoteType(self.kind) == object::elf::NT_PRSTATUS
    }

    /// Whether it lists the mapped files.
    pub(crate) fn is_files(self) -> bool {
        object::elf::NoteType(self.kind) == object::elf::NT_FILE
    }

    /// The units in which the kernel emits the content: one, but for the layout of the x86 state,
    /// which goes component by component (`struct x86_xfeat_component`, Linux 6.12).
    pub(crate) fn parts(self) -> impl Iterator<Item = usize> {
        const NT_X86_XSAVE_LAYOUT: u32 = 0x205;
        const COMPONENT: usize = 16;
        let part = if self.kind == NT_X86_XSAVE_LAYOUT { COMPONENT } else { self.content.max(1) };
        (0..self.content.div_ceil(part)).map(move |i| part.min(self.content - i * part))
    }
}

impl Head {
    /// Bytes that [`Head::of`] needs: a header and the first program header, of the wide kind.
    pub(crate) const LONGEST_START: usize =
        size_of::<FileHeader64<Endianness>>() + size_of::<ProgramHeader64<Endianness>>();

    /// Reads the start of a core; `None` if it is not one as Linux writes it: the program headers
    /// behind the header, the notes first among them.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start.get(4)? {
            1 => Self::read::<FileHeader32<Endianness>>(start, false),
            2 => Self::read::<FileHeader64<Endianness>>(start, true),
            _ => None,
        }
    }

    fn read<H: FileHeader<Endian = Endianness>>(start: &[u8], wide: bool) -> Option<Self> {
        let header = H::parse(start).ok()?;
        let endian = header.endian().ok()?;
        let (header_size, segment_size) = (size_of::<H>(), size_of::<H::ProgramHeader>());
        let first: &H::ProgramHeader = start.read_at(header_size as u64).ok()?;
        let notes: u64 = first.p_offset(endian).into();
        if first.p_type(endian) != object::elf::PT_NOTE
            || header.e_phoff(endian).into() != header_size as u64
        {
            return None;
        }
        // With more than 65,534 segments e_phnum says PN_XNUM and the number stands at the end of
        // the file; but the notes follow the headers at once.
        let space = notes.checked_sub(header_size as u64)?;
        let segments = space / segment_size as u64;
        if space % segment_size as u64 != 0 || segments == 0 {
            return None;
        }
        Some(Head { wide, endian, header_size, segment_size, segments, ..Head::default() })
    }

    /// Whether it is of a 64-bit program.
    pub(crate) fn is_wide(&self) -> bool {
        self.wide
    }

    /// Takes the next program header.
    pub(crate) fn add_segment(&mut self, bytes: &[u8]) {
        if self.wide {
            self.add::<ProgramHeader64<Endianness>>(bytes);
        } else {
            self.add::<ProgramHeader32<Endianness>>(bytes);
        }
    }

    fn add<P: ProgramHeader<Endian = Endianness>>(&mut self, bytes: &[u8]) {
        let Ok(p) = bytes.read_at::<P>(0) else { return };
        let load = Load::of(p, self.endian);
        let end = load.offset.saturating_add(load.size);
        self.end = self.end.max(end);
        match p.p_type(self.endian) {
            object::elf::PT_NOTE => self.notes_end = end,
            object::elf::PT_LOAD if load.size > 0 => self.loads.push(load),
            _ => {}
        }
    }

    /// The thread pointer in the contents of a note of registers of a 64-bit x86 program: `fs_base`
    /// of `struct elf_prstatus`.
    pub(crate) fn thread_pointer(registers: &[u8]) -> Option<u64> {
        const FS_BASE: usize = 112 + 21 * 8;
        Some(u64::from_ne_bytes(registers.get(FS_BASE..FS_BASE + 8)?.try_into().ok()?))
    }

    /// Reads the 12 bytes before a note.
    pub(crate) fn note(bytes: &[u8]) -> Option<Note> {
        let word = |i: usize| Some(u32::from_ne_bytes(bytes.get(i..i + 4)?.try_into().ok()?));
        Some(Note { name: word(0)? as usize, content: word(4)? as usize, kind: word(8)? })
    }
}
