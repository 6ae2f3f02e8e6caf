//! What a core file says: who died, of what, and where each thread was.
//!
//! ```text
//! file --image--> Image --overview--> Overview    what the core alone says: signal, program,
//!                   |                             threads, modules with their build-ids
//!                   +--walk (framehop)--> frames --binary (addr2line, object)--> ThreadStack
//!                                                 one for each thread, the crashing one first
//! ```
//!
//! The core and the binaries are hostile: everything here but `reader` and `files` runs in
//! [`crate::sys::sandbox`], and gives back plain values, or an error that says what is wrong with the
//! file. `reader` starts the jails, `files` finds the binaries for them.

mod binary;
mod identity;
mod image;
mod memory;
mod modules;
mod notes;
mod signal;
mod walk;

pub mod files;
pub mod plain;
pub mod reader;

pub use identity::{build_id, is_name, name};
pub use image::{Image, Source};
pub use signal::Signal;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What the core alone says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// `x86-64`, `AArch64`.
    pub machine: String,
    /// Process ID in the crasher's PID namespace.
    pub pid: i32,
    /// comm of the process, from NT_PRPSINFO.
    pub comm: String,
    /// Its command line as far as NT_PRPSINFO has it (80 bytes).
    pub arguments: String,
    /// The signal that killed it.
    pub signal: Option<Signal>,
    /// Threads.
    pub threads: usize,
    /// Bytes of memory that the core should have and the file has not.
    pub missing: u64,
    /// Files with code that were mapped, the executable first.
    pub modules: Vec<Module>,
}

/// A mapped file with code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its path in the container when it was mapped; control characters escaped.
    pub path: String,
    /// Build-id in hexadecimal, if its first page is in the core and has one.
    pub build_id: Option<String>,
    /// Lowest address.
    pub start: u64,
    /// One past the highest.
    pub end: u64,
}

/// What became of the search for a module's file, as the jailed reader found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// Not looked for, or not found.
    #[default]
    Absent,
    /// The same build-id.
    Same,
    /// Neither the core nor the file says a build-id.
    Unproven,
    /// Another build-id: not used.
    Other,
    /// Not an ELF file that we can read: not used.
    Damaged,
}

/// What stands on a stack where a signal handler was called, in gdb's words.
pub const TRAMPOLINE: &str = "<signal handler called>";

/// A function on a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Where it was; for all but the first the address it would have returned to.
    pub address: u64,
    /// Function, demangled, if a symbol covers the address.
    pub function: Option<String>,
    /// Source file, from the debug information.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// Whether the compiler put it into the next one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
    /// Which of [`Overview::modules`].
    pub module: Option<usize>,
    /// Offset in the module's file image: address less the load bias.
    pub offset: Option<u64>,
}

/// The stack of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStack {
    /// Thread ID in the crasher's PID namespace.
    pub tid: i32,
    /// The innermost function first.
    pub frames: Vec<Frame>,
    /// Why the stack may go on where `frames` ends.
    pub cut: Option<String>,
}

/// Reads what the core alone says.
///
/// # Errors
/// It is no core that we can read, and why.
pub fn overview(source: &dyn Source) -> Result<Overview> {
    let image = Image::parse(source)?;
    let modules = modules::of(&image);
    Ok(Overview {
        machine: image.machine.to_string(),
        comm: image.notes.comm.clone(),
        arguments: image.notes.arguments.clone(),
        pid: image.notes.pid,
        signal: image.notes.signal.clone().map(|s| s.of_process(image.notes.pid)),
        threads: image.notes.threads.len(),
        missing: image.missing(),
        modules: modules.into_iter().map(|m| m.said).collect(),
    })
}

/// A module's file and its separate debug information, mapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes<'d> {
    /// The file itself.
    pub file: Option<&'d [u8]>,
    /// Its debug information, where that is a file of its own.
    pub debug: Option<&'d [u8]>,
}

/// Follows the stack of every thread. `bytes` are those of [`Overview::modules`], in that order.
/// `tell` gets the verdict on each of them, then each thread.
///
/// # Errors
/// It is no core that we can read, or `tell` failed.
pub fn stacks(
    source: &dyn Source,
    bytes: &[Bytes<'_>],
    tell: &mut dyn FnMut(Told) -> Result<()>,
) -> Result<()> {
    let image = Image::parse(source)?;
    let modules = modules::of(&image);
    let binaries: Vec<_> = modules
        .iter()
        .enumerate()
        .map(|(i, m)| binary::open(m, bytes.get(i).copied().unwrap_or_default()))
        .collect();
    tell(Told::Matches(binaries.iter().map(|b| b.verdict).collect()))?;
    tell(Told::Sonames(binaries.iter().map(|b| b.soname()).collect()))?;
    let mut walker = walk::Walker::new(&image, &modules, &binaries);
    let lines = binary::Lines::new(binaries.len());
    for thread in &image.notes.threads {
        let walked = walker.walk(thread);
        let frames = walked
            .frames
            .iter()
            .flat_map(|place| lines.describe(place, &modules, &binaries))
            .collect();
        tell(Told::Thread(ThreadStack { tid: thread.tid, frames, cut: walked.cut }))?;
    }
    Ok(())
}

/// What [`stacks`] tells, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Whether the files are the ones that were mapped.
    Matches(Vec<Match>),
    /// DT_SONAME of each of them.
    Sonames(Vec<Option<String>>),
    /// One thread.
    Thread(ThreadStack),
    /// Nothing more comes, and why.
    Failed(String),
}

#[cfg(test)]
mod tests;
