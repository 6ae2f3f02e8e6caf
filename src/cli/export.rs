//! `export`: writes a crash to one file that can be opened on any machine.

use super::announced::Announced;
use super::archive::Archive;
use super::bundle::Bundle;
use super::remote;
use super::selection::{MATCH, Which};
use super::subject::{self, Subject};
use super::table;
use crate::corefile::files::SearchPaths;
use crate::record::Record;
use crate::sys::{AsFd, file, file::NewFile};
use anyhow::{Context, Result};
use std::fs::File;
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
    /// Write to this file; - is stdout.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write only the core, decompressed.
    #[arg(long)]
    core_only: bool,
}

/// Writes the bundle, or only the core, to `output`; `-` is stdout. The file appears only when it
/// is complete: until then it has no name, or a temporary one if the file system does not support
/// unnamed files. Only its owner may read it.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(url) = args.which.url().filter(|_| !args.core_only) {
        return run_fetched(remote::fetch(url)?, &args.output).map(|()| ExitCode::SUCCESS);
    }
    let (chosen, query) = args.which.choose()?;
    let (core, record, paths) = subject::open(&chosen, &query, &args.from)?;
    let (output, core_only) = (args.output.as_path(), args.core_only);
    write(core, record, &paths, output, core_only).map(|()| ExitCode::SUCCESS)
}

fn write(
    core: File,
    record: Option<Record>,
    paths: &SearchPaths,
    output: &Path,
    core_only: bool,
) -> Result<()> {
    if output == Path::new("-") {
        let mut out = std::io::stdout().lock();
        return if core_only {
            let mut core = Announced::new(core)?;
            core.stream_to(&mut out)?;
            warn_if_shortened(&core);
            Ok(())
        } else {
            archive(Bundle::collect(core, record, paths)?, out, Path::new("coredump"))
        };
    }
    let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
    let top = name.to_string_lossy();
    let top = top.strip_suffix(".tar.zst").filter(|top| is_plain(top)).unwrap_or("coredump");
    write_new(output, |new| {
        if core_only {
            let mut core = Announced::new(core)?;
            core.copy_to(new)?;
            warn_if_shortened(&core);
            Ok(())
        } else {
            archive(Bundle::collect(core, record, paths)?, new, Path::new(top))
        }
    })
}

/// Writes a fetched bundle to `output`, as it is.
fn run_fetched(mut bundle: File, output: &Path) -> Result<()> {
    if output == Path::new("-") {
        std::io::copy(&mut bundle, &mut std::io::stdout().lock()).context("write")?;
        return Ok(());
    }
    write_new(output, |mut file| Ok(std::io::copy(&mut bundle, &mut file).map(drop)?))
}

/// Makes the file `output` with what `write` puts into it. It appears when it is complete.
pub(super) fn write_new(output: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
    let dir = output.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    let dir = file::open_dir(dir)?;
    let new = NewFile::create(dir.as_fd())
        .with_context(|| format!("create a file for {}", output.display()))?;
    write(new.file()).with_context(|| format!("write {}", output.display()))?;
    new.name(name).with_context(|| format!("rename to {}", output.display()))
}

fn is_plain(top: &str) -> bool {
    !matches!(top, "" | "." | "..") && !top.chars().any(crate::sys::text::is_deceptive)
}

fn warn_if_shortened(core: &Announced) {
    if core.lacking > 0 {
        log::warn!(
            "export: the core was made shorter while it was read: {} of its {} bytes are zeros \
             here",
            core.lacking,
            core.size
        );
    }
}

fn archive(bundle: Bundle, out: impl Write, top: &Path) -> Result<()> {
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
