//! Functions and source lines from debug information, with inlined functions, split DWARF (`.dwo`,
//! `.dwp`) and what dwz moved into a file of its own.

use super::entries::{Die, Entries, Slice};
use super::file::Elf;
use super::links::{self, Link};
use super::symbols::demangled;
use addr2line::gimli::{
    self, Dwarf, DwarfFileType, DwarfPackageSections, DwarfSections, DwoId, EndianSlice,
    LittleEndian, SectionId, UnitRef,
};
use addr2line::{Context, FrameIter, LookupContinuation, LookupResult, SplitDwarfLoad};
use object::{Object, ObjectSection};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

type Bytes<'d> = Cow<'d, [u8]>;

/// The DWARF sections of a file.
pub(super) type Sections<'d> = DwarfSections<Bytes<'d>>;

/// A function with its source line, as debug information has it.
pub(super) struct SourceFrame {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// A file of split DWARF.
pub(super) enum Split<'d> {
    /// `.dwo`: the debug information of one compilation unit.
    Unit(Box<Sections<'d>>),
    /// `.dwp`: a package of several.
    Package(Box<DwarfPackageSections<Bytes<'d>>>),
}

fn contents<'d>(elf: &Elf<'d>, name: Option<&str>) -> Bytes<'d> {
    name.and_then(|name| elf.section_by_name(name)?.uncompressed_data().ok()).unwrap_or_default()
}

/// Reads the DWARF sections of a file.
pub(super) fn sections<'d>(elf: &Elf<'d>) -> Sections<'d> {
    let load = |id: SectionId| Ok::<_, gimli::Error>(contents(elf, Some(id.name())));
    DwarfSections::load(load).unwrap_or_default()
}

impl<'d> Split<'d> {
    /// Reads a file of split DWARF.
    pub(super) fn parse(data: &'d [u8]) -> Option<Self> {
        let elf = Elf::parse(data).ok()?;
        let load = |id: SectionId| Ok::<_, gimli::Error>(contents(&elf, id.dwo_name()));
        if elf.section_by_name(".debug_cu_index").is_some() {
            return Some(Split::Package(Box::new(DwarfPackageSections::load(load).ok()?)));
        }
        Some(Split::Unit(Box::new(DwarfSections::load(load).ok()?)))
    }

    /// The debug information of one unit, if it is in this file.
    fn find<'b>(&'b self, id: DwoId, parent: &Dwarf<Slice<'b>>) -> Option<Dwarf<Slice<'b>>> {
        match self {
            Split::Package(sections) => {
                let package = sections.borrow(|s| slice(s), slice(&[])).ok()?;
                package.find_cu(id, parent).ok()?
            }
            Split::Unit(sections) => {
                let mut dwarf = sections.borrow(|s| slice(s));
                dwarf.make_dwo(parent);
                let mut units = dwarf.units();
                while let Ok(Some(header)) = units.next() {
                    if dwarf.unit(header).is_ok_and(|unit| unit.dwo_id == Some(id)) {
                        return Some(dwarf);
                    }
                }
                None
            }
        }
    }
}

fn slice(bytes: &[u8]) -> Slice<'_> {
    EndianSlice::new(bytes, LittleEndian)
}

/// The debug information of one module. Its index is parsed once.
pub(super) struct DebugInfo<'b> {
    context: Context<Slice<'b>>,
    entries: Entries<'b>,
    split: &'b [Split<'b>],
    /// Files of split DWARF that were not given.
    pub missing: RefCell<BTreeSet<Link>>,
}

impl<'b> DebugInfo<'b> {
    /// Parses a module's debug information: its own, what dwz moved out of that, its split DWARF.
    pub(super) fn of(
        own: &'b Sections<'_>,
        supplementary: Option<&'b Sections<'_>>,
        split: &'b [Split<'b>],
    ) -> Option<Self> {
        let dwarf = Arc::new(own.borrow_with_sup(supplementary, |s| slice(s)));
        let context = Context::from_arc_dwarf(dwarf.clone()).ok()?;
        let entries = Entries::new(dwarf);
        Some(DebugInfo { context, entries, split, missing: RefCell::default() })
    }

    /// The functions at an address, the innermost first: the last one is that which the code
    /// belongs to, the others are inlined into it. None if their debug information is missing:
    /// half of it would give the line of one function and the name of another.
    pub(super) fn frames(&self, address: u64) -> Vec<SourceFrame> {
        let Some((_, mut found)) = self.found(address) else { return Vec::new() };
        let mut frames = Vec::new();
        while let (Ok(Some(f)), true) = (found.next(), frames.len() < 64) {
            let location = f.location.as_ref();
            frames.push(SourceFrame {
                function: f.function.as_ref().map(|name| demangled(&name.name)),
                file: location.and_then(|l| l.file).map(str::to_owned),
                line: location.and_then(|l| l.line),
            });
        }
        frames
    }

    /// The entries of the functions at an address, in the order of [`DebugInfo::frames`]. `None` if
    /// that has none.
    pub(super) fn functions(&self, address: u64) -> Option<Vec<Option<Die<'_, 'b>>>> {
        let (unit, mut found) = self.found(address)?;
        let mut all = Vec::new();
        while let (Ok(Some(f)), true) = (found.next(), all.len() < 64) {
            all.push(f.dw_die_offset.and_then(|offset| self.entries.entry(unit, offset)));
        }
        (!all.is_empty()).then_some(all)
    }

    /// The unit of an address and the functions there. `None` where the split DWARF of the unit is
    /// missing or broken.
    fn found(&self, address: u64) -> Option<(UnitRef<'_, Slice<'b>>, FrameIter<'_, Slice<'b>>)> {
        // The frames come first: where they are an error, asking for the unit panics.
        let frames = self.supplied(self.context.find_frames(address)).ok()?;
        // A unit whose split DWARF was not found is not asked for again.
        let unit = self.supplied(self.context.find_dwarf_and_unit(address))?;
        let is_skeleton =
            unit.dwarf.file_type == DwarfFileType::Main && !matches!(unit.dwo_name(), Ok(None));
        (!is_skeleton).then_some((unit, frames))
    }

    /// The result of a lookup, with the split DWARF that it needs.
    fn supplied<L: LookupContinuation<Buf = Slice<'b>>>(
        &self,
        mut lookup: LookupResult<L>,
    ) -> L::Output {
        loop {
            match lookup {
                LookupResult::Output(found) => return found,
                LookupResult::Load { load, continuation } => {
                    lookup = continuation.resume(self.load(&load));
                }
            }
        }
    }

    fn load(&self, load: &SplitDwarfLoad<Slice<'b>>) -> Option<Arc<Dwarf<Slice<'b>>>> {
        if let Some(dwarf) = self.split.iter().find_map(|s| s.find(load.dwo_id, &load.parent)) {
            return Some(Arc::new(dwarf));
        }
        let mut missing = self.missing.borrow_mut();
        if missing.len() < links::MOST_SPLIT
            && let Some(path) = load.path.and_then(|p| links::path(p.slice()))
        {
            let directory = load.comp_dir.and_then(|d| links::path(d.slice())).unwrap_or_default();
            missing.insert(Link::Split { directory, path });
        }
        None
    }
}
