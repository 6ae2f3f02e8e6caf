//! The file of one module: whether it is the file that was mapped, its unwind tables, and the
//! function and source line at an address.

use super::modules::LoadedModule;
use super::results::{Frame, Match, TRAMPOLINE};
use crate::elf::hex;
use crate::sys::proc::printable;
use addr2line::gimli::{DwarfSections, EndianSlice, LittleEndian, SectionId};
use addr2line::{Context, demangle_auto};
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{LittleEndian as LE, Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

type Elf<'d> = ElfFile<'d, FileHeader64<LE>>;
type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// A module's file. Its parts are read only when they are needed.
#[derive(Default)]
pub(super) struct Binary<'d> {
    /// Whether it is the file that was mapped. If not, nothing of it is used.
    pub verdict: Match,
    file: Option<Elf<'d>>,
    debug: Option<Elf<'d>>,
    symbols: OnceCell<Vec<Symbol<'d>>>,
    dwarf: OnceCell<DwarfSections<Cow<'d, [u8]>>>,
    /// Addresses of Go's `runtime.sigpanic`.
    injected: OnceCell<Option<Range<u64>>>,
    /// `.debug_frame`, which may be compressed.
    debug_frame: OnceCell<Option<Cow<'d, [u8]>>>,
}

#[derive(Clone, Copy)]
struct Symbol<'d> {
    address: u64,
    size: u64,
    /// Among several names for one address the best known sorts last: local, weak, global.
    rank: u8,
    name: &'d [u8],
}

/// A module's file and its separate debug information, mapped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ModuleFiles<'d> {
    /// The file itself.
    pub file: Option<&'d [u8]>,
    /// Its debug information, if that is a separate file.
    pub debug: Option<&'d [u8]>,
}

/// Opens a module's file, and its debug information if that is of the same build.
pub(super) fn open<'d>(module: &'d LoadedModule, files: ModuleFiles<'d>) -> Binary<'d> {
    let id = module.module.build_id.as_deref();
    let Some(data) = module.image.as_deref().or(files.file) else { return Binary::default() };
    let Ok(file) = Elf::parse(data) else {
        return Binary { verdict: Match::Damaged, ..Binary::default() };
    };
    let own = build_id(&file);
    let verdict = match (id, own.as_deref()) {
        _ if module.image.is_some() => Match::Same,
        (Some(a), Some(b)) if a == b => Match::Same,
        (Some(_), _) => Match::Other,
        (None, _) => Match::Unproven,
    };
    if verdict == Match::Other {
        return Binary { verdict, ..Binary::default() };
    }
    let debug = files
        .debug
        .and_then(|d| Elf::parse(d).ok())
        .filter(|d| own.is_some() && build_id(d) == own);
    Binary { verdict, file: Some(file), debug, ..Binary::default() }
}

/// From its sections: the program headers of separate debug information may describe the file that
/// it was taken from.
fn build_id(file: &Elf<'_>) -> Option<String> {
    hex(file.build_id().ok()??)
}

/// The sections with unwind tables, by address in the file's image.
pub(super) struct Tables<'b> {
    /// `.text`, for functions without tables.
    pub text: Option<(Range<u64>, &'b [u8])>,
    /// `.eh_frame_hdr`.
    pub index: Option<(Range<u64>, &'b [u8])>,
    /// `.eh_frame`.
    pub table: Option<(Range<u64>, &'b [u8])>,
    /// `.debug_frame`.
    pub debug: Option<&'b [u8]>,
    /// `.got`.
    pub got: Option<Range<u64>>,
}

impl<'d> Binary<'d> {
    /// Its unwind tables.
    pub(super) fn tables(&self) -> Option<Tables<'_>> {
        let file = self.file.as_ref()?;
        let range =
            |s: &dyn Fn() -> Option<(u64, u64)>| s().and_then(|(a, n)| Some(a..a.checked_add(n)?));
        let at =
            |name: &str| range(&|| file.section_by_name(name).map(|s| (s.address(), s.size())));
        let section = |name: &str| {
            Some((at(name)?, file.section_by_name(name)?.data().ok().filter(|d| !d.is_empty())?))
        };
        let debug = self.debug_frame.get_or_init(|| {
            let of = |f: &Elf<'d>| {
                f.section_by_name(".debug_frame")?
                    .uncompressed_data()
                    .ok()
                    .filter(|d| !d.is_empty())
            };
            of(file).or_else(|| of(self.debug.as_ref()?))
        });
        Some(Tables {
            text: section(".text"),
            index: section(".eh_frame_hdr"),
            table: section(".eh_frame"),
            debug: debug.as_deref(),
            got: at(".got"),
        })
    }

    /// The name by which programs are linked with it (DT_SONAME).
    pub(super) fn soname(&self) -> Option<String> {
        let table = self.file.as_ref()?.elf_dynamic_table().ok()?;
        let entry = table.iter().find(|d| d.tag == object::elf::DT_SONAME)?;
        let name = entry.string(table.strings()).ok()?;
        (name.len() < 256).then(|| printable(name))
    }

    /// Bytes of the file's image.
    pub(super) fn code(&self, address: u64, size: u64) -> Option<&'d [u8]> {
        self.file.as_ref()?.segments().find_map(|s| s.data_range(address, size).ok().flatten())
    }

    /// Whether an address is in a function that a signal handler called on behalf of the faulting
    /// instruction: its return address is that instruction, not the one after a call. Go does this
    /// for every nil dereference.
    pub(super) fn is_injected(&self, address: u64) -> bool {
        let find = || {
            self.file.as_ref()?.section_by_name(".gopclntab")?;
            let s = self.symbols().iter().find(|s| s.name == b"runtime.sigpanic")?;
            Some(s.address..s.address.saturating_add(s.size))
        };
        self.injected.get_or_init(find).as_ref().is_some_and(|r| r.contains(&address))
    }

    fn symbols(&self) -> &[Symbol<'d>] {
        self.symbols.get_or_init(|| {
            let mut all = Vec::new();
            for elf in [&self.file, &self.debug].into_iter().flatten() {
                for s in elf.symbols().chain(elf.dynamic_symbols()) {
                    if !s.is_definition()
                        && s.kind() != SymbolKind::Text
                        && s.kind() != SymbolKind::Unknown
                    {
                        continue;
                    }
                    let in_code = s
                        .section_index()
                        .and_then(|i| elf.section_by_index(i).ok())
                        .is_some_and(|s| s.kind() == object::SectionKind::Text);
                    let Ok(name) = s.name_bytes() else { continue };
                    // Mapping symbols of ARM ($x, $d) are not functions.
                    if in_code && !name.is_empty() && !name.starts_with(b"$") {
                        let rank = if s.is_local() { 0 } else { 1 + u8::from(!s.is_weak()) };
                        all.push(Symbol { address: s.address(), size: s.size(), rank, name });
                    }
                }
            }
            all.sort_by_key(|s| (s.address, s.rank));
            all
        })
    }

    /// The symbol that covers an address. A symbol without a size reaches to the next one.
    fn symbol(&self, address: u64) -> Option<&'d [u8]> {
        let symbols = self.symbols();
        let end = symbols.partition_point(|s| s.address <= address);
        let near = &symbols[end.saturating_sub(64)..end];
        let covers = |s: &&Symbol<'d>| address - s.address < s.size;
        let sized = near.iter().rev().find(covers);
        let last = near.last().filter(|s| s.size == 0);
        sized.or(last).map(|s| s.name)
    }

    fn context(&self) -> Option<Context<Slice<'_>>> {
        let has_dwarf =
            |e: &&Elf<'d>| e.section_by_name(".debug_info").is_some_and(|s| s.size() > 0);
        let elf = [&self.debug, &self.file].into_iter().flatten().find(has_dwarf)?;
        let sections = self.dwarf.get_or_init(|| {
            let load = |id: SectionId| -> Result<Cow<'d, [u8]>, object::Error> {
                Ok(elf
                    .section_by_name(id.name())
                    .and_then(|s| s.uncompressed_data().ok())
                    .unwrap_or_default())
            };
            DwarfSections::load(load).unwrap_or_default()
        });
        Context::from_dwarf(sections.borrow(|s| EndianSlice::new(s, LittleEndian))).ok()
    }
}

/// A frame as the unwinder finds it, without names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RawFrame {
    /// Where the thread was, or the address that a call returns to.
    pub address: u64,
    /// An address within the same instruction; for a return address, the last byte of the call.
    pub lookup: u64,
    /// Index of the module that contains it.
    pub module: Option<usize>,
    /// Whether it is the code of the kernel or the C library that returns from a signal handler.
    pub trampoline: bool,
}

/// Source lines of binaries. The index of the debug information is parsed once for each binary,
/// when a stack goes through it.
pub(super) struct Lines<'b>(Vec<OnceCell<Option<Context<Slice<'b>>>>>);

impl<'b> Lines<'b> {
    /// An empty cache for `count` binaries.
    pub(super) fn new(count: usize) -> Self {
        Lines((0..count).map(|_| OnceCell::new()).collect())
    }

    /// The functions at a frame of a stack, including inlined ones, the innermost first.
    pub(super) fn describe(
        &self,
        frame: &RawFrame,
        modules: &[LoadedModule],
        binaries: &'b [Binary<'_>],
    ) -> Vec<Frame> {
        let mut shown = Frame { address: frame.address, module: frame.module, ..Frame::default() };
        let Some(i) = frame.module else { return vec![shown] };
        shown.offset = Some(frame.address.wrapping_sub(modules[i].bias));
        if frame.trampoline {
            shown.function = Some(TRAMPOLINE.to_owned());
            return vec![shown];
        }
        let lookup = frame.lookup.wrapping_sub(modules[i].bias);
        let symbol = binaries[i]
            .symbol(lookup)
            .map(|n| demangle_auto(String::from_utf8_lossy(n), None).into_owned());
        let mut frames = self.source_frames(i, lookup, &shown, binaries);
        match frames.last_mut() {
            Some(outer) => outer.function = outer.function.take().or(symbol),
            None => frames.push(Frame { function: symbol, ..shown }),
        }
        for f in &mut frames {
            f.function = f.function.take().map(|n| bounded(&n));
        }
        frames
    }

    fn source_frames(
        &self,
        module: usize,
        lookup: u64,
        template: &Frame,
        binaries: &'b [Binary<'_>],
    ) -> Vec<Frame> {
        let Some(context) = self.0[module].get_or_init(|| binaries[module].context()) else {
            return Vec::new();
        };
        let Ok(mut found) = context.find_frames(lookup).skip_all_loads() else { return Vec::new() };
        let mut frames = Vec::new();
        while let (Ok(Some(f)), true) = (found.next(), frames.len() < 64) {
            frames.push(Frame {
                function: f.function.as_ref().and_then(|n| Some(n.demangle().ok()?.into_owned())),
                file: f.location.as_ref().and_then(|l| l.file).map(bounded),
                line: f.location.as_ref().and_then(|l| l.line),
                inlined: true,
                ..template.clone()
            });
        }
        if let Some(outer) = frames.last_mut() {
            outer.inlined = false;
        }
        frames
    }
}

/// Makes a name of a file or function, which the container chose, one line of bounded length.
fn bounded(name: &str) -> String {
    const MAX: usize = 1024;
    let text = printable(name.as_bytes());
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
