//! `export`: writes a crash to one file that can be opened on any machine.

use super::announced::Announced;
use super::bundle::{Archive, Bundle};
use super::info::{open_given, places};
use super::locate::State;
use super::query::Query;
use super::{Chosen, locate, table};
use crate::corefile::files::Places;
use crate::corefile::plain::plain;
use crate::record::Record;
use crate::registry::Registry;
use crate::sys::{AsFd, file, file::NewFile};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The subject of a verb: a matching record, or a core file that the user named.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// A core file to use in place of a record.
    pub core: Option<PathBuf>,
    /// The directory that holds the container's files.
    pub sysroot: Option<PathBuf>,
}

/// Opens the core, decompressed, and finds the places of its files.
pub(super) fn open(
    chosen: &Chosen,
    query: &Query,
    subject: &Subject,
) -> Result<(File, Option<Record>, Places)> {
    if let Some(path) = &subject.core {
        let root = subject.sysroot.as_deref().map(file::open_dir).transpose()?;
        return Ok((plain(open_given(path)?)?, None, Places::usual(root, Some(&chosen.store))));
    }
    let records = chosen.records(query)?;
    let Some(record) = records.last() else {
        bail!("no crash in {} matches", chosen.store.display())
    };
    let registry = Registry::own();
    let core = match locate::open(record, registry.as_ref()) {
        Ok(core) => core,
        Err(State::Overwritten) => bail!(
            "the core of process {} is {}",
            record.pid,
            locate::overwriter(record, registry.as_ref(), &chosen.records(&Query::default())?)
        ),
        Err(State::Unreachable) => bail!(
            "the core of process {} is unreachable: the file system that it is on does not answer",
            record.pid
        ),
        Err(State::Leased) => bail!(
            "the core of process {} has a lease (fcntl(2), F_SETLEASE) that somebody in the \
             container \
             holds: try again after fs.lease-break-time seconds",
            record.pid
        ),
        Err(state) => bail!(
            "the core of process {} is {}{}",
            record.pid,
            state.word(),
            record.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()
        ),
    };
    let places = places(record, registry.as_ref(), subject.sysroot.as_deref(), &chosen.store)?;
    // The same bytes before and after it was uploaded.
    Ok((plain(core)?, Some(Record { uploaded: None, ..record.clone() }), places))
}

/// Writes the bundle, or only the core, to `output`; `-` is stdout. The file appears only when it
/// is complete: until then it has no name, or a temporary one if the file system does not support
/// unnamed files. Only its owner may read it.
pub(super) fn run(
    chosen: &Chosen,
    query: &Query,
    subject: &Subject,
    output: &Path,
    core_only: bool,
) -> Result<()> {
    let (core, record, places) = open(chosen, query, subject)?;
    if output == Path::new("-") {
        let mut out = std::io::stdout().lock();
        return if core_only {
            let mut core = Announced::new(core)?;
            core.stream_to(&mut out)?;
            say_lacking(&core);
            Ok(())
        } else {
            archive(Bundle::collect(core, record, &places)?, out, Path::new("coredump"))
        };
    }
    let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
    let top = name.to_string_lossy();
    let top = top.strip_suffix(".tar.zst").filter(|top| is_plain(top)).unwrap_or("coredump");
    write_new(output, |new| {
        if core_only {
            let mut core = Announced::new(core)?;
            core.copy_to(new)?;
            say_lacking(&core);
            Ok(())
        } else {
            archive(Bundle::collect(core, record, &places)?, new, Path::new(top))
        }
    })
}

/// Writes a fetched bundle to `output`, as it is.
pub(super) fn run_fetched(mut bundle: File, output: &Path) -> Result<()> {
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

fn say_lacking(core: &Announced) {
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
