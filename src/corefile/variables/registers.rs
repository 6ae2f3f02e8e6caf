//! The registers of a frame, by their DWARF numbers: those of the thread for the innermost frame,
//! and for its callers those that functions must leave as they were.

use crate::corefile::notes::{Registers, ThreadState};
use crate::corefile::segments::Machine;
use std::collections::{BTreeMap, BTreeSet};

/// The registers of one frame, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameRegisters {
    known: BTreeMap<u16, u64>,
    /// Those of 16 bytes.
    wide: BTreeMap<u16, [u8; 16]>,
    /// Those that a called function may have changed.
    doubtful: BTreeSet<u16>,
}

/// Where DWARF numbers differ from the order in which the kernel saves registers: struct
/// user_regs_struct, by DWARF number.
const X86_64: [usize; 17] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];
/// DWARF numbers in the order of struct sigcontext.
const SIGCONTEXT: [u16; 17] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16];

/// The DWARF numbers that unwinding needs.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub sp: u16,
    pub fp: u16,
    /// The return address.
    pub ra: u16,
    /// Those that a function leaves as they were.
    pub saved: &'static [u16],
}

/// The DWARF numbers of an architecture.
pub(super) fn numbers(machine: Machine) -> Numbers {
    match machine {
        Machine::X86_64 => Numbers { sp: 7, fp: 6, ra: 16, saved: &[3, 6, 12, 13, 14, 15] },
        Machine::Aarch64 => {
            Numbers { sp: 31, fp: 29, ra: 30, saved: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29] }
        }
    }
}

impl FrameRegisters {
    /// Those of a thread.
    pub(super) fn of_thread(machine: Machine, state: &ThreadState) -> Self {
        let general = |i: usize| state.general.get(i).copied();
        let wide = |at: usize| state.floating.get(at..)?.first_chunk::<16>().copied();
        let (known, wide): (BTreeMap<_, _>, BTreeMap<_, _>) = match machine {
            Machine::X86_64 => (
                (0..).zip(X86_64).filter_map(|(n, i)| Some((n, general(i)?))).collect(),
                // struct user_i387_struct: xmm_space at 160.
                (0..16u16).filter_map(|n| Some((17 + n, wide(160 + 16 * n as usize)?))).collect(),
            ),
            Machine::Aarch64 => (
                (0..32u16).filter_map(|n| Some((n, general(n.into())?))).collect(),
                // struct user_fpsimd_state: vregs first.
                (0..32u16).filter_map(|n| Some((64 + n, wide(16 * n as usize)?))).collect(),
            ),
        };
        FrameRegisters { known, wide, ..FrameRegisters::default() }
    }

    /// Those that a simpler unwinder knows.
    pub(super) fn few(machine: Machine, r: Registers) -> Self {
        let n = numbers(machine);
        let mut known = BTreeMap::from([(n.sp, r.sp), (n.fp, r.fp)]);
        if machine == Machine::X86_64 {
            known.insert(n.ra, r.pc);
        }
        FrameRegisters { known, ..FrameRegisters::default() }
    }

    /// Those that the kernel saved before it called a signal handler; `word` reads memory from the
    /// stack pointer on.
    pub(super) fn interrupted(machine: Machine, word: impl Fn(u64) -> Option<u64>) -> Self {
        let known = match machine {
            Machine::X86_64 => {
                (0..).zip(SIGCONTEXT).filter_map(|(i, n)| Some((n, word(40 + 8 * i)?))).collect()
            }
            Machine::Aarch64 => (0..32u16)
                .filter_map(|n| Some((n, word(128 + 176 + 8 + 8 * u64::from(n))?)))
                .collect(),
        };
        FrameRegisters { known, ..FrameRegisters::default() }
    }

    /// All of them, as far as they can be those of the caller.
    pub(super) fn before_call(&self) -> Self {
        let doubtful = self.known.keys().chain(self.wide.keys()).copied().collect();
        FrameRegisters { doubtful, ..self.clone() }
    }

    /// Without those that a called function may have changed.
    pub(super) fn certain(&self) -> Self {
        let mut certain = self.clone();
        certain.known.retain(|n, _| !self.doubtful.contains(n));
        certain.wide.retain(|n, _| !self.doubtful.contains(n));
        certain
    }

    /// A register of at most 8 bytes.
    pub(super) fn word(&self, number: u16) -> Option<u64> {
        self.known.get(&number).copied()
    }

    /// The bytes of a register.
    pub(super) fn bytes(&self, number: u16) -> Option<Vec<u8>> {
        let wide = || self.wide.get(&number).map(|b| b.to_vec());
        self.word(number).map(|n| n.to_le_bytes().to_vec()).or_else(wide)
    }

    /// Sets a register.
    pub(super) fn set(&mut self, number: u16, value: u64) {
        self.known.insert(number, value);
        self.doubtful.remove(&number);
    }

    /// Sets a register that is not known.
    pub(super) fn forget(&mut self, number: u16) {
        self.known.remove(&number);
    }
}
