//! Unwinds stacks with framehop, and handles what framehop leaves to its caller: signal frames,
//! jumps to addresses without code, and the end of the stack.

use super::binary::Binary;
use super::image::CoreImage;
use super::modules::LoadedModule;
use super::names::RawFrame;
use super::notes::{Registers, Thread};
use super::segments::Machine;
use framehop::aarch64::{CacheAarch64, PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder};

/// Most frames of one stack that are shown.
const MAX_FRAMES: usize = 512;

/// An unwound stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unwound {
    /// Its frames, the innermost first.
    pub frames: Vec<RawFrame>,
    /// Why the stack may go on after the last frame.
    pub cut: Option<String>,
}

enum Unwinders<'b> {
    X86_64(UnwinderX86_64<&'b [u8]>, CacheX86_64),
    Aarch64(UnwinderAarch64<&'b [u8]>, CacheAarch64),
}

/// Unwinds the stacks of one core.
pub(super) struct StackUnwinder<'b> {
    image: &'b CoreImage<'b>,
    modules: &'b [LoadedModule],
    binaries: &'b [Binary<'b>],
    unwinders: Unwinders<'b>,
}

impl<'b> StackUnwinder<'b> {
    /// Loads the unwind tables of all modules whose file is known.
    pub(super) fn new(
        image: &'b CoreImage<'b>,
        modules: &'b [LoadedModule],
        binaries: &'b [Binary<'b>],
    ) -> Self {
        let unwinders = match image.machine {
            Machine::X86_64 => {
                let mut unwinder = UnwinderX86_64::new();
                modules
                    .iter()
                    .zip(binaries)
                    .filter_map(|(m, b)| tables(m, b))
                    .for_each(|m| unwinder.add_module(m));
                Unwinders::X86_64(unwinder, CacheX86_64::new())
            }
            Machine::Aarch64 => {
                let mut unwinder = UnwinderAarch64::new();
                modules
                    .iter()
                    .zip(binaries)
                    .filter_map(|(m, b)| tables(m, b))
                    .for_each(|m| unwinder.add_module(m));
                Unwinders::Aarch64(unwinder, CacheAarch64::new())
            }
        };
        StackUnwinder { image, modules, binaries, unwinders }
    }

    /// Unwinds the stack of one thread.
    pub(super) fn unwind(&mut self, thread: &Thread) -> Unwound {
        self.unwind_from(thread.registers, true)
    }

    /// Unwinds the stack of a goroutine, which goes on after the call by which it gave way, or has
    /// not begun.
    pub(super) fn unwind_goroutine(&mut self, registers: Registers) -> Unwound {
        let symbol = |address: u64| {
            let i = self.module(address)?;
            let address = address.wrapping_sub(self.modules[i].bias);
            self.binaries[i].go.as_ref()?.symbol(address)
        };
        let is_start = symbol(registers.pc) != symbol(registers.pc.wrapping_sub(1));
        self.unwind_from(registers, is_start)
    }

    /// `exact` says whether `now.pc` is where the thread was, and not a return address.
    fn unwind_from(&mut self, mut now: Registers, mut exact: bool) -> Unwound {
        let mut unwound = Unwound::default();
        loop {
            let lookup = if exact { now.pc } else { now.pc.wrapping_sub(1) };
            let module = self.module(lookup);
            let trampoline = self.is_trampoline(now.pc, module);
            unwound.frames.push(RawFrame {
                address: now.pc,
                lookup,
                module,
                trampoline,
                registers: now,
            });
            if unwound.frames.len() == MAX_FRAMES {
                unwound.cut = Some(format!("more than {MAX_FRAMES} functions"));
                return unwound;
            }
            let next = if trampoline {
                self.interrupted_registers(now.sp)
                    .ok_or_else(|| "the interrupted registers are not in the core".to_owned())
            } else if exact && !self.is_code(now.pc) {
                // A call to an address without code: the caller is the one that
                // pushed the return address.
                self.caller_without_code(now)
                    .ok_or_else(|| "there is no code here, and no return address".to_owned())
            } else {
                let go = module.and_then(|i| self.go_step(now, lookup, i));
                match go.map_or_else(|| self.step(now, exact), Ok) {
                    Ok(None) => {
                        // Without tables this means that the register did not hold a frame pointer.
                        unwound.cut = self.missing_file(module);
                        return unwound;
                    }
                    Ok(Some(next)) => Ok(next),
                    Err(e) => Err(self.explain(e, module)),
                }
            };
            let next = match next {
                Ok(next) if next.pc == 0 => return unwound,
                Ok(next) if next.pc == now.pc && next.sp == now.sp => return unwound,
                Ok(next) if !trampoline && !self.is_code(next.pc) => {
                    unwound.cut =
                        Some(self.explain(
                            format!("the return address {:#x} is not code", next.pc),
                            module,
                        ));
                    return unwound;
                }
                Ok(next) => next,
                Err(cut) => {
                    unwound.cut = Some(cut);
                    return unwound;
                }
            };
            exact = trampoline
                || module.is_some_and(|i| {
                    self.binaries[i].is_injected(lookup.wrapping_sub(self.modules[i].bias))
                });
            now = next;
        }
    }

    /// Adds to the reason that a module's file is missing. Without it only frame pointers can be
    /// followed, which most code does not have.
    fn explain(&self, why: String, module: Option<usize>) -> String {
        self.missing_file(module).map_or_else(|| why.clone(), |missing| format!("{why}; {missing}"))
    }

    fn missing_file(&self, module: Option<usize>) -> Option<String> {
        let i = module.filter(|i| self.binaries[*i].tables().is_none())?;
        Some(format!(
            "the file {:?}, which has the unwind tables, was not found",
            self.modules[i].module.path
        ))
    }

    fn module(&self, address: u64) -> Option<usize> {
        self.modules.iter().position(|m| (m.module.start..m.module.end).contains(&address))
    }

    fn is_code(&self, address: u64) -> bool {
        self.image.is_code(address) || self.module(address).is_some()
    }

    fn step(&mut self, now: Registers, exact: bool) -> Result<Option<Registers>, String> {
        let address = match (exact, FrameAddress::from_return_address(now.pc)) {
            (false, Some(a)) => a,
            _ => FrameAddress::from_instruction_pointer(now.pc),
        };
        let memory = &self.image.memory;
        let mut read = |a: u64| memory.word(a).ok_or(());
        match &mut self.unwinders {
            Unwinders::X86_64(unwinder, cache) => {
                let mut r = UnwindRegsX86_64::new(now.pc, now.sp, now.fp);
                let pc = unwinder
                    .unwind_frame(address, &mut r, cache, &mut read)
                    .map_err(|e| e.to_string())?;
                Ok(pc.map(|pc| Registers { pc, sp: r.sp(), fp: r.bp(), lr: 0 }))
            }
            Unwinders::Aarch64(unwinder, cache) => {
                // Where the core does not say which bits may be a pointer authentication code:
                // those above the 48 of an address.
                let code = self.image.notes.authentication.unwrap_or(!0 << 48);
                let mask = PtrAuthMask(!code & ((1 << 55) - 1));
                let mut r = UnwindRegsAarch64::new_with_ptr_auth_mask(mask, now.lr, now.sp, now.fp);
                let pc = unwinder
                    .unwind_frame(address, &mut r, cache, &mut read)
                    .map_err(|e| e.to_string())?;
                Ok(pc.map(|pc| Registers { pc, sp: r.sp(), fp: r.fp(), lr: r.lr() }))
            }
        }
    }

    /// The caller by Go's own table, in a program without other tables; `None` if it does not know,
    /// `Some(None)` at the end of the stack.
    fn go_step(&self, now: Registers, lookup: u64, module: usize) -> Option<Option<Registers>> {
        let binary = &self.binaries[module];
        let go =
            binary.go.as_ref().filter(|_| binary.tables().is_none_or(|t| t.debug.is_none()))?;
        let Some(size) = go.frame_size(lookup.wrapping_sub(self.modules[module].bias))? else {
            return Some(None);
        };
        let memory = &self.image.memory;
        let end = now.sp.checked_add(size)?;
        // A function that has a frame saves the frame pointer below its return address.
        let fp = |at: u64| if size == 0 { Some(now.fp) } else { memory.word(at) };
        Some(Some(match self.image.machine {
            Machine::X86_64 => Registers {
                pc: memory.word(end)?,
                sp: end.checked_add(8)?,
                fp: fp(end.wrapping_sub(8))?,
                lr: 0,
            },
            Machine::Aarch64 => Registers {
                pc: if size == 0 { now.lr } else { memory.word(now.sp)? },
                sp: end,
                fp: fp(now.sp.wrapping_sub(8))?,
                lr: 0,
            },
        }))
    }

    fn caller_without_code(&self, now: Registers) -> Option<Registers> {
        match self.image.machine {
            Machine::X86_64 => Some(Registers {
                pc: self.image.memory.word(now.sp)?,
                sp: now.sp.checked_add(8)?,
                ..now
            }),
            Machine::Aarch64 => Some(Registers { pc: now.lr, ..now }),
        }
    }

    /// Whether `pc` is at `rt_sigreturn`, in the C library or the vDSO, with or without tables. Its
    /// instructions are part of the ABI, and gdb recognises it by them too.
    fn is_trampoline(&self, pc: u64, module: Option<usize>) -> bool {
        let code: &[&[u8]] = match self.image.machine {
            // mov $15, %rax (or %eax); syscall
            Machine::X86_64 => &[
                &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
                &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
            ],
            // mov x8, #139; svc #0
            Machine::Aarch64 => &[&[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4]],
        };
        code.iter().any(|c| {
            let mut there = vec![0; c.len()];
            let in_core = self.image.memory.read(pc, &mut there).is_some() && there == *c;
            in_core
                || module.is_some_and(|i| {
                    self.binaries[i].code(pc.wrapping_sub(self.modules[i].bias), c.len() as u64)
                        == Some(*c)
                })
        })
    }

    /// The registers that the kernel saved when it called a signal handler: `struct rt_sigframe`,
    /// read from the stack pointer after the handler's return.
    fn interrupted_registers(&self, sp: u64) -> Option<Registers> {
        let word = |offset: u64| self.image.memory.word(sp.checked_add(offset)?);
        match self.image.machine {
            // ucontext: flags, link, stack (40 bytes), then r8 to r15, rdi, rsi, rbp,
            // rbx, rdx, rax, rcx, rsp, rip.
            Machine::X86_64 => Some(Registers {
                pc: word(40 + 8 * 16)?,
                sp: word(40 + 8 * 15)?,
                fp: word(40 + 8 * 10)?,
                lr: 0,
            }),
            // siginfo (128 bytes), ucontext to its mcontext (176), fault
            // address, x0 to x30, sp, pc.
            Machine::Aarch64 => {
                let register = |i: u64| word(128 + 176 + 8 + 8 * i);
                Some(Registers {
                    pc: register(32)?,
                    sp: register(31)?,
                    fp: register(29)?,
                    lr: register(30)?,
                })
            }
        }
    }
}

fn tables<'b>(module: &LoadedModule, binary: &'b Binary<'b>) -> Option<framehop::Module<&'b [u8]>> {
    let t = binary.tables()?;
    let table = t.table.as_ref().map(|(range, _)| range.start);
    let index = t.index.filter(|(range, bytes)| is_index(bytes, range.start, table));
    let info = ExplicitModuleSectionInfo {
        text_svma: t.text.as_ref().map(|(r, _)| r.clone()),
        text: t.text.map(|(_, d)| d),
        got_svma: t.got,
        eh_frame_svma: t.table.as_ref().map(|(r, _)| r.clone()),
        eh_frame: t.table.map(|(_, d)| d),
        eh_frame_hdr_svma: index.as_ref().map(|(r, _)| r.clone()),
        eh_frame_hdr: index.map(|(_, d)| d),
        debug_frame: t.debug,
        ..ExplicitModuleSectionInfo::default()
    };
    Some(framehop::Module::new(
        module.module.path.clone(),
        module.module.start..module.module.end,
        module.bias,
        info,
    ))
}

/// Whether an index (`.eh_frame_hdr`) at an address is as all linkers make it, and of this table.
/// Where it is not, framehop makes one from the table: a damaged one would lead it anywhere.
fn is_index(bytes: &[u8], address: u64, table: Option<u64>) -> bool {
    const HEAD: usize = 12;
    /// Version, then how three things are written: where the table is, from here; how many entries
    /// there are; the entries, from the beginning of the index.
    const KIND: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
    let word = |at: usize| Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (Some(to_table), Some(count)) = (word(4), word(8)) else { return false };
    let entries = u32::from_ne_bytes(count.to_ne_bytes()) as usize;
    bytes.starts_with(&KIND)
        && Some(address.wrapping_add(4).wrapping_add_signed(to_table.into())) == table
        && entries <= (bytes.len() - HEAD) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_used_only_if_it_is_of_the_table() {
        let mut index = vec![1, 0x1b, 3, 0x3b, 0x3c, 0, 0, 0, 2, 0, 0, 0];
        index.extend([0; 16]);
        let is_good = |bytes: &[u8]| is_index(bytes, 0x2000, Some(0x2040));
        assert!(is_good(&index));
        assert!(!is_index(&index, 0x2000, Some(0x2044)) && !is_index(&index, 0x2000, None));
        assert!(!is_good(&index[..27]) && !is_good(&index[..8]));
        for (at, byte) in [(0, 2), (1, 0x1a), (2, 0), (3, 0x33), (7, 0x7f), (8, 3), (11, 0xff)] {
            let mut damaged = index.clone();
            damaged[at] = byte;
            assert!(!is_good(&damaged), "{at}");
        }
    }
}
