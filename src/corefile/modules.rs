//! The mapped files with code, with their addresses and build-ids. The first page of each ELF file
//! is in the core (coredump_filter bit 4).

use super::image::{CoreImage, MOST_HEADS};
use super::link_map;
use super::package::Package;
use super::results::Module;
use super::segments::Segment;
use crate::elf::build_id_in_notes;
use crate::sys::proc::printable;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

/// A module, with what unwinding needs.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadedModule {
    /// What is reported to the caller.
    pub module: Module,
    /// The load bias: address in memory minus address in the file's image.
    pub bias: u64,
    /// Whether the bias is that of the module's ELF header, which is in the core.
    pub is_bias_known: bool,
    /// The whole image, for a module that has no file: the vDSO.
    pub image: Option<Vec<u8>>,
}

/// AT_SYSINFO_EHDR of the auxiliary vector: the address of the vDSO.
const VDSO: u64 = 33;
/// AT_ENTRY of the auxiliary vector: the entry point of the executable.
const ENTRY: u64 = 9;
/// Most bytes of the vDSO, which has a few pages.
const MAX_VDSO: usize = 64 << 10;
/// Most bytes of a module's first pages: its header, and notes that may be on the second page.
const MAX_HEAD: usize = 64 << 10;
/// Most modules that are read.
const MAX: usize = 4096;

/// Finds the modules of a core, the executable first, then by address.
pub(super) fn of(image: &CoreImage<'_>) -> Vec<LoadedModule> {
    let mut groups: Vec<(Module, Vec<u8>)> = Vec::new();
    for file in &image.notes.files {
        match groups.last_mut() {
            // The mappings of one file are consecutive; offset 0 begins a new module.
            Some((m, path)) if *path == file.path && file.offset > 0 => m.end = m.end.max(file.end),
            _ => groups.push((
                Module {
                    path: printable(&file.path),
                    start: file.start,
                    end: file.end,
                    ..Module::default()
                },
                file.path.clone(),
            )),
        }
    }
    if image.notes.files.is_empty() {
        groups.extend(link_map::modules(image).into_iter().map(|m| (m, Vec::new())));
    }
    let announced = Announced::of(image, groups.iter().map(|(m, _)| m));
    let mut found: Vec<LoadedModule> = groups
        .into_iter()
        .map(|(m, _)| m)
        .filter(|m| announced.has_code(m))
        .take(MAX)
        .map(|m| read_head(image, m))
        .collect();
    if let Some(start) = image.notes.auxv.get(&VDSO) {
        let bytes = image.memory.up_to(*start, MAX_VDSO);
        let module = Module {
            path: "[vdso]".into(),
            start: *start,
            end: start.saturating_add(bytes.len() as u64),
            ..Module::default()
        };
        if !bytes.is_empty() {
            found.push(LoadedModule { image: Some(bytes), ..read_head(image, module) });
        }
    }
    found.sort_by_key(|f| f.module.start);
    let entry = image.notes.auxv.get(&ENTRY).copied().unwrap_or(0);
    if let Some(i) = found.iter().position(|f| (f.module.start..f.module.end).contains(&entry)) {
        found[..=i].rotate_right(1);
    }
    found
}

/// What a core says of mapped files. The kernel announces every mapping, also those that it does
/// not dump, such as code. gdb's generate-core-file says nothing of what it does not dump, but it
/// dumps where ELF files begin. Small cores say what the core said that they are made of.
struct Announced<'i, 's> {
    image: &'i CoreImage<'s>,
    /// Whether every mapping is announced.
    is_all: bool,
    /// Whether each ELF file's beginning is there.
    has_starts: bool,
}

impl<'i, 's> Announced<'i, 's> {
    fn of<'m>(image: &'i CoreImage<'s>, files: impl ExactSizeIterator<Item = &'m Module>) -> Self {
        let is_all = image.segments.iter().any(|s| s.size > s.dumped.size);
        let is_few = files.len() <= MOST_HEADS;
        let mut announced = Announced { image, is_all, has_starts: false };
        announced.has_starts = is_few && files.into_iter().any(|m| announced.is_elf(m));
        announced
    }

    fn start(&self, m: &Module) -> Vec<u8> {
        self.image.memory.up_to(m.start, elf::ELFMAG.len())
    }

    fn is_elf(&self, m: &Module) -> bool {
        self.start(m) == elf::ELFMAG
    }

    /// Whether a mapped file has code. In gdb's cores what is missing may be code.
    fn has_code(&self, m: &Module) -> bool {
        let inside = |s: &&Segment| s.start() < m.end && s.end() >= m.start;
        let all = || self.image.segments.iter().filter(inside);
        if self.is_all || all().any(|s| s.is_code) {
            return all().any(|s| s.is_code);
        }
        let overlap = |s: &Segment| s.end().min(m.end).saturating_sub(s.start().max(m.start));
        let part = |s: &Segment| overlap(s).saturating_add(s.left_out);
        let covered = all().map(part).fold(0, u64::saturating_add);
        let may_be_elf = || self.is_elf(m) || !self.has_starts && self.start(m).is_empty();
        covered < m.end.saturating_sub(m.start) && may_be_elf()
    }
}

/// Bias and build-id, from the ELF header in memory. Without that, the file is assumed to be linked
/// at 0, as every shared object is.
fn read_head(image: &CoreImage<'_>, module: Module) -> LoadedModule {
    let head = image.memory.up_to(module.start, MAX_HEAD);
    let mut found = LoadedModule { bias: module.start, module, ..LoadedModule::default() };
    let Ok(header) = FileHeader64::<LE>::parse(&head[..]) else { return found };
    let Ok(segments) = header.program_headers(LE, &head[..]) else { return found };
    if let Some(bias) = bias(segments, found.module.start) {
        (found.bias, found.is_bias_known) = (bias, true);
    }
    for p in segments.iter().filter(|p| p.p_type(LE) == elf::PT_NOTE) {
        let size = usize::try_from(p.p_filesz(LE)).unwrap_or(MAX_HEAD).min(MAX_HEAD);
        let notes = image.memory.up_to(found.bias.wrapping_add(p.p_vaddr(LE)), size);
        let align = p.p_align(LE);
        let module = &mut found.module;
        if module.build_id.is_none() {
            module.build_id = build_id_in_notes::<FileHeader64<LE>>(&notes, LE, align);
        }
        if module.package.is_none() {
            module.package = Package::in_notes(&notes, align);
        }
    }
    found
}

impl LoadedModule {
    /// Takes the load bias from the module's file where the core does not have its ELF header.
    pub(super) fn learn_bias(&mut self, file: Option<&[u8]>) {
        let Some(file) = file.filter(|_| !self.is_bias_known) else { return };
        let Ok(header) = FileHeader64::<LE>::parse(file) else { return };
        let segments = header.program_headers(LE, file).ok();
        if let Some(bias) = segments.and_then(|s| bias(s, self.module.start)) {
            self.bias = bias;
        }
    }
}

/// Computes the load bias: the first PT_LOAD segment gives the address that the file's
/// first page was linked at.
pub(super) fn bias(segments: &[ProgramHeader64<LE>], start: u64) -> Option<u64> {
    let first = segments.iter().find(|p| p.p_type(LE) == elf::PT_LOAD)?;
    Some(start.wrapping_sub(first.p_vaddr(LE).wrapping_sub(first.p_offset(LE))))
}
