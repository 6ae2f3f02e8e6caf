//! What reading a core gives: plain values, which the sandboxed reader sends to its caller.

use super::hex;
use super::links::NeededFile;
use super::package::Package;
use super::signal::Signal;
use serde::{Deserialize, Serialize};

/// What the core alone says, without any other file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Overview {
    /// Architecture: `x86-64` or `AArch64`.
    pub machine: String,
    /// Process ID in the crasher's own PID namespace.
    pub pid: i32,
    /// comm of the process, from NT_PRPSINFO.
    pub comm: String,
    /// Its command line, as far as NT_PRPSINFO has it (80 bytes).
    pub arguments: String,
    /// The signal that it died of.
    pub signal: Option<Signal>,
    /// The general registers of the thread that crashed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "hex::named")]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, String>"))]
    pub registers: Vec<(String, u64)>,
    /// Number of threads.
    pub threads: usize,
    /// Bytes of memory that the core announces but the file does not have.
    pub missing: u64,
    /// Mapped files with code, the executable first.
    pub modules: Vec<Module>,
}

/// A mapped file with code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Module {
    /// Its path in the container when it was mapped, with control characters escaped.
    pub path: String,
    /// Build-id in hexadecimal, if its first page is in the core and has one.
    pub build_id: Option<String>,
    /// The package that it is of, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Lowest mapped address.
    #[serde(with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub start: u64,
    /// One past the highest mapped address.
    #[serde(with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub end: u64,
}

/// Whether a module's file is the one that was mapped, as the sandboxed reader found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Match {
    /// Not looked for, or not found.
    #[default]
    Absent,
    /// It has the same build-id.
    Same,
    /// Neither the core nor the file has a build-id.
    Unproven,
    /// It has another build-id, and is not used.
    Other,
    /// It is not a readable ELF file, and is not used.
    Damaged,
}

/// Stands for the frame of a signal handler's caller, in gdb's words.
pub(crate) const TRAMPOLINE: &str = "<signal handler called>";

/// A function on a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Frame {
    /// Where the thread was, or, for all frames but the first, the return address.
    #[serde(with = "hex")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub address: u64,
    /// Function, demangled, if a symbol covers the address.
    pub function: Option<String>,
    /// Source file, from the debug information.
    pub file: Option<String>,
    /// Line in the source file.
    pub line: Option<u32>,
    /// Whether it is inlined into the next frame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
    /// Whether it went on by a jump to the frame before, and has no frame of its own any more: the
    /// address is that behind the jump.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tail_call: bool,
    /// Index in [`Overview::modules`].
    pub module: Option<usize>,
    /// Offset in the module's file image: the address minus the load bias.
    #[serde(default, with = "hex::option")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub offset: Option<u64>,
    /// Its arguments and local variables. `info --full` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
}

/// A variable of a function, as debug information has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Variable {
    /// Its name.
    pub name: String,
    /// What its type is called.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its value in words, of bounded length.
    pub value: String,
    /// Whether it is an argument; else it is a local variable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub argument: bool,
}

/// The stack of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ThreadStack {
    /// Thread ID in the crasher's own PID namespace.
    pub tid: i32,
    /// Its functions, the innermost first.
    pub frames: Vec<Frame>,
    /// Why the stack may go on after the last frame.
    pub cut: Option<String>,
}

/// The stack of a goroutine that does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GoroutineStack {
    /// Its number.
    pub id: u64,
    /// What it waits for, in the words of Go's runtime, such as `chan receive`.
    pub state: String,
    /// Its functions, the innermost first.
    pub frames: Vec<Frame>,
    /// Why the stack may go on after the last frame.
    pub cut: Option<String>,
}

/// A partial result of [`super::stacks`], in the order in which they are reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PartialResult {
    /// For each module, whether its file is the one that was mapped.
    Matches(Vec<Match>),
    /// DT_SONAME of each module.
    Sonames(Vec<Option<String>>),
    /// The stack of one thread.
    Thread(ThreadStack),
    /// The stack of a goroutine that does not run.
    Goroutine(GoroutineStack),
    /// How many goroutines there are besides.
    MoreGoroutines(usize),
    /// The variables of a frame of the first thread, by the index of the frame.
    Variables(usize, Vec<Variable>),
    /// Files that are needed and were not given.
    Needed(Vec<NeededFile>),
    /// Nothing more follows, for this reason.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        let frame = Frame { address: u64::MAX, offset: None, ..Frame::default() };
        let registers = vec![("rip".to_owned(), 0x1234), ("rax".to_owned(), 0)];
        let overview = Overview { registers, ..Overview::default() };
        let text = serde_json::to_string(&(&frame, &overview)).unwrap();
        assert!(text.contains(r#""address":"0xffffffffffffffff""#), "{text}");
        assert!(text.contains(r#""registers":{"rip":"0x1234","rax":"0x0"}"#), "{text}");
        assert_eq!(serde_json::from_str::<(Frame, Overview)>(&text).unwrap(), (frame, overview));
        assert!(serde_json::from_str::<Frame>(&text.replace("0xf", "f")).is_err());
    }
}
