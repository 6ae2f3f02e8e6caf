//! `--debuginfod`: what is not on this machine, from servers that have it by build-id.
//!
//! `oci-coredump-ship` has the network and, if root starts this, no rights: a process for each file
//! and server, which writes what comes into a pipe. A file is used, and kept, if a sandboxed reader
//! finds the build-id in it that was asked for.

mod settings;

use super::remote;
use super::selection::Chosen;
use crate::config::Config;
use crate::corefile::files::{FileKind, Servers};
use crate::corefile::reader;
use crate::report::one_line;
use crate::store::fetched::{CacheState, Fetched};
use crate::sys::new_file::NewFile;
use crate::sys::{descriptor, file, kernel, pidfd, user};
use anyhow::{Context, Result, bail, ensure};
use settings::Settings;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where a file is kept while it is used, if there is no cache. Never taken from the environment.
const PLACE: &str = "/var/tmp";
/// Exit status: the server does not have it.
const NOT_THERE: i32 = 3;
/// How much longer than it should the program may take until it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Environment variables that it gets: proxies and certificates.
const KEPT: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Whether servers are asked.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Debuginfod {
    /// Fetch debug information and executables that are not found from the servers in
    /// DEBUGINFOD_URLS, else those of the configuration. They learn which programs crash.
    #[arg(long)]
    pub debuginfod: bool,
}

impl Debuginfod {
    /// The servers, if they are to be asked. `chosen`: the store, which keeps what they give.
    pub(super) fn servers(self, chosen: &Chosen) -> Option<Box<dyn Servers>> {
        let config = Config::load_or_default().debuginfod;
        if !self.debuginfod && !config.enabled {
            return None;
        }
        let cache = chosen.fetched().unwrap_or_else(|e| {
            log::warn!("debuginfod: nothing is kept of what is fetched: {e:#}");
            None
        });
        let settings = Settings::new(config, |name| std::env::var(name).ok());
        for problem in &settings.problems {
            log::warn!("debuginfod: {}", one_line(problem));
        }
        Some(Box::new(Fetcher { cache, settings, failed: RefCell::default() }))
    }
}

/// Asks the servers one after the other.
#[derive(Debug)]
struct Fetcher {
    cache: Option<Fetched>,
    settings: Settings,
    /// Servers that did not answer: they are not asked again.
    failed: RefCell<BTreeSet<String>>,
}

/// What a server said.
enum Answer {
    Whole,
    NotThere,
    /// It was said why.
    Failed,
}

impl Servers for Fetcher {
    fn fetch(&self, kind: FileKind, build_id: &str, path: &str) -> Option<File> {
        let what = || format!("{} of {} ({build_id})", kind.name(), one_line(path));
        match self.known(kind, build_id) {
            CacheState::Here(file) => return Some(file),
            CacheState::Absent => {
                log::warn!("debuginfod: no server had the {} a short time ago", what());
                return None;
            }
            CacheState::Unknown => {}
        }
        self.fetch_new(kind, build_id, &what).unwrap_or_else(|e| {
            log::warn!("debuginfod: {}: {e:#}, going on without it", what());
            None
        })
    }
}

impl Fetcher {
    fn known(&self, kind: FileKind, build_id: &str) -> CacheState {
        self.cache.as_ref().map_or(CacheState::Unknown, |cache| cache.find(kind, build_id))
    }

    fn fetch_new(
        &self,
        kind: FileKind,
        build_id: &str,
        what: &dyn Fn() -> String,
    ) -> Result<Option<File>> {
        let mut is_absent = !self.settings.urls.is_empty();
        for url in &self.settings.urls {
            if self.failed.borrow().contains(url) {
                is_absent = false;
                continue;
            }
            let place = self.place()?;
            match self.ask(url, kind, build_id, place.file())? {
                Answer::NotThere => {}
                Answer::Failed => is_absent = false,
                Answer::Whole => match reader::build_id(place.file()) {
                    Ok(Some(id)) if id == build_id => {
                        return self.keep(place, kind, build_id).map(Some);
                    }
                    found => {
                        is_absent = false;
                        let why = match found {
                            Ok(Some(id)) => format!("it has the build-id {id}"),
                            Ok(None) => "it is no ELF file with a build-id".to_owned(),
                            Err(e) => format!("it cannot be read: {e:#}"),
                        };
                        log::warn!("debuginfod: the {} from {url} is not used: {why}", what());
                    }
                },
            }
        }
        if is_absent {
            log::warn!("debuginfod: no server has the {}", what());
            let noted = self.cache.as_ref().map(|cache| cache.note_absent(kind, build_id));
            noted.transpose()?;
        }
        Ok(None)
    }

    /// Where what comes is written.
    fn place(&self) -> Result<Place> {
        match &self.cache {
            Some(cache) => {
                let config = &self.settings.config;
                cache.make_room(config.max_unused, config.max_total, 0)?;
                cache.create().map(Place::Cache)
            }
            None => Ok(Place::Temporary(tempfile::tempfile_in(PLACE)?)),
        }
    }

    fn keep(&self, place: Place, kind: FileKind, build_id: &str) -> Result<File> {
        let file = place.file().try_clone().context("dup")?;
        if let (Place::Cache(new), Some(cache)) = (place, &self.cache) {
            let config = &self.settings.config;
            let size = file::stat(&file)?.allocated;
            cache.make_room(config.max_unused, config.max_total, size)?;
            cache.keep(new, kind, build_id)?;
        }
        Ok(file)
    }

    /// Asks a server, and writes what it has to `to`.
    fn ask(&self, url: &str, kind: FileKind, build_id: &str, to: &File) -> Result<Answer> {
        let settings = &self.settings;
        let room = kernel::free_bytes(&descriptor_path(to)).unwrap_or(1 << 30) / 2;
        let most = settings.max_size.min(room);
        let program = remote::program();
        let shown = || format!("start {}", program.display());
        // By its descriptor: it may be in a directory that only root can enter.
        let opened = File::open(&program).with_context(shown)?;
        let mut command = Command::new(descriptor_path(&opened));
        command
            .arg0(program.file_name().unwrap_or_default())
            .arg("fetch-debuginfo")
            .args(["--max-size", &most.to_string()])
            .args(["--timeout", &settings.timeout.to_string()])
            .args(["--max-time", &settings.max_time.to_string()])
            .args(["--retries", &settings.retries.to_string()])
            .args(settings.headers.iter().flat_map(|path| ["--headers", path]))
            .args(["--", url, kind.name(), build_id])
            .env_clear()
            .envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if user::is_host_root() {
            command.uid(user::reserved::FETCHER).gid(user::reserved::FETCHER);
        }
        let mut child = command.spawn().with_context(shown)?;
        let received =
            receive(&mut child, to, most, Duration::from_secs(settings.max_time) + GRACE);
        if received.is_err() {
            let _ = child.kill();
        }
        let code = end(&mut child)?;
        let bytes = received?;
        Ok(match code {
            Some(0) => Answer::Whole,
            Some(NOT_THERE) => Answer::NotThere,
            _ => {
                // One that sends something may send something else next time.
                if bytes == 0 {
                    self.failed.borrow_mut().insert(url.to_owned());
                }
                Answer::Failed
            }
        })
    }
}

/// An open file's path for this process and those that it starts.
fn descriptor_path(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// Copies what the program writes. Returns how many bytes that were.
fn receive(child: &mut Child, mut to: &File, most: u64, time: Duration) -> Result<u64> {
    let from = child.stdout.take().context("its output")?;
    let end = Instant::now() + time;
    let mut buffer = vec![0; 64 << 10];
    let mut all = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || !descriptor::wait_readable(&from, Some(left))? {
            bail!("it was not complete after {} seconds", time.as_secs());
        }
        let n = descriptor::read(&from, &mut buffer).context("read")?;
        if n == 0 {
            break;
        }
        all += n as u64;
        ensure!(all <= most, "it has more than {most} bytes, which are the most");
        to.write_all(&buffer[..n]).context("write")?;
    }
    to.rewind().context("lseek")?;
    Ok(all)
}

/// The exit status of the program, which has closed its output, or was killed.
fn end(child: &mut Child) -> Result<Option<i32>> {
    let pidfd = pidfd::open(child.id() as i32)?;
    if !descriptor::wait_readable(&pidfd, Some(GRACE))? {
        let _ = child.kill();
    }
    Ok(child.wait().context("wait")?.code())
}

/// A file without a name, as yet or for ever.
enum Place {
    Cache(NewFile),
    Temporary(File),
}

impl Place {
    fn file(&self) -> &File {
        match self {
            Place::Cache(new) => new.file(),
            Place::Temporary(file) => file,
        }
    }
}
