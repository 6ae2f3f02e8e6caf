//! The architecture of a core, and the parts of the process's memory that it announces.

use crate::elf;
use object::LittleEndian as LE;
use object::elf::{PF_W, PF_X, ProgramFlags, ProgramHeader64};
use object::read::elf::ProgramHeader;
use std::fmt;

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
pub(crate) struct Segment {
    /// The part of it that is in the file, at its start.
    pub dumped: elf::Load,
    /// Size in the process, in bytes.
    pub size: u64,
    /// Of a small core's segment of no bytes: how many bytes of a mapped file were dumped there and
    /// are not kept.
    pub left_out: u64,
    /// Whether it is executable.
    pub is_code: bool,
    /// How it may be used.
    pub flags: ProgramFlags,
}

impl Segment {
    /// What a program header says.
    pub(crate) fn of(header: &ProgramHeader64<LE>) -> Self {
        Segment {
            dumped: elf::Load::of(header, LE),
            size: header.p_memsz(LE),
            left_out: match (header.p_filesz(LE), header.p_memsz(LE)) {
                (0, 0) => header.p_paddr(LE),
                _ => 0,
            },
            is_code: header.p_flags(LE).0 & PF_X.0 != 0,
            flags: header.p_flags(LE),
        }
    }

    /// Whether it is writable.
    pub(crate) fn is_writable(&self) -> bool {
        self.flags.0 & PF_W.0 != 0
    }

    /// Its first address in the process.
    pub(crate) fn start(&self) -> u64 {
        self.dumped.address
    }

    /// One past its last address in the process.
    pub(crate) fn end(&self) -> u64 {
        self.start().saturating_add(self.size)
    }
}
