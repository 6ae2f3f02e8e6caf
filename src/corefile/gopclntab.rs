//! Go's own table of functions, files and lines, which stripped programs have too: it is what the
//! runtime unwinds stacks with. Go 1.18 and later.
//!
//! The format is that of the Go linker: `runtime/symtab.go` (`pcHeader`, `moduledata`, `_func`) and
//! `runtime/symtabinl.go` (`inlinedCall`).

use super::file::Elf;
use super::lines::SourceFrame;
use super::memory::Memory;
use object::{Object, ObjectSection};

/// The table of one program.
#[derive(Clone, Copy)]
pub(super) struct GoTable<'d> {
    /// Address in the file's image that the offsets of functions are relative to.
    text: u64,
    /// Length of an instruction, or what its length is a multiple of.
    quantum: u64,
    count: usize,
    names: &'d [u8],
    units: &'d [u8],
    files: &'d [u8],
    /// The tables that give a value for each range of addresses in a function.
    values: &'d [u8],
    functions: &'d [u8],
    /// The data of functions, of which the trees of inlined calls are a part.
    data: Option<&'d [u8]>,
    layout: Layout,
}

/// What differs between versions: 1.18 and 1.19 have no line of the function's start, and longer
/// entries in the trees of inlined calls.
#[derive(Clone, Copy)]
struct Layout {
    /// Size of `_func` before its variable part.
    function: usize,
    /// Size of `inlinedCall`, and where in it name and parent are.
    call: usize,
    call_name: usize,
    call_parent: usize,
}

const GO_1_18: Layout = Layout { function: 40, call: 20, call_name: 12, call_parent: 16 };
const GO_1_20: Layout = Layout { function: 44, call: 16, call_name: 4, call_parent: 8 };

/// `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree`.
const INLINED: usize = 2;
const INLINED_CALLS: usize = 3;
/// The function is the outermost of its stack (`abi.FuncFlagTopFrame`).
const TOP: u8 = 1;
/// Longest name of a function or file, in bytes.
const LONGEST: usize = 4096;
/// Most inlined functions of one frame.
const DEPTH: usize = 64;
/// Most bytes of a section that `moduledata` is searched in.
const SEARCHED: usize = 64 << 20;

#[derive(Clone, Copy)]
struct Function<'d> {
    entry: u64,
    fields: &'d [u8],
}

impl<'d> Function<'d> {
    fn field(&self, i: usize) -> Option<u32> {
        u32_at(self.fields, 4 * i)
    }
}

impl<'d> GoTable<'d> {
    /// Finds the table of a program, and where the program was in the core's memory with
    /// `moduledata`, which says what the table leaves out.
    pub(super) fn of(file: &Elf<'d>, memory: &Memory<'_>, bias: u64) -> Option<Self> {
        // The second is that of position-independent programs before Go 1.26.
        let section = [".gopclntab", ".data.rel.ro.gopclntab"];
        let section = section.iter().find_map(|name| file.section_by_name(name))?;
        let table = section.data().ok()?;
        let layout = match u32_at(table, 0)? {
            0xffff_fff0 => GO_1_18,
            0xffff_fff1 => GO_1_20,
            _ => return None,
        };
        if *table.get(7)? != 8 {
            return None;
        }
        let part = |i: usize| table.get(usize::try_from(u64_at(table, 8 + 8 * i)?).ok()?..);
        let module = ModuleData::find(file, memory, bias, section.address());
        let text = match (&module, u64_at(table, 24)?) {
            (Some(module), _) => module.text,
            (None, 0) => file.section_by_name(".text")?.address(),
            (None, text) => text,
        };
        let functions = part(7)?;
        let count = usize::try_from(u64_at(table, 8)?).ok()?.min(functions.len() / 8);
        Some(GoTable {
            text,
            quantum: u64::from(*table.get(6)?).max(1),
            count,
            names: part(3)?,
            units: part(4)?,
            files: part(5)?,
            values: part(6)?,
            functions,
            data: module.and_then(|module| image_from(file, module.data)),
            layout,
        })
    }

    fn function(&self, address: u64) -> Option<Function<'d>> {
        let offset = address.checked_sub(self.text)?;
        let row =
            |i: usize| Some((u32_at(self.functions, 8 * i)?, u32_at(self.functions, 8 * i + 4)?));
        // The last row is the end of the last function. Rows are sorted.
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if u64::from(row(middle)?.0) <= offset { low = middle + 1 } else { high = middle }
        }
        if low == self.count && offset >= u64::from(row(low)?.0) {
            return None;
        }
        let (entry, at) = row(low.checked_sub(1)?)?;
        let fields = self.functions.get(at as usize..)?;
        Some(Function { entry: self.text.checked_add(entry.into())?, fields })
    }

    /// The value that a table has for an address; -1 for none.
    fn value(&self, function: &Function<'_>, table: u32, address: u64) -> Option<i64> {
        if table == 0 {
            return Some(-1);
        }
        let mut bytes = self.values.get(table as usize..)?.iter();
        let (mut at, mut value, mut is_first) = (function.entry, -1i64, true);
        loop {
            let change = varint(&mut bytes)?;
            if change == 0 && !is_first {
                return Some(-1);
            }
            is_first = false;
            // Zigzag: the lowest bit is the sign.
            value = value.wrapping_add(i64::from(change >> 1) ^ -i64::from(change & 1));
            at = at.checked_add(u64::from(varint(&mut bytes)?) * self.quantum)?;
            if address < at {
                return Some(value);
            }
        }
    }

    fn variable(&self, function: &Function<'_>, i: usize) -> Option<u32> {
        u32_at(function.fields, self.layout.function + 4 * i)
    }

    fn name(&self, offset: u32) -> Option<String> {
        text(self.names, offset)
    }

    fn place(&self, function: &Function<'_>, address: u64) -> Option<(String, u32)> {
        let value =
            |i: usize| u32::try_from(self.value(function, function.field(i)?, address)?).ok();
        let (file, line) = (value(5)?, value(6)?);
        let unit = function.field(8)?.checked_add(file)?;
        Some((text(self.files, u32_at(self.units, 4 * unit as usize)?)?, line))
    }

    /// The functions at an address, the innermost first.
    pub(super) fn frames(&self, address: u64) -> Vec<SourceFrame> {
        let mut frames = Vec::new();
        let Some(function) = self.function(address) else { return frames };
        let mut at = address;
        let mut known = true;
        while frames.len() < DEPTH {
            let calls = self.inlined(&function, at);
            let Some(call) = calls else { break };
            let Some((name, parent)) = self.call(&function, call) else {
                // The line is that of an inlined function whose name is not known.
                known = false;
                break;
            };
            frames.push(self.frame(&function, name, at));
            at = function.entry.wrapping_add(u64::from(parent));
        }
        let name = function.field(1).and_then(|name| self.name(name));
        frames.push(match known {
            true => self.frame(&function, name, at),
            false => SourceFrame { function: name, file: None, line: None },
        });
        frames
    }

    fn frame(&self, function: &Function<'_>, name: Option<String>, at: u64) -> SourceFrame {
        let (file, line) = self.place(function, at).unzip();
        SourceFrame { function: name, file, line }
    }

    /// The index of the inlined call at an address.
    fn inlined(&self, function: &Function<'_>, address: u64) -> Option<u32> {
        (function.field(7)? as usize > INLINED).then_some(())?;
        let table = self.variable(function, INLINED)?;
        u32::try_from(self.value(function, table, address)?).ok()
    }

    /// The name of an inlined function, and an address within the call, relative to the entry.
    fn call(&self, function: &Function<'_>, i: u32) -> Option<(Option<String>, u32)> {
        let count = function.field(7)? as usize;
        let data = *function.fields.get(self.layout.function - 1)?;
        (usize::from(data) > INLINED_CALLS).then_some(())?;
        let offset = self.variable(function, count.checked_add(INLINED_CALLS)?)?;
        let at = (offset as usize).checked_add((i as usize).checked_mul(self.layout.call)?)?;
        let call = self.data?.get(at..)?;
        let parent = u32_at(call, self.layout.call_parent)?;
        Some((self.name(u32_at(call, self.layout.call_name)?), parent))
    }

    /// The name of the function at an address, without inlined ones.
    pub(super) fn symbol(&self, address: u64) -> Option<String> {
        self.name(self.function(address)?.field(1)?)
    }

    /// How far the stack pointer is below the return address, in bytes; `None` where the table does
    /// not know, and `Some(None)` in the outermost function.
    pub(super) fn frame_size(&self, address: u64) -> Option<Option<u64>> {
        let function = self.function(address)?;
        if function.fields.get(self.layout.function - 3)? & TOP != 0 {
            return Some(None);
        }
        let size = self.value(&function, function.field(4)?, address)?;
        u64::try_from(size).ok().map(Some)
    }
}

/// What is needed of Go's `moduledata`.
struct ModuleData {
    /// Where the text starts, in the file's image.
    text: u64,
    /// Where the data of functions start (`go:func.*`).
    data: u64,
}

impl ModuleData {
    /// Searches for it in memory, where its pointers are relocated: its first field points to the
    /// table.
    fn find(file: &Elf<'_>, memory: &Memory<'_>, bias: u64, table: u64) -> Option<Self> {
        const SECTIONS: [&str; 4] = [".go.module", ".noptrdata", ".data", ".data.rel.ro"];
        let wanted = table.wrapping_add(bias).to_le_bytes();
        let end = file.sections().map(|s| s.address().saturating_add(s.size())).max()?;
        let inside = |word: u64| (1..end).contains(&word);
        for section in SECTIONS.iter().filter_map(|name| file.section_by_name(name)) {
            let size = usize::try_from(section.size()).unwrap_or(SEARCHED).min(SEARCHED);
            let bytes = memory.up_to(section.address().wrapping_add(bias), size);
            let (words, _) = bytes.as_chunks::<8>();
            let found = words.iter().enumerate().filter(|(_, word)| **word == wanted);
            for (i, _) in found {
                let word = |n: usize| {
                    let word = u64::from_le_bytes(*words.get(i + n)?).wrapping_sub(bias);
                    inside(word).then_some(word)
                };
                // `text` is the 23rd word. `gofunc` follows `rodata`, which comes after more fields
                // from version to version (1.20, 1.27, 1.18); what else is there are small numbers.
                let data = [40, 43, 38]
                    .into_iter()
                    .find_map(|n| word(n - 1).zip(word(n)).filter(|(before, data)| before <= data));
                if let (Some(text), Some((_, data))) = (word(22), data) {
                    return Some(ModuleData { text, data });
                }
            }
        }
        None
    }
}

/// The section of the file that has an address, from there on.
fn image_from<'d>(file: &Elf<'d>, address: u64) -> Option<&'d [u8]> {
    let mut sections = file.sections();
    let section = sections.find(|s| {
        s.address() > 0 && address.checked_sub(s.address()).is_some_and(|skip| skip < s.size())
    })?;
    section.data().ok()?.get(usize::try_from(address - section.address()).ok()?..)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn varint(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u32> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.next()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Text that ends with a NUL.
fn text(bytes: &[u8], at: u32) -> Option<String> {
    let rest = bytes.get(at as usize..)?;
    let rest = &rest[..rest.len().min(LONGEST)];
    let end = rest.iter().position(|b| *b == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_with_its_line() {
        let file = include_bytes!("../../fuzz/seeds/symbols/go");
        let (elf, core) = (Elf::parse(&file[..]).unwrap(), Vec::new());
        let go = GoTable::of(&elf, &Memory::new(&core, Vec::new()), 0).unwrap();
        let frames = go.frames(0x40_1010);
        let [f] = &frames[..] else { panic!("{} frames", frames.len()) };
        assert_eq!(
            (f.function.as_deref(), f.file.as_deref(), f.line),
            (Some("main.f"), Some("/src/a.go"), Some(7))
        );
        assert_eq!(go.frame_size(0x40_1010), Some(Some(8)));
        assert!(go.frames(0x40_1080).is_empty() && go.frames(0x40_0fff).is_empty());
    }
}
