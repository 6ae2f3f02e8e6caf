//! The file of one module and the files with its debug information: whether they are those of the
//! module that was mapped, its unwind tables, and which files it names that are needed besides.

use super::file::Elf;
use super::gopclntab::GoTable;
use super::lines::{self, Sections, Split};
use super::links::{self, Link};
use super::memory::Memory;
use super::modules::LoadedModule;
use super::results::Match;
use super::symbols::Symbols;
use crate::elf::hex;
use crate::sys::proc::printable;
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags, elf};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

/// A module's file. Its parts are read only when they are needed.
#[derive(Default)]
pub(super) struct Binary<'d> {
    /// Whether it is the file that was mapped. If not, nothing of it is used.
    pub verdict: Match,
    file: Option<Elf<'d>>,
    debug: Option<Elf<'d>>,
    supplementary: Option<Elf<'d>>,
    split: Vec<Split<'d>>,
    /// Go's own table, which is used where there is no DWARF.
    pub go: Option<GoTable<'d>>,
    symbols: OnceCell<Symbols<'d>>,
    dwarf: OnceCell<Sections<'d>>,
    common: OnceCell<Sections<'d>>,
    /// `.debug_frame`, which may be compressed.
    debug_frame: OnceCell<Option<Cow<'d, [u8]>>>,
}

/// A module's file and the files with its debug information, mapped. Of several the first that
/// belongs to it is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModuleFiles<'d> {
    /// The file itself.
    pub file: Option<&'d [u8]>,
    /// Separate debug information.
    pub debug: Vec<&'d [u8]>,
    /// What dwz moved out of that.
    pub supplementary: Vec<&'d [u8]>,
    /// Split DWARF.
    pub split: Vec<&'d [u8]>,
}

#[cfg(any(test, fuzzing))]
impl<'d> ModuleFiles<'d> {
    /// One file for all of them, for the fuzz targets.
    pub(crate) fn all(file: &'d [u8]) -> Self {
        let any = vec![file];
        ModuleFiles { file: Some(file), debug: any.clone(), supplementary: any.clone(), split: any }
    }
}

/// Opens a module's file, and its debug information if that is of the same build.
pub(super) fn open<'d>(
    module: &'d LoadedModule,
    files: &ModuleFiles<'d>,
    memory: &Memory<'_>,
) -> Binary<'d> {
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
    let debug = files.debug.iter().find_map(|data| {
        Elf::parse(*data).ok().filter(|debug| is_debug_of(&file, own.as_deref(), debug, data))
    });
    let linked = debug.as_ref().and_then(alternative).or_else(|| alternative(&file));
    let supplementary = linked.as_ref().and_then(|(_, id)| {
        let mut parsed = files.supplementary.iter().filter_map(|data| Elf::parse(*data).ok());
        parsed.find(|elf| build_id(elf).as_ref() == Some(id))
    });
    let split = files.split.iter().filter_map(|data| Split::parse(data)).collect();
    let go = GoTable::of(&file, memory, module.bias);
    Binary { verdict, file: Some(file), debug, supplementary, split, go, ..Binary::default() }
}

/// Whether `debug` has the debug information of `file`: the same build-id or, without one, the
/// checksum in `.gnu_debuglink`.
fn is_debug_of(file: &Elf<'_>, own: Option<&str>, debug: &Elf<'_>, data: &[u8]) -> bool {
    match (own, build_id(debug)) {
        (Some(own), Some(id)) => own == id,
        _ => matches!(file.gnu_debuglink(), Ok(Some((_, crc))) if crc32fast::hash(data) == crc),
    }
}

/// Path and build-id of what dwz moved out of a file.
fn alternative(elf: &Elf<'_>) -> Option<(String, String)> {
    let (path, id) = elf.gnu_debugaltlink().ok()??;
    Some((links::path(path)?, hex(id)?))
}

fn has_dwarf(elf: &Elf<'_>) -> bool {
    elf.section_by_name(".debug_info").is_some_and(|s| s.size() > 0)
}

/// From its sections: the program headers of separate debug information may describe the file that
/// it was taken from.
fn build_id(file: &Elf<'_>) -> Option<String> {
    hex(file.build_id().ok()??)
}

/// The build-id of an ELF file in hexadecimal, if it is one and has one.
pub(super) fn build_id_of(data: &[u8]) -> Option<String> {
    build_id(&Elf::parse(data).ok()?)
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

    /// Bytes of the file's image that the program cannot change.
    pub(super) fn constant(&self, address: u64, size: u64) -> Option<&'d [u8]> {
        let is_constant = |flags| match flags {
            SegmentFlags::Elf { p_flags, .. } => p_flags.0 & elf::PF_W.0 == 0,
            _ => false,
        };
        let mut segments = self.file.as_ref()?.segments().filter(|s| is_constant(s.flags()));
        segments.find_map(|s| s.data_range(address, size).ok().flatten())
    }

    /// The symbol that covers an address of the file's image.
    pub(super) fn symbol(&self, address: u64) -> Option<&[u8]> {
        self.symbols().at(address)
    }

    /// The address in the file's image of the function that the linker knows by this name.
    pub(super) fn defined(&self, name: &str) -> Option<u64> {
        self.symbols().named(name.as_bytes())
    }

    fn symbols(&self) -> &Symbols<'d> {
        self.symbols.get_or_init(|| Symbols::of(self.file.as_ref(), self.debug.as_ref()))
    }

    /// Whether an address is in a function that a signal handler called on behalf of the faulting
    /// instruction: its return address is that instruction, not the one after a call. Go does this
    /// for every nil dereference.
    pub(super) fn is_injected(&self, address: u64) -> bool {
        let name = self.go.as_ref().and_then(|go| go.symbol(address));
        name.is_some_and(|name| name == "runtime.sigpanic")
    }

    /// Address in the file's image and size of a section.
    pub(super) fn section_at(&self, name: &str) -> Option<(u64, u64)> {
        let section = self.file.as_ref()?.section_by_name(name)?;
        Some((section.address(), section.size()))
    }

    /// The version of Go that it was built with, such as `go1.22.10` (`debug/buildinfo`).
    pub(super) fn go_version(&self) -> Option<String> {
        const INLINE: u8 = 2;
        let data = self.file.as_ref()?.section_by_name(".go.buildinfo")?.data().ok()?;
        let is_inline = data.starts_with(b"\xff Go buildinf:") && data.get(15)? & INLINE != 0;
        let length = usize::from(*data.get(32).filter(|n| is_inline && **n < 0x80)?);
        String::from_utf8(data.get(33..33 + length)?.to_vec()).ok()
    }

    /// The file with the debug information.
    fn with_dwarf(&self) -> Option<&Elf<'d>> {
        [&self.debug, &self.file].into_iter().flatten().find(|elf| has_dwarf(elf))
    }

    /// Its DWARF sections, and what dwz moved out of them.
    pub(super) fn dwarf(&self) -> Option<(&Sections<'d>, Option<&Sections<'d>>)> {
        let elf = self.with_dwarf()?;
        let own = self.dwarf.get_or_init(|| lines::sections(elf));
        let common = self.supplementary.as_ref();
        Some((own, common.map(|elf| self.common.get_or_init(|| lines::sections(elf)))))
    }

    /// Its split DWARF.
    pub(super) fn split(&self) -> &[Split<'d>] {
        &self.split
    }

    /// Files that would tell more and that were not among those given, in the order in which they
    /// are to be tried.
    pub(super) fn wanted(&self) -> Vec<Link> {
        let Some(file) = &self.file else { return vec![Link::Executable] };
        let Some(elf) = self.with_dwarf() else {
            let named = file.gnu_debuglink().ok().flatten();
            let named = named.and_then(|(name, _)| Some(Link::Debug(links::name(name)?)));
            return named.into_iter().chain([Link::DebugInfo]).collect();
        };
        let common = alternative(elf).filter(|_| self.supplementary.is_none());
        common.map(|(path, build_id)| Link::Supplementary { path, build_id }).into_iter().collect()
    }
}
