//! The registers of the callers of a frame, by the unwind tables. Only pc, sp and fp come from the
//! unwinder of the stack; variables are also in the registers that a called function has saved.

use super::location::{self, FrameContext};
use super::registers::{FrameRegisters, Numbers, numbers};
use crate::corefile::binary::{Binary, Tables};
use crate::corefile::entries::Slice;
use crate::corefile::modules::LoadedModule;
use crate::corefile::names::RawFrame;
use crate::corefile::notes::ThreadState;
use crate::corefile::process_memory::DumpedMemory;
use crate::corefile::segments::Machine;
use addr2line::gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, Encoding, Expression, Format, LittleEndian,
    Register, RegisterRule, UnwindContext, UnwindSection,
};

/// How the expressions of unwind tables are encoded.
const ENCODING: Encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };

/// The registers of a frame, and its canonical frame address if that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerState {
    pub registers: FrameRegisters,
    pub cfa: Option<u64>,
}

/// Follows the frames of one stack.
pub(super) struct Callers<'c> {
    pub machine: Machine,
    pub process: DumpedMemory<'c>,
    pub modules: &'c [LoadedModule],
    pub binaries: &'c [Binary<'c>],
}

impl Callers<'_> {
    /// The state of the first `most` frames of a thread.
    pub(super) fn states(
        &self,
        thread: &ThreadState,
        raw: &[RawFrame],
        most: usize,
    ) -> Vec<CallerState> {
        let mut registers = FrameRegisters::of_thread(self.machine, thread);
        let mut all = Vec::new();
        for (i, frame) in raw.iter().enumerate().take(most) {
            let next = raw.get(i + 1);
            let stepped = self.step(frame, &registers);
            // What the stack pointer was before the call, on both machines.
            let cfa = match &stepped {
                Some((_, cfa)) => *cfa,
                None => next.filter(|_| !frame.trampoline).map(|n| n.registers.sp),
            };
            all.push(CallerState { registers, cfa });
            let Some(next) = next else { break };
            let sp = numbers(self.machine).sp;
            let agrees = |r: &FrameRegisters| r.word(sp) == Some(next.registers.sp);
            registers = stepped
                .map(|(registers, _)| registers)
                .filter(agrees)
                .unwrap_or_else(|| FrameRegisters::few(self.machine, next.registers));
        }
        all
    }

    /// The registers of the caller, and the canonical frame address.
    fn step(
        &self,
        frame: &RawFrame,
        now: &FrameRegisters,
    ) -> Option<(FrameRegisters, Option<u64>)> {
        let n = numbers(self.machine);
        if frame.trampoline {
            let sp = now.word(n.sp)?;
            let word = |offset: u64| self.process.word(sp.checked_add(offset)?);
            return Some((FrameRegisters::interrupted(self.machine, word), None));
        }
        let i = frame.module?;
        let (tables, bias) = (self.binaries[i].tables()?, self.modules[i].bias);
        let address = frame.lookup.wrapping_sub(bias);
        let step = Step { now, process: self.process, n, bias };
        let bases = bases(&tables);
        let by_table = tables
            .table
            .as_ref()
            .and_then(|(_, data)| step.by(&EhFrame::new(data, LittleEndian), &bases, address));
        let (caller, cfa) = by_table
            .or_else(|| step.by(&DebugFrame::new(tables.debug?, LittleEndian), &bases, address))?;
        Some((caller, Some(cfa)))
    }
}

fn bases(tables: &Tables<'_>) -> BaseAddresses {
    let mut bases = BaseAddresses::default();
    if let Some((range, _)) = &tables.table {
        bases = bases.set_eh_frame(range.start);
    }
    if let Some((range, _)) = &tables.index {
        bases = bases.set_eh_frame_hdr(range.start);
    }
    if let Some((range, _)) = &tables.text {
        bases = bases.set_text(range.start);
    }
    if let Some(range) = &tables.got {
        bases = bases.set_got(range.start);
    }
    bases
}

/// One step to a caller.
struct Step<'s, 'b> {
    now: &'s FrameRegisters,
    process: DumpedMemory<'b>,
    n: Numbers,
    bias: u64,
}

impl Step<'_, '_> {
    fn by<'d, S>(
        &self,
        section: &S,
        bases: &BaseAddresses,
        address: u64,
    ) -> Option<(FrameRegisters, u64)>
    where
        S: UnwindSection<Slice<'d>>,
    {
        let mut context = UnwindContext::new();
        let fde = section.fde_for_address(bases, address, S::cie_from_offset).ok()?;
        let return_address = fde.cie().return_address_register();
        let row = fde.unwind_info_for_address(section, bases, &mut context, address).ok()?;
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.now.word(register.0)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(e) => self.value(e.get(section).ok()?, None)?,
        };
        let mut caller = self.now.before_call();
        caller.set(self.n.sp, cfa);
        let rule = |register: u16| row.register(Register(register));
        let value = |register: u16, rule: RegisterRule<usize>| match rule {
            RegisterRule::SameValue => self.now.word(register),
            RegisterRule::Offset(offset) => self.process.word(cfa.wrapping_add_signed(offset)),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset)),
            RegisterRule::Register(other) => self.now.word(other.0),
            RegisterRule::Expression(e) => {
                self.process.word(self.value(e.get(section).ok()?, Some(cfa))?)
            }
            RegisterRule::ValExpression(e) => self.value(e.get(section).ok()?, Some(cfa)),
            RegisterRule::Constant(n) => Some(n),
            _ => None,
        };
        for register in 0..32 {
            // Without a rule, the ABI says which registers a function saves.
            let is_saved = self.n.saved.contains(&register);
            let found = match rule(register) {
                _ if register == self.n.sp => continue,
                None if is_saved => self.now.word(register),
                None if register == return_address.0 && register == self.n.ra => {
                    self.now.word(register)
                }
                // gcc knows what the functions of one file leave alone besides.
                None => continue,
                Some(rule) => value(register, rule),
            };
            match found {
                Some(found) => caller.set(register, found),
                None => caller.forget(register),
            }
        }
        Some((caller, cfa))
    }

    fn value<'d>(&self, expression: Expression<Slice<'d>>, initial: Option<u64>) -> Option<u64> {
        let frame = FrameContext {
            registers: self.now,
            process: self.process,
            cfa: initial,
            base: None,
            bias: self.bias,
        };
        location::address(expression, ENCODING, &frame, initial)
    }
}
