//! `export`: writes a crash to one file that can be opened on any machine.

use super::announced::Announced;
use super::archive::Archive;
use super::crash_bundle::CrashBundle;
use super::debuginfod::Debuginfod;
use super::selection::{MATCH, Which};
use super::source::{CrashSource, Packed};
use super::subject::{self, Opened, Subject};
use super::table;
use super::target_file::TargetFile;
use super::usage::WrongUsage;
use crate::config::KeptMemory;
use crate::sys::file;
use anyhow::{Result, bail};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Write a crash to one file: core, record, executable, libraries, and a script that opens
/// them in gdb on any machine.
///
/// The file is a tar archive, compressed with zstd. The same crash gives the same bytes, and
/// holes in the core stay holes. Only its owner may read it.
///
/// Example: oci-coredump export nginx -o nginx.tar.zst
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    from: Subject,
    #[command(flatten)]
    target: TargetFile,
    #[command(flatten)]
    debuginfod: Debuginfod,
    /// Write only the core, decompressed.
    #[arg(long)]
    core_only: bool,
    /// Make a small core: only stacks, global variables, and what registers and stacks point to,
    /// within bounds; with `stacks-only` nothing of the heap. gdb shows the same stacks in it.
    #[arg(
        long,
        value_name = "WHAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "stacks",
        value_parser = ["stacks", "stacks-only"],
    )]
    small: Option<String>,
}

impl Args {
    /// How much of the memory the core is to have.
    fn keep(&self) -> KeptMemory {
        match self.small.as_deref() {
            None => KeptMemory::All,
            Some("stacks-only") => KeptMemory::StacksOnly,
            Some(_) => KeptMemory::Stacks,
        }
    }
}

/// Writes the bundle, or only the core. Only the owner of the file may read it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    args.target.check_binary()?;
    let debuginfod = args.debuginfod;
    let others = [
        ("--sysroot", args.from.sysroot.is_some()),
        ("--core-only", args.core_only),
        ("--debuginfod", debuginfod.debuginfod),
    ];
    match args.which.source(&others)? {
        CrashSource::Packed(packed) if args.small.is_some() => {
            file::set_umask(0o077);
            let (_dir, subject) = packed.subject()?;
            write(subject, args)?;
        }
        CrashSource::Packed(packed @ Packed::Bundle(_)) => bail!(WrongUsage(format!(
            "{} is what export writes already: tar --zstd -xf unpacks it",
            packed.name()
        ))),
        CrashSource::Packed(packed @ Packed::Url(_)) => {
            let mut bundle = packed.open()?;
            args.target.write(|out| Ok(std::io::copy(&mut bundle, out).map(drop)?))?;
        }
        CrashSource::Records(chosen, query) => {
            write(subject::open(&chosen, &query, &args.from, debuginfod)?, args)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(subject: Opened, args: &Args) -> Result<()> {
    let subject = subject.keeping(args.keep())?;
    match args.core_only {
        true => write_core(Announced::new(subject.core)?, &args.target),
        false => {
            let bundle = CrashBundle::collect(subject)?;
            args.target.write(|out| archive(bundle, out, &top(&args.target.output)))
        }
    }
}

/// Writes the core alone; holes stay holes in a file.
fn write_core(mut core: Announced, target: &TargetFile) -> Result<()> {
    match target.is_stream() {
        true => target.write(|out| core.stream_to(out))?,
        false => target.make(|new| core.copy_to(new))?,
    }
    if let Some(words) = core.shortened(&"export: the core") {
        log::warn!("{words}");
    }
    Ok(())
}

/// The name of the bundle's directory.
fn top(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".tar.zst").filter(|top| is_plain(top)).unwrap_or("coredump").into()
}

fn is_plain(top: &str) -> bool {
    !matches!(top, "" | "." | "..") && !top.chars().any(crate::sys::text::is_deceptive)
}

fn archive(bundle: CrashBundle, out: impl Write, top: &Path) -> Result<()> {
    for path in &bundle.lacking {
        log::warn!(
            "export: {path:?}: the file that was mapped is not found, the bundle goes without it"
        );
    }
    let total = bundle.size();
    let encoder = zstd::stream::write::Encoder::new(out, 3)?;
    let mut archive = Archive::new(
        Progress { out: encoder, done: 0, total, last: Instant::now(), shown: false },
        top,
    );
    bundle.write(&mut archive, false)?;
    let progress = archive.finish()?;
    progress.clear();
    progress.out.finish()?.flush()?;
    Ok(())
}

/// Shows the progress on a terminal, at most a few times a second.
struct Progress<W> {
    out: W,
    done: u64,
    total: u64,
    last: Instant,
    shown: bool,
}

impl<W> Progress<W> {
    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

impl<W: Write> Write for Progress<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.done += n as u64;
        if self.last.elapsed() > Duration::from_millis(200) && std::io::stderr().is_terminal() {
            // Holes are not written, so this may end below 100 %.
            eprint!(
                "\rexport: {} of at most {}\x1b[K",
                table::size(self.done),
                table::size(self.total)
            );
            (self.last, self.shown) = (Instant::now(), true);
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
