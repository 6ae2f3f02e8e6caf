//! Identical processes that crash one after the other: one for the kernel's file mode, and one for
//! each way in which the project writes a core. The whole file is compared, including the notes.
//!
//! The way that was taken is seen from outside: what the kernel writes into the pipe counts as
//! written by the crashed process (`wchar` of proc_pid_io(5)), and its parent inherits the count.
//! The fast lane leaves the memory in the pipe unread.

use crate::{PATIENCE, narrow};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::bare::Container;
use support::core_bytes::{describe, masked};
use support::crasher::compile_as;
use support::host::Host;
use support::processes;
use support::wait::wait_for;
use tempfile::TempDir;

const SIGSEGV_AND_CORE: i32 = 11 | 0x80;

/// How a core is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the kernel.
    Kernel,
    /// By the project, as it chooses.
    Project,
    /// By the project, without a pidfd of the process: always the stream.
    Stream,
    /// By the project, below a program that disables some system calls; see `mask.c`.
    Without(&'static str),
}

/// The way that the bytes took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Fast,
    Stream,
}

/// A core, and how it was written.
pub struct Core {
    pub bytes: Vec<u8>,
    /// 512 bytes each.
    pub blocks: u64,
    /// Bytes that the kernel wrote: into the file or the pipe.
    pub sent: u64,
    pub record: Option<Value>,
}

impl Core {
    /// The way that it took. The pipe holds 16 pages, and the kernel writes page after page.
    pub fn lane(&self) -> Lane {
        let (size, full_pipe) = (self.bytes.len() as u64, 17 * processes::page_size());
        match self.sent {
            n if n >= size => Lane::Stream,
            n if n <= full_pipe.max(size / 2) => Lane::Fast,
            n => panic!("the kernel sent {n} bytes of {size}: neither way explains that"),
        }
    }
}

/// A bare container with the project's pattern, and the kernel's for comparison.
pub struct Stage {
    pub name: &'static str,
    pub container: Container,
    pub directory: TempDir,
    pub host: Host,
    ours: String,
}

impl Stage {
    pub fn new(name: &'static str, configuration: &str, annotations: &[(&str, &str)]) -> Self {
        Self::below("/var/tmp", name, configuration, annotations)
    }

    /// With the cores somewhere below a directory.
    pub fn below(
        place: &str,
        name: &'static str,
        configuration: &str,
        annotations: &[(&str, &str)],
    ) -> Self {
        let host = Host::take();
        host.install();
        host.configure(configuration);
        let directory = TempDir::with_prefix_in("lanes", place).unwrap();
        let container = Container::new(name, directory.path(), annotations);
        let ours = host.sysctl("kernel/core_pattern");
        Stage { name, container, directory, host, ours }
    }

    /// Sets what the kernel does with a crash.
    pub fn set(&self, way: Way) {
        let handle = self.ours.split_once(" handle ").expect("the dispatcher is installed").1;
        self.host.set("kernel/core_uses_pid", "0");
        let pattern = match way {
            Way::Kernel => format!("{}/kernel", self.directory.path().display()),
            Way::Project => self.ours.clone(),
            Way::Stream => self.ours.replace(" %F ", " - "),
            Way::Without(what) => {
                std::fs::copy(compile_as("mask", include_str!("mask.c"), &["-static"]), MASK)
                    .unwrap();
                format!("|{MASK} {what} {handle}")
            }
        };
        self.host.set("kernel/core_pattern", &pattern);
    }

    /// Lets a copy of the template crash, and takes its core away. `ready`
    /// runs before the copy dies.
    pub fn core(&self, template: &mut Template, way: Way, ready: impl FnOnce(Pid)) -> Option<Core> {
        self.set(way);
        let before = written(template.child.id());
        let pid = template.copy();
        ready(pid);
        let status = template.end();
        let path = if way == Way::Kernel {
            self.directory.path().join("kernel")
        } else {
            self.directory.path().join("core.1")
        };
        let record = (way != Way::Kernel).then(|| self.complete(pid));
        assert_eq!(status & 0x7f, SIGSEGV_AND_CORE & 0x7f, "{way:?}: wait status {status:#x}");
        let found = std::fs::metadata(&path).ok()?;
        assert_eq!(status, SIGSEGV_AND_CORE, "{way:?}: wait status");
        let core = Core {
            bytes: std::fs::read(&path).unwrap(),
            blocks: found.blocks(),
            sent: written(template.child.id()) - before,
            record,
        };
        std::fs::remove_file(path).unwrap();
        Some(core)
    }

    /// The record of a crash, once it is complete.
    pub fn complete(&self, pid: Pid) -> Value {
        let pid = pid.as_raw_nonzero().get().cast_unsigned();
        assert!(self.host.record_of(self.name, pid).is_some(), "no record of process {pid}");
        self.host.complete_record(self.name, pid)
    }

    /// The kernel's core, the stream's and the one of `way` are the same;
    /// and which lane `way` took.
    pub fn same(&self, template: &mut Template, way: Way, ready: impl Fn(Pid)) -> Lane {
        let what = format!("{}, {way:?}", template.what);
        let [kernel, stream, ours] = [Way::Kernel, Way::Stream, way].map(|way| {
            self.core(template, way, &ready).unwrap_or_else(|| panic!("{what}: no core"))
        });
        assert_eq!(stream.lane(), Lane::Stream, "{what}: it cannot be forced");
        assert_same(&kernel, &stream, &format!("{what}: kernel and stream"));
        assert_same(&kernel, &ours, &format!("{what}: kernel and project"));
        assert_eq!(ours.record.as_ref().unwrap()["outcome"], "written", "{what}");
        ours.lane()
    }
}

/// The same bytes; and no more blocks than the kernel's.
pub fn assert_same(kernel: &Core, ours: &Core, what: &str) {
    let wide = kernel.bytes[4] == 2;
    let mask = if wide { masked } else { narrow::masked };
    assert_eq!(kernel.bytes.len(), ours.bytes.len(), "{what}: size");
    let (one, two) = (mask(&kernel.bytes), mask(&ours.bytes));
    if one != two {
        let differ = (0..one.len()).filter(|at| one[*at] != two[*at]);
        // The words that differ, of which the first few say enough.
        let words: BTreeSet<usize> = differ.map(|at| at & !7).collect();
        let word = |bytes: &[u8], at| bytes[at..].iter().take(8).copied().collect::<Vec<u8>>();
        let shown = words.iter().take(8).map(|&at| {
            let place = if wide { describe(&one, at) } else { String::new() };
            format!("{at} ({place}): {:02x?} and {:02x?}", word(&one, at), word(&two, at))
        });
        let shown = shown.collect::<Vec<_>>().join("\n");
        panic!("{what}: {} words of 8 bytes differ:\n{shown}", words.len());
    }
    // The file system's own bookkeeping of a file with many holes.
    assert!(
        ours.blocks <= kernel.blocks + 64,
        "{what}: {} blocks, the kernel's file has {}",
        ours.blocks,
        kernel.blocks
    );
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(MASK);
    }
}

/// Short, since the kernel has 127 bytes for all of the pattern.
const MASK: &str = "/run/oci-mask";

/// A process that copies itself; see `template.c`.
pub struct Template {
    child: Child,
    output: UnixStream,
    what: String,
}

impl Template {
    pub fn start(container: &Container, kind: &str, argument: &str) -> Self {
        Self::of(container, &program(), kind, argument)
    }

    pub fn of(container: &Container, program: &Path, kind: &str, argument: &str) -> Self {
        let mut command = container.command();
        // The kernel writes to each thread's block whenever the thread runs
        // (rseq(2)), so it is never the same.
        command.args([
            "env",
            "--ignore-environment",
            "GLIBC_TUNABLES=glibc.pthread.rseq=0",
            "setarch",
            "--addr-no-randomize",
        ]);
        command.arg(program).args([kind, argument]);
        let (output, its) = UnixStream::pair().unwrap();
        let child =
            command.stdin(Stdio::piped()).stdout(OwnedFd::from(its)).spawn().expect("nsenter");
        Template { child, output, what: format!("{kind} {argument}") }
    }

    /// Makes a copy, and returns it when it waits to be told to crash.
    pub fn copy(&mut self) -> Pid {
        self.say(b'c');
        let template = self.child.id() as i32;
        wait_for(&format!("{}: that the copy rests", self.what), PATIENCE, || {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "{}: the template has gone",
                self.what
            );
            // The youngest of its line: a copy may have made one of its own.
            let mut at = template;
            while let Some(child) = processes::child(at) {
                at = child;
            }
            if at != template && rests(at) { Pid::from_raw(at) } else { None }
        })
    }

    /// Sends a command byte.
    pub fn say(&mut self, word: u8) {
        self.child.stdin.as_mut().unwrap().write_all(&[word]).unwrap();
    }

    /// Sends the command to crash, and waits for the end.
    pub fn end(&mut self) -> i32 {
        self.say(b'g');
        self.wait()
    }

    /// The raw wait status of the copy.
    pub fn wait(&mut self) -> i32 {
        let mut status = [0; 4];
        self.output.read_exact(&mut status).unwrap_or_else(|e| panic!("{}: {e}", self.what));
        let status = i32::from_ne_bytes(status);
        // Of a copy that shares its memory with a living process: what that one saw.
        if status & 0xff == 0 && status >> 8 > 100 { ((status >> 8) - 100) | 0x80 } else { status }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The template as a static program.
pub fn program() -> PathBuf {
    compile_as("template", include_str!("template.c"), &["-static", "-pthread"])
}

/// Whether the kernel gives memory that a process itself cannot read to others than its debugger
/// (`proc_mem.force_override`, Linux 6.12). Where it does not, only the stream has such memory.
pub fn inaccessible_is_given() -> bool {
    Command::new(program()).arg("given").status().unwrap().success()
}

/// All that a process has written, and the children that it has waited for.
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))
        .expect("a kernel that counts I/O (CONFIG_TASK_XACCT)");
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// The leader waits for its word in read(0), and all other threads sleep too.
fn rests(pid: i32) -> bool {
    // Of 64-bit and of 32-bit programs.
    let calls =
        if cfg!(target_arch = "aarch64") { ["63 0x0 ", "3 0x0 "] } else { ["0 0x0 ", "3 0x0 "] };
    let reading = std::fs::read_to_string(format!("/proc/{pid}/syscall"))
        .is_ok_and(|said| calls.iter().any(|call| said.starts_with(call)));
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let state = |task: PathBuf| {
        std::fs::read(task.join("stat"))
            .ok()
            .and_then(|stat| stat.get(stat.iter().rposition(|b| *b == b')')? + 2).copied())
    };
    reading && tasks.filter_map(Result::ok).all(|task| state(task.path()) == Some(b'S'))
}

/// Sets a limit of a copy, soft only.
pub fn limit(pid: Pid, resource: Resource, bytes: u64) {
    let old = rustix::process::prlimit(
        Some(pid),
        resource,
        Rlimit { current: Some(bytes), maximum: None },
    )
    .unwrap();
    assert_eq!(old.maximum, None, "the hard limit");
}

/// Sets a copy's coredump_filter.
pub fn filter(pid: Pid, mask: u32) {
    std::fs::write(format!("/proc/{}/coredump_filter", pid.as_raw_nonzero()), format!("{mask:#x}"))
        .unwrap();
}

/// Removes the limits that this test was started under.
pub fn unlimited(pid: Pid) {
    for resource in [Resource::Core, Resource::Fsize] {
        prlimit(Some(pid), resource, Rlimit { current: None, maximum: None }).unwrap();
    }
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
