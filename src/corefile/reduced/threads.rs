//! The registers of each thread of a core, as far as they tell where its stack is and what it
//! points to.

use crate::corefile::head::CoreHead;
use crate::corefile::segments::Machine;
use crate::elf::u64_at;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::NoteIterator;

/// Most threads whose stacks are kept.
const MAX: usize = 1 << 16;
/// Where `pr_reg` begins in `struct elf_prstatus`.
const GENERAL: usize = 112;
/// The thread pointer of an AArch64 thread (`NT_ARM_TLS`).
const ARM_TLS: u32 = 0x401;

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ThreadRegisters {
    /// The stack pointer.
    pub sp: u64,
    /// The program counter.
    pub pc: u64,
    /// The thread pointer, 0 if it is not known.
    pub tls: u64,
    /// The register in which Go has the current goroutine.
    pub go: u64,
    /// The other general registers.
    pub general: Vec<u64>,
}

/// All threads, in the order of the core: the one that crashed first.
pub(super) fn of(head: &CoreHead) -> Vec<ThreadRegisters> {
    let mut threads: Vec<ThreadRegisters> = Vec::new();
    for notes in &head.notes {
        let Ok(mut notes) = NoteIterator::<FileHeader64<LE>>::new(LE, 4, notes) else { continue };
        while let Ok(Some(note)) = notes.next() {
            match note.n_type(LE) {
                elf::NT_PRSTATUS if note.name() == b"CORE" => {
                    if threads.len() == MAX {
                        return threads;
                    }
                    threads.extend(state(head.machine, note.desc()));
                }
                // The notes of a thread follow its first.
                kind if kind.0 == ARM_TLS && head.machine == Machine::Aarch64 => {
                    if let (Some(thread), Some(tls)) = (threads.last_mut(), u64_at(note.desc(), 0))
                    {
                        thread.tls = tls;
                    }
                }
                _ => {}
            }
        }
    }
    threads
}

fn state(machine: Machine, status: &[u8]) -> Option<ThreadRegisters> {
    let register = |i: usize| u64_at(status, GENERAL + 8 * i);
    // struct user_regs_struct: r15, r14, ... fs_base; struct user_pt_regs: x0 to x30, sp, pc.
    let (pc, sp, tls, go, general) = match machine {
        Machine::X86_64 => (16, 19, Some(21), 1, 0..15),
        Machine::Aarch64 => (32, 31, None, 28, 0..31),
    };
    Some(ThreadRegisters {
        pc: register(pc)?,
        sp: register(sp)?,
        tls: tls.map_or(Some(0), register)?,
        go: register(go)?,
        general: general.filter_map(register).collect(),
    })
}
