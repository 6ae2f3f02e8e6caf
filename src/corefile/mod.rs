//! Reads a core file: which process died, of what, and where each thread was.
//!
//! ```text
//! file --image--> Image --overview--> Overview    what the core alone says: signal, program,
//!                   |                             threads, modules with their build-ids
//!                   +--unwind (framehop)--> frames --names, tail_calls (addr2line)--> ThreadStack
//!                                                   one for each thread, the crashing one first
//! ```
//!
//! The core and the binaries are not trusted: everything here except `reader` and `files` runs in a
//! [`crate::sys::sandbox`], and returns plain values, or an error that says what is wrong with the
//! file. `reader` starts the sandboxes, `files` finds the binaries for them.

mod binary;
mod call_sites;
mod compressed;
mod entries;
mod file;
mod gopclntab;
mod goroutines;
mod head;
mod hex;
mod identity;
mod image;
mod lines;
mod link_map;
mod links;
mod memory;
mod modules;
mod names;
mod notes;
mod package;
mod process_memory;
mod results;
mod segments;
mod signal;
mod summary;
mod symbols;
mod tail_calls;
mod unwind;
mod variables;

pub(crate) mod decompress;
pub(crate) mod files;
pub(crate) mod reader;
pub(crate) mod reduced;
pub(crate) mod shrink;

pub(crate) use binary::ModuleFiles;
pub(crate) use compressed::Compressed;
pub(crate) use head::{CoreHead, MAX_NOTES};
pub(crate) use identity::{is_name, name};
pub(crate) use links::NeededFile;
#[cfg(test)]
pub(crate) use results::Variable;
pub(crate) use results::{
    Frame, GoroutineStack, Match, Module, Overview, PartialResult, ThreadStack,
};
pub(crate) use summary::{Summary, summary, without_arguments};
pub(crate) use variables::VariableOptions;

use crate::elf::Source;
use anyhow::Result;
use image::CoreImage;
use process_memory::DumpedMemory;
use std::collections::BTreeSet;

/// Reads what the core alone says.
///
/// # Errors
/// The file is not a core that can be read, with the reason.
pub(crate) fn overview(source: &dyn Source) -> Result<Overview> {
    let image = CoreImage::parse(source)?;
    let modules = modules::of(&image);
    Ok(Overview {
        machine: image.machine.to_string(),
        comm: image.notes.comm.clone(),
        arguments: image.notes.arguments.clone(),
        pid: image.notes.pid,
        signal: image.notes.signal.clone().map(|s| s.of_process(image.notes.pid)),
        registers: image.notes.general.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        threads: image.notes.threads.len(),
        missing: image.missing(),
        modules: modules.into_iter().map(|m| m.module).collect(),
    })
}

/// Unwinds the stack of every thread. `files` are the files of [`Overview::modules`], in that
/// order. `send` is called with the verdict on each file, then with each thread, or, if a module on
/// a stack names files that are in neither `files` nor `asked`, only with those names.
///
/// # Errors
/// The file is not a core that can be read, or `send` failed.
pub(crate) fn stacks(
    source: &dyn Source,
    files: &[ModuleFiles<'_>],
    asked: &BTreeSet<NeededFile>,
    options: Option<&VariableOptions>,
    send: &mut dyn FnMut(PartialResult) -> Result<()>,
) -> Result<()> {
    let image = CoreImage::parse(source)?;
    let mut modules = modules::of(&image);
    let none = ModuleFiles::default();
    for (module, files) in modules.iter_mut().zip(files) {
        module.learn_bias(files.file);
    }
    let binaries: Vec<_> = modules
        .iter()
        .enumerate()
        .map(|(i, m)| binary::open(m, files.get(i).unwrap_or(&none), &image.memory))
        .collect();
    send(PartialResult::Matches(binaries.iter().map(|b| b.verdict).collect()))?;
    send(PartialResult::Sonames(binaries.iter().map(|b| b.soname()).collect()))?;
    let mut unwinder = unwind::StackUnwinder::new(&image, &modules, &binaries);
    let stacks: Vec<_> = image.notes.threads.iter().map(|t| (t.tid, unwinder.unwind(t))).collect();
    let seen: BTreeSet<usize> =
        stacks.iter().flat_map(|(_, s)| &s.frames).filter_map(|f| f.module).collect();
    let needed = |module: usize| {
        let links = binaries[module].wanted().into_iter();
        links.map(|link| NeededFile { module, link }).find(|needed| !asked.contains(needed))
    };
    let needed: Vec<NeededFile> = seen.into_iter().filter_map(needed).collect();
    if !needed.is_empty() {
        return send(PartialResult::Needed(needed));
    }
    let names = names::ModuleNames::new(&modules, &binaries);
    for (tid, unwound) in &stacks {
        let frames = tail_calls::stack(&names, &unwound.frames);
        send(PartialResult::Thread(ThreadStack { tid: *tid, frames, cut: unwound.cut.clone() }))?;
    }
    // The stacks are complete whatever comes of this.
    let process = DumpedMemory::new(&image.memory, &modules, &binaries);
    if let Some(all) = goroutines::of(process, &modules, &binaries) {
        for g in all.shown {
            let unwound = unwinder.unwind_goroutine(g.registers);
            let frames = tail_calls::stack(&names, &unwound.frames);
            let stack = GoroutineStack { id: g.id, state: g.state, frames, cut: unwound.cut };
            send(PartialResult::Goroutine(stack))?;
        }
        send(PartialResult::MoreGoroutines(all.more))?;
    }
    if let (Some(options), Some((_, first))) = (options, stacks.first()) {
        let thread = (image.machine, &image.notes.first, first.frames.as_slice());
        variables::of_thread(thread, &names, process, options, &mut |frame, all| {
            send(PartialResult::Variables(frame, all))
        })?;
    }
    send(PartialResult::Needed(names.missing()))
}

/// Reads all names of a file, as if it were the file of a module and all debug information of it.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_names(file: &[u8]) {
    use object::{Object, ObjectSection};
    let (module, core) = (modules::LoadedModule::default(), Vec::new());
    let memory = memory::Memory::new(&core, Vec::new());
    let binary = binary::open(&module, &ModuleFiles::all(file), &memory);
    let source = names::source(&binary);
    let Ok(elf) = file::Elf::parse(file) else { return };
    let starts = elf.sections().take(64).map(|s| s.address());
    for address in starts.chain([elf.entry()]) {
        for address in [address, address.wrapping_add(16)] {
            let _ = (binary.symbol(address), binary.is_injected(address));
            let frames = source.as_ref().map(|source| source.frames(address));
            assert!(frames.is_none_or(|frames| frames.len() <= 64));
            if let Some(go) = &binary.go {
                assert!(go.frames(address).len() <= 65);
                let _ = go.frame_size(address);
            }
        }
    }
    let _ = (binary.wanted(), binary.soname());
}

/// Reads the variables at the entry point and the symbols of a file, which is the memory too.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_variables(bytes: &[u8]) {
    use object::{Object, ObjectSymbol};
    let Ok(elf) = file::Elf::parse(bytes) else { return };
    let whole = modules::LoadedModule {
        module: Module { end: u64::MAX, ..Module::default() },
        ..modules::LoadedModule::default()
    };
    let (modules, core) = ([whole], bytes.to_vec());
    let size = core.len() as u64;
    let load = crate::elf::Load { address: 0x1000, offset: 0, size };
    let memory = memory::Memory::new(&core, vec![load]);
    let binaries = [binary::open(&modules[0], &ModuleFiles::all(bytes), &memory)];
    let names = names::ModuleNames::new(&modules, &binaries);
    let process = DumpedMemory::new(&memory, &modules, &binaries);
    let options = VariableOptions { frames: 4, contents: true, hide: vec!["p*".into()] };
    let symbols = elf.symbols().map(|s| s.address()).filter(|a| *a > 0).take(8);
    for address in symbols.chain([elf.entry()]).flat_map(|a| [a, a.wrapping_add(24)]) {
        let registers = notes::Registers { pc: address, sp: 0x1100, fp: 0x1200, lr: address };
        // As if a function called itself, for what is read of calls.
        let frame = |lookup| names::RawFrame {
            address: address.wrapping_add(1),
            lookup,
            module: Some(0),
            registers,
            ..names::RawFrame::default()
        };
        let raw = [frame(address), frame(address.wrapping_sub(1))];
        assert!(tail_calls::stack(&names, &raw).len() <= 2 * 64 * 512);
        let general = (0..34).map(|n| 0x1000 + 8 * n).collect();
        let state = notes::ThreadState { general, floating: vec![0x40; 512] };
        for machine in [segments::Machine::X86_64, segments::Machine::Aarch64] {
            let thread = (machine, &state, raw.as_slice());
            let mut total = 0;
            let _ = variables::of_thread(thread, &names, process, &options, &mut |_, all| {
                total += all.iter().map(|v| v.value.len()).sum::<usize>();
                Ok::<(), ()>(())
            });
            assert!(total <= 4 << 20, "{total} bytes of values");
        }
    }
}

#[cfg(test)]
mod tests;
