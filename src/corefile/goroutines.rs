//! The goroutines of a Go program that wait: which ones, for what, and where.
//!
//! `runtime.allgs` has all of them. It is found without symbols, by what it points to. The layout
//! of `g` and `gobuf` is that of `runtime/runtime2.go`, which differs between versions.

use super::binary::Binary;
use super::modules::LoadedModule;
use super::notes::Registers;
use super::process_memory::DumpedMemory;

/// Most goroutines that are looked at, and most that are shown.
const LOOKED_AT: u64 = 1 << 20;
pub(super) const SHOWN: usize = 256;
/// Most bytes of a section that are searched.
const SEARCHED: usize = 64 << 20;
/// How many of its goroutines must be right for `allgs` to be taken for it.
const CHECKED: u64 = 16;

/// A goroutine that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goroutine {
    /// Its number.
    pub id: u64,
    /// Its state in the runtime's words: what it waits for.
    pub state: String,
    /// Where it goes on.
    pub registers: Registers,
}

/// The goroutines of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Goroutines {
    /// Those that are shown, in the order of their numbers.
    pub shown: Vec<Goroutine>,
    /// How many there are besides.
    pub more: usize,
}

/// Offsets in `g`, in bytes.
struct Layout {
    syscall_sp: u64,
    syscall_pc: u64,
    status: u64,
    id: u64,
    reason: u64,
    /// Of the frame pointer in `sched`.
    fp: u64,
}

/// `sched` in `g`; in `gobuf` sp is first, then pc and `g` itself.
const SCHED: u64 = 56;

fn layout(minor: u32) -> Option<Layout> {
    let of = |syscall_sp, status, fp| Layout {
        syscall_sp,
        syscall_pc: syscall_sp + 8,
        status,
        id: status + 8,
        reason: status + 32,
        fp,
    };
    match minor {
        19..=22 => Some(of(112, 144, 48)),
        23..=24 => Some(of(112, 152, 48)),
        25..=27 => Some(of(104, 144, 40)),
        _ => None,
    }
}

/// States of a goroutine (`_Grunnable`, ...); the bit of the garbage collector left out.
const SCAN: u32 = 0x1000;
const STATES: [(u32, &str); 5] =
    [(1, "runnable"), (3, "syscall"), (4, "waiting"), (8, "copystack"), (9, "preempted")];

/// A program's memory and the addresses of its sections.
struct Program<'p> {
    process: DumpedMemory<'p>,
    binary: &'p Binary<'p>,
    bias: u64,
}

/// The goroutines of a Go program of a known version; `None` for others.
pub(super) fn of<'b>(
    process: DumpedMemory<'b>,
    modules: &[LoadedModule],
    binaries: &'b [Binary<'b>],
) -> Option<Goroutines> {
    let i = binaries.iter().position(|b| b.go.is_some())?;
    let program = Program { process, binary: &binaries[i], bias: modules[i].bias };
    let layout = layout(minor(&program.binary.go_version()?)?)?;
    let (array, count) = program.all(&layout)?;
    let reasons = program.reasons();
    let mut all = Vec::new();
    let mut more = 0;
    for i in 0..count.min(LOOKED_AT) {
        let Some(g) = process.word(array.checked_add(8 * i)?) else { break };
        let Some(found) = program.goroutine(&layout, g, reasons) else { continue };
        if all.len() < SHOWN { all.push(found) } else { more += 1 }
    }
    all.sort_by_key(|g| g.id);
    Some(Goroutines { shown: all, more })
}

/// 22 of `go1.22.10`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

impl Program<'_> {
    fn word(&self, base: u64, offset: u64) -> Option<u64> {
        self.process.word(base.checked_add(offset)?)
    }

    /// The words of sections, with their addresses.
    fn search<T>(&self, names: &[&str], is: impl Fn(u64, &[u64]) -> Option<T>) -> Option<T> {
        for name in names {
            let Some((start, size)) = self.binary.section_at(name) else { continue };
            let start = start.wrapping_add(self.bias);
            let size = usize::try_from(size).unwrap_or(SEARCHED).min(SEARCHED);
            let bytes = self.process.up_to(start, size).unwrap_or_default();
            let (words, _) = bytes.as_chunks::<8>();
            let words: Vec<u64> = words.iter().map(|b| u64::from_le_bytes(*b)).collect();
            let found = words.windows(3).zip(0u64..).find_map(|(w, i)| is(start + 8 * i, w));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Address and length of what `runtime.allgs` points to: a slice of pointers to goroutines, of
    /// which the first is that of `main`.
    fn all(&self, layout: &Layout) -> Option<(u64, u64)> {
        let is_g = |g: u64| {
            let itself = self.word(g, SCHED + 16)?;
            let stack = self.word(g, 0)?..self.word(g, 8)?;
            (g.is_multiple_of(8) && itself == g && !stack.is_empty()).then_some(())
        };
        self.search(&[".noptrbss", ".bss", ".noptrdata", ".data"], |_, words| {
            let [array, count, capacity] = *words else { return None };
            let is_slice = array % 8 == 0 && array > 4096 && 0 < count && count <= capacity;
            (is_slice && capacity < 1 << 32).then_some(())?;
            (self.word(self.process.word(array)?, layout.id)? == 1).then_some(())?;
            for i in 0..count.min(CHECKED) {
                is_g(self.word(array, 8 * i)?)?;
            }
            Some((array, count))
        })
    }

    /// Address of the texts for what a goroutine waits for: strings, the second of which is known.
    fn reasons(&self) -> Option<u64> {
        const SECOND: &[u8] = b"GC assist marking";
        self.search(&[".data", ".noptrdata", ".data.rel.ro", ".rodata"], |at, words| {
            let [before, start, length] = *words else { return None };
            (before == 0 && length == SECOND.len() as u64).then_some(())?;
            let mut text = [0; SECOND.len()];
            self.process.read(start, &mut text)?;
            // The first one is empty: an address that is nothing, and a length of 0.
            (text == SECOND).then_some(at.wrapping_sub(8))
        })
    }

    /// A goroutine that neither runs nor has ended.
    fn goroutine(&self, layout: &Layout, g: u64, reasons: Option<u64>) -> Option<Goroutine> {
        let status = self.word(g, layout.status)? as u32 & !SCAN;
        let (_, state) = STATES.iter().find(|(value, _)| *value == status)?;
        let id = self.word(g, layout.id)?;
        let reason = || {
            let number = self.word(g, layout.reason)? & 0xff;
            let at = reasons?.checked_add(16 * number)?;
            let (start, length) = (self.process.word(at)?, self.word(at, 8)?);
            let mut text = vec![0; usize::try_from(length).ok().filter(|n| *n < 64)?];
            self.process.read(start, &mut text)?;
            String::from_utf8(text).ok().filter(|text| !text.is_empty())
        };
        let state = match status {
            4 => reason().unwrap_or_else(|| (*state).to_owned()),
            _ => (*state).to_owned(),
        };
        let sched = |offset: u64| self.word(g, SCHED + offset);
        let mut registers =
            Registers { sp: sched(0)?, pc: sched(8)?, fp: sched(layout.fp)?, lr: 0 };
        if status == 3
            && let (Some(sp), Some(pc)) =
                (self.word(g, layout.syscall_sp), self.word(g, layout.syscall_pc))
            && sp != 0
        {
            (registers.sp, registers.pc) = (sp, pc);
        }
        Some(Goroutine { id, state, registers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (version, expected) in [
            ("go1.22.10", Some(22)),
            ("go1.27", Some(27)),
            ("go1.25rc1", Some(25)),
            ("devel", None),
        ] {
            assert_eq!(minor(version), expected, "{version}");
        }
        assert!(layout(18).is_none() && layout(28).is_none());
    }
}
