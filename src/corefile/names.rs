//! Names a frame of a stack: function, source file and line, including inlined functions.

use super::binary::Binary;
use super::entries::Die;
use super::lines::DebugInfo;
use super::links::{Link, NeededFile};
use super::modules::LoadedModule;
use super::notes::Registers;
use super::results::{Frame, TRAMPOLINE};
use super::symbols::demangled;
use crate::sys::proc::printable;
use std::cell::{Cell, OnceCell};

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
    /// The registers that unwinding goes on from.
    pub registers: Registers,
}

/// The names in the files of all modules. The index of the debug information is parsed once for
/// each, when a stack goes through it.
pub(super) struct ModuleNames<'b> {
    pub modules: &'b [LoadedModule],
    pub binaries: &'b [Binary<'b>],
    sources: Vec<OnceCell<Option<DebugInfo<'b>>>>,
    /// How many more functions are looked for by their names.
    searches: Cell<u32>,
}

/// Most functions that are looked for by their names, each in all modules.
const SEARCHES: u32 = 256;

impl<'b> ModuleNames<'b> {
    /// Reads nothing yet.
    pub(super) fn new(modules: &'b [LoadedModule], binaries: &'b [Binary<'b>]) -> Self {
        ModuleNames {
            modules,
            binaries,
            sources: binaries.iter().map(|_| OnceCell::new()).collect(),
            searches: Cell::new(SEARCHES),
        }
    }

    /// Files of split DWARF that were needed and not given.
    pub(super) fn missing(&self) -> Vec<NeededFile> {
        let mut all = Vec::new();
        for (module, source) in self.sources.iter().enumerate() {
            if let Some(Some(source)) = source.get() {
                let links: Vec<Link> = source.missing.borrow().iter().cloned().collect();
                all.extend(links.into_iter().map(|link| NeededFile { module, link }));
            }
        }
        all
    }

    fn source(&self, module: usize) -> Option<&DebugInfo<'b>> {
        self.sources[module].get_or_init(|| source(&self.binaries[module])).as_ref()
    }

    /// The entries of the debug information for the functions at a frame, one for each that
    /// `describe` finds.
    pub(super) fn functions(&self, frame: &RawFrame) -> Option<Vec<Option<Die<'_, 'b>>>> {
        let i = frame.module.filter(|_| !frame.trampoline)?;
        self.source(i)?.functions(frame.lookup.wrapping_sub(self.modules[i].bias))
    }

    /// The module and the address in its image of a function by its name: of `first`, or of the
    /// first module that has one.
    pub(super) fn defined(&self, first: usize, name: &str) -> Option<(usize, u64)> {
        self.searches.set(self.searches.get().checked_sub(1)?);
        let others = (0..self.binaries.len()).filter(|i| *i != first);
        [first].into_iter().chain(others).find_map(|i| Some((i, self.binaries[i].defined(name)?)))
    }

    /// The functions at a frame of a stack, including inlined ones, the innermost first.
    pub(super) fn describe(&self, frame: &RawFrame) -> Vec<Frame> {
        let mut shown = Frame { address: frame.address, module: frame.module, ..Frame::default() };
        let Some(i) = frame.module else { return vec![shown] };
        let (binary, bias) = (&self.binaries[i], self.modules[i].bias);
        shown.offset = Some(frame.address.wrapping_sub(bias));
        if frame.trampoline {
            shown.function = Some(TRAMPOLINE.to_owned());
            return vec![shown];
        }
        let lookup = frame.lookup.wrapping_sub(bias);
        let symbol = binary.symbol(lookup).map(demangled);
        let source = self.source(i);
        let found = match (source, &binary.go) {
            (Some(source), _) => source.frames(lookup),
            (None, Some(go)) => go.frames(lookup),
            (None, None) => Vec::new(),
        };
        let mut frames: Vec<Frame> = found
            .into_iter()
            .map(|f| Frame {
                function: f.function,
                file: f.file.map(|file| bounded(&file)),
                line: f.line,
                inlined: true,
                ..shown.clone()
            })
            .collect();
        match frames.last_mut() {
            Some(outer) => {
                outer.inlined = false;
                outer.function = outer.function.take().or(symbol);
            }
            None => frames.push(Frame { function: symbol, ..shown }),
        }
        for f in &mut frames {
            f.function = f.function.take().map(|n| bounded(&n));
        }
        frames
    }
}

/// The debug information of a module, if it has any.
pub(super) fn source<'b>(binary: &'b Binary<'b>) -> Option<DebugInfo<'b>> {
    let (own, supplementary) = binary.dwarf()?;
    DebugInfo::of(own, supplementary, binary.split())
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
