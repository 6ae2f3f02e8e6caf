//! The notes of a core: threads with their registers, the signal, the table of mapped
//! files, the auxiliary vector.
//!
//! `object` splits the notes. The layouts of their contents are the kernel's
//! (`include/uapi/linux/elfcore.h`, `fs/binfmt_elf.c`); no maintained crate has them for
//! the core of another process.

use super::segments::Machine;
use super::signal::Signal;
use crate::elf::{FileTable, MappedFile, i32_at, u64_at};
use crate::sys::proc::printable;
use anyhow::Result;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::NoteIterator;
use std::collections::BTreeMap;

/// The registers that unwinding starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer: rbp or x29.
    pub fp: u64,
    /// Link register, x30; 0 on architectures without one.
    pub lr: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Its ID in the crasher's own PID namespace.
    pub tid: i32,
    /// Its registers when it was dumped.
    pub registers: Registers,
}

/// The registers of a thread, as the kernel saves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadState {
    /// `pr_reg` of NT_PRSTATUS.
    pub general: Vec<u64>,
    /// NT_PRFPREG.
    pub floating: Vec<u8>,
}

/// A row of NT_FILE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Path of the file, as bytes.
    pub path: Vec<u8>,
}

/// What is read from the notes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// All general registers of the first thread, in the order of the machine's manual.
    pub general: Vec<(&'static str, u64)>,
    /// All registers of the first thread.
    pub first: ThreadState,
    /// Threads; the kernel puts the one that caused the dump first.
    pub threads: Vec<Thread>,
    /// From NT_SIGINFO, or only the number from NT_PRSTATUS.
    pub signal: Option<Signal>,
    /// Rows of NT_FILE.
    pub files: Vec<Mapping>,
    /// Entries of NT_AUXV, by type.
    pub auxv: BTreeMap<u64, u64>,
    /// Process ID in its own PID namespace.
    pub pid: i32,
    /// comm of the process.
    pub comm: String,
    /// Command line, cut after 80 bytes.
    pub arguments: String,
}

/// Most threads, and most mappings, that are read, since each takes memory.
const MAX: usize = 1 << 16;

impl Notes {
    /// Reads the notes of one segment. A damaged note ends the segment;
    /// what came before it is kept.
    pub(crate) fn add(&mut self, machine: Machine, bytes: &[u8]) -> Result<()> {
        let mut notes = NoteIterator::<FileHeader64<LE>>::new(LE, 4, bytes)?;
        while let Ok(Some(note)) = notes.next() {
            let d = note.desc();
            match (note.name(), note.n_type(LE)) {
                (b"CORE", elf::NT_PRSTATUS) if self.threads.len() < MAX => self.status(machine, d),
                (b"CORE", elf::NT_PRFPREG)
                    if self.threads.len() == 1 && self.first.floating.is_empty() =>
                {
                    self.first.floating = d[..d.len().min(1024)].to_vec();
                }
                // gdb writes one for each thread.
                (b"CORE", elf::NT_SIGINFO)
                    if self.signal.as_ref().is_none_or(|s| s.code.is_none()) =>
                {
                    self.signal = Signal::of_siginfo(d, machine).or(self.signal.take());
                }
                (b"CORE", elf::NT_FILE) => self.files = mappings(d).unwrap_or_default(),
                (b"CORE", elf::NT_AUXV) => {
                    let pairs =
                        d.chunks_exact(16).filter_map(|p| Some((u64_at(p, 0)?, u64_at(p, 8)?)));
                    self.auxv = pairs.take_while(|(k, _)| *k != 0).collect();
                }
                (b"CORE", elf::NT_PRPSINFO) => {
                    // struct elf_prpsinfo: state and flags (16), user, group, pid, ppid, pgrp, sid
                    // (24), pr_fname[16], pr_psargs[80].
                    self.pid = i32_at(d, 24).unwrap_or(0);
                    self.comm = text(d.get(40..56));
                    self.arguments = text(d.get(56..136));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// struct elf_prstatus: pr_cursig at 12, pr_pid at 32, pr_reg at 112.
    fn status(&mut self, machine: Machine, d: &[u8]) {
        let register = |i: usize| u64_at(d, 112 + 8 * i);
        let registers = match machine {
            // struct user_regs_struct
            Machine::X86_64 => (|| {
                Some(Registers { pc: register(16)?, sp: register(19)?, fp: register(4)?, lr: 0 })
            })(),
            // struct user_pt_regs
            Machine::Aarch64 => (|| {
                Some(Registers {
                    pc: register(32)?,
                    sp: register(31)?,
                    fp: register(29)?,
                    lr: register(30)?,
                })
            })(),
        };
        let (Some(registers), Some(tid)) = (registers, i32_at(d, 32)) else { return };
        if self.threads.is_empty() && self.signal.is_none() {
            self.signal = d
                .get(12..14)
                .map(|b| Signal::bare(u16::from_le_bytes([b[0], b[1]]).into()))
                .filter(|s| s.number != 0);
        }
        if self.threads.is_empty() {
            let all = general(machine).iter();
            // struct user_regs_struct has 27, struct user_pt_regs 34.
            self.first.general = (0..34).map_while(register).collect();
            self.general = all.filter_map(|(name, i)| Some((*name, register(*i)?))).collect();
        }
        self.threads.push(Thread { tid, registers });
    }
}

/// The general registers, each with its place in `pr_reg`: struct user_regs_struct, user_pt_regs.
fn general(machine: Machine) -> &'static [(&'static str, usize)] {
    match machine {
        Machine::X86_64 => &[
            ("rip", 16),
            ("rsp", 19),
            ("rbp", 4),
            ("rflags", 18),
            ("rax", 10),
            ("rbx", 5),
            ("rcx", 11),
            ("rdx", 12),
            ("rsi", 13),
            ("rdi", 14),
            ("r8", 9),
            ("r9", 8),
            ("r10", 7),
            ("r11", 6),
            ("r12", 3),
            ("r13", 2),
            ("r14", 1),
            ("r15", 0),
            ("orig_rax", 15),
        ],
        Machine::Aarch64 => &[
            ("pc", 32),
            ("sp", 31),
            ("pstate", 33),
            ("x0", 0),
            ("x1", 1),
            ("x2", 2),
            ("x3", 3),
            ("x4", 4),
            ("x5", 5),
            ("x6", 6),
            ("x7", 7),
            ("x8", 8),
            ("x29", 29),
            ("x30", 30),
        ],
    }
}

/// The rows of NT_FILE; `None` if it is damaged.
fn mappings(note: &[u8]) -> Option<Vec<Mapping>> {
    let files = FileTable::parse(note, LE)?.files().take(MAX);
    files
        .map(|file| {
            let MappedFile { start, end, offset, path } = file?;
            Some(Mapping { start, end, offset, path: path.to_vec() })
        })
        .collect()
}

fn text(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or_default();
    printable(bytes.split(|b| *b == 0).next().unwrap_or_default()).trim_end().to_owned()
}
