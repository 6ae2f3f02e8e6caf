//! The head of a core as the kernel sends it, read piece by piece from a pipe: just enough of it to
//! know where the kernel's units end and how large the whole is.

use super::segments::Load;
use object::elf::{FileHeader32, FileHeader64, NoteType, ProgramHeader32, ProgramHeader64};
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
    /// Those of them that the process itself could not read.
    pub barred: Vec<Load>,
    /// Whether there is more than notes and memory: the tags of memory (`PT_AARCH64_MEMTAG_MTE`).
    pub has_more: bool,
    /// In which note a thread's pointer is, and at which byte of its contents.
    thread_pointer: Option<(NoteType, usize)>,
}

/// Where a thread's pointer to its own block is in the contents of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadPointer(usize);

impl ThreadPointer {
    /// The pointer; `None` if the note is shorter.
    pub(crate) fn read(self, contents: &[u8]) -> Option<u64> {
        let bytes = contents.get(self.0..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    }
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
    /// Whether it lists the mapped files.
    pub(crate) fn is_files(self) -> bool {
        NoteType(self.kind) == object::elf::NT_FILE
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
        // `fs_base` of `struct elf_prstatus`; `tpidr_el0`.
        let thread_pointer = match header.e_machine(endian) {
            object::elf::EM_X86_64 => Some((object::elf::NT_PRSTATUS, 112 + 21 * 8)),
            object::elf::EM_AARCH64 => Some((object::elf::NT_ARM_TLS, 0)),
            _ => None,
        };
        Some(Head {
            wide,
            endian,
            header_size,
            segment_size,
            segments,
            thread_pointer,
            ..Head::default()
        })
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
            object::elf::PT_LOAD if load.size > 0 => {
                self.loads.push(load);
                // The vsyscall page may be for execution only; it is read in a way of its own.
                if !p.p_flags(self.endian).contains(object::elf::PF_R) && !load.is_legacy() {
                    self.barred.push(load);
                }
            }
            _ => self.has_more |= load.size > 0,
        }
    }

    /// Where in this note a thread's pointer to its own block is, if it is one that has it. Each
    /// thread has such a note, but for programs of another architecture than x86-64 and AArch64.
    pub(crate) fn thread_pointer_in(&self, note: Note) -> Option<ThreadPointer> {
        let (kind, offset) = self.thread_pointer.filter(|_| self.wide)?;
        (NoteType(note.kind) == kind).then_some(ThreadPointer(offset))
    }

    /// Reads the 12 bytes before a note.
    pub(crate) fn note(bytes: &[u8]) -> Option<Note> {
        let word = |i: usize| Some(u32::from_ne_bytes(bytes.get(i..i + 4)?.try_into().ok()?));
        Some(Note { name: word(0)? as usize, content: word(4)? as usize, kind: word(8)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::elf::{EM_AARCH64, EM_RISCV, EM_X86_64, Machine};

    /// The head of a core: the segments are those of type, offset and size.
    fn head(machine: Machine, segments: &[(u32, u64, u64)]) -> Head {
        let mut start = vec![0; 64];
        start[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        start[16..18].copy_from_slice(&4u16.to_le_bytes());
        start[18..20].copy_from_slice(&machine.0.to_le_bytes());
        start[32] = 64;
        start[54] = 56;
        for (kind, offset, size) in segments {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            start.extend(header);
        }
        let mut head = Head::of(&start).unwrap();
        start[64..].chunks(56).for_each(|segment| head.add_segment(segment));
        head
    }

    #[test]
    fn thread_pointers_of_both_architectures() {
        let place = |machine, kind| {
            let head = head(machine, &[(4, 64 + 56, 8)]);
            head.thread_pointer_in(Note { name: 5, content: 336, kind })
        };
        assert_eq!(place(EM_X86_64, 1), Some(ThreadPointer(280)));
        assert_eq!(place(EM_X86_64, 0x401), None);
        // There x21 is at byte 280.
        assert_eq!(place(EM_AARCH64, 1), None);
        assert_eq!(place(EM_AARCH64, 0x401), Some(ThreadPointer(0)));
        assert_eq!(place(EM_RISCV, 1), None);
        assert_eq!(ThreadPointer(1).read(&[9, 1, 0, 0, 0, 0, 0, 0, 0, 9]), Some(1));
        assert_eq!(ThreadPointer(1).read(&[0; 8]), None);
    }

    #[test]
    fn what_the_process_could_not_read() {
        let mut core = head(EM_X86_64, &[(4, 64 + 56, 8)]);
        let all: [(u32, u64); 5] = [
            (4, 0x1_0000),
            (0, 0x2_0000),
            (2, 0x3_0000),
            (5, 0x4_0000),
            (1, 0xffff_ffff_ff60_0000),
        ];
        for (flags, address) in all {
            let mut header = [0; 56];
            header[0] = 1;
            header[4..8].copy_from_slice(&flags.to_le_bytes());
            header[16..24].copy_from_slice(&address.to_le_bytes());
            header[32..40].copy_from_slice(&0x1000_u64.to_le_bytes());
            core.add_segment(&header);
        }
        let barred: Vec<u64> = core.barred.iter().map(|load| load.address).collect();
        assert_eq!(barred, [0x2_0000, 0x3_0000]);
        assert_eq!(core.loads.len(), 5);
    }

    /// The tags of memory are at the end of a core, and no memory has them.
    #[test]
    fn more_than_memory() {
        let notes = 64 + 3 * 56;
        let core =
            head(EM_AARCH64, &[(4, notes, 8), (1, 0x1000, 0x1000), (0x7000_0002, 0x2000, 128)]);
        assert_eq!((core.has_more, core.loads.len(), core.end), (true, 1, 0x2080));
        let plain =
            head(EM_AARCH64, &[(4, notes, 8), (1, 0x1000, 0x1000), (0x7000_0002, 0x2000, 0)]);
        assert!(!plain.has_more);
    }
}
