//! The loop: finds crashes that are to be uploaded, and tries each until it is.

use crate::config::{Config, Upload};
use crate::memory::Memory;
use crate::record::Record;
use crate::ship::{Shop, ship};
use crate::source::Helper;
use crate::state::{States, Uploaded};
use crate::target::Target;
use crate::tell::Tellers;
use crate::upload::{Pace, told};
use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the directory of the records is read.
const EVERY: Duration = Duration::from_secs(3);
/// The first and the longest wait after a failure.
const WAIT: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(600)];

/// A crash that could not be uploaded yet.
struct Failed {
    times: u32,
    next: Instant,
}

/// Twice as long each time, less a random part, up to half of it, so that nodes do not come all at
/// once.
fn wait(times: u32) -> Duration {
    let whole = WAIT[0].saturating_mul(1 << times.min(16)).min(WAIT[1]);
    whole.mul_f64(rand::random_range(0.5..1.0))
}

/// What is to be done with a record.
enum Todo {
    /// Not yet, or it cannot be read.
    Later,
    /// Nothing, whatever happens.
    Nothing,
    /// It is to be uploaded.
    Upload(Box<Record>),
}

fn todo(path: &Path, upload: &Upload) -> Todo {
    match Record::load(path) {
        Ok(Some(record)) if !record.is_settled(jiff::Timestamp::now()) => Todo::Later,
        Ok(Some(record)) if !record.is_selected(&upload.select) => Todo::Nothing,
        Ok(Some(record)) => Todo::Upload(Box::new(record)),
        Ok(None) => Todo::Later,
        Err(e) => {
            log::debug!("{e:#}");
            Todo::Later
        }
    }
}

/// The signals that this program takes.
struct Signals {
    end: [Signal; 2],
    again: Signal,
}

impl Signals {
    fn take() -> Result<Self> {
        let end = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Ok(Signals { end, again: signal(SignalKind::hangup())? })
    }

    /// The next one.
    async fn next(&mut self) -> Ending {
        let Signals { end: [terminate, interrupt], again } = self;
        tokio::select! {
            _ = terminate.recv() => Ending::End,
            _ = interrupt.recv() => Ending::End,
            _ = again.recv() => Ending::Again,
        }
    }
}

/// Why uploading has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It was told to, or with `once` all is done.
    End,
    /// The configuration is to be read again.
    Again,
}

/// What changes when a file is written: inode, size, time of the change.
fn version(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}

/// Uploads as the file `path` says until a signal comes; with `once` until each crash has been
/// tried. A file that has changed, or SIGHUP, makes it begin anew: an upload that is on its way
/// goes on where it was.
///
/// # Errors
/// The configuration, the state or the storage cannot be used; with `once` also: a crash could not
/// be uploaded. A configuration that is wrong later is logged, and nothing is uploaded meanwhile.
pub(crate) async fn run(path: &Path, node: String, once: bool) -> Result<()> {
    let mut signals = Signals::take()?;
    let mut seen = version(path);
    let mut config = Config::load(path)?;
    loop {
        let changed = || !once && version(path) != seen;
        if uploads(config, &node, once, &mut signals, &changed).await? == Ending::End {
            return Ok(());
        }
        log::info!("reading {} again", path.display());
        config = loop {
            seen = version(path);
            match Config::load(path) {
                Ok(config) => break config,
                Err(e) => log::error!("{}", told(&e)),
            }
            while version(path) == seen {
                tokio::select! {
                    _ = tokio::time::sleep(EVERY) => {}
                    ending = signals.next() => match ending {
                        Ending::End => return Ok(()),
                        Ending::Again => break,
                    }
                }
            }
        };
    }
}

/// Uploads by one configuration, until it has `changed`.
async fn uploads(
    config: Config,
    node: &str,
    once: bool,
    signals: &mut Signals,
    changed: &impl Fn() -> bool,
) -> Result<Ending> {
    let url = config.upload.url.clone().context("[upload] url is not set: nothing is uploaded")?;
    let upload = config.upload;
    let shop = Shop {
        target: Target::open(&url, &upload, false)?,
        states: States::open(&upload.state)?,
        helper: Helper::find(&config.store),
        pace: Pace::new(&upload),
        memory: Memory::new(),
        upload,
        node: node.to_owned(),
    };
    let tellers = Tellers::new(&shop.upload)?;
    let records = config.store.join("records");
    if !records.exists() {
        log::warn!("store {}: there are no records yet", config.store.display());
    }
    let mut queue = Queue::new(once);
    let mut running = FuturesUnordered::new();
    loop {
        if changed() {
            return Ok(Ending::Again);
        }
        let names = names(&records)?;
        tidy(&shop, &names, &queue.active, &mut queue.done).await?;
        queue.failed.retain(|id, _| names.contains(id));
        for id in &names {
            if running.len() >= shop.upload.concurrent {
                break;
            }
            if !queue.is_due(id) {
                continue;
            }
            match todo(&records.join(format!("{id}.jsonl")), &shop.upload) {
                Todo::Later => {}
                Todo::Nothing => drop(queue.done.insert(id.clone())),
                Todo::Upload(record) => {
                    let failures = queue.begin(id);
                    let (id, shop, tellers) = (id.clone(), &shop, &tellers);
                    running.push(async move {
                        let result = ship(shop, &id, &record, failures).await;
                        if let Ok((uploaded, _)) = &result {
                            tellers.tell(shop, &id, &record, uploaded).await;
                        }
                        (id, result)
                    });
                }
            }
        }
        if once && running.is_empty() {
            let failed = queue.failed.len();
            ensure!(failed == 0, "{failed} crash(es) could not be uploaded");
            return Ok(Ending::End);
        }
        tokio::select! {
            Some((id, result)) = running.next(), if !running.is_empty() => queue.end(id, result),
            _ = tokio::time::sleep(EVERY) => {}
            ending = signals.next() => return Ok(ending),
        }
    }
}

/// Which crashes are uploaded, are being uploaded, or are to be tried again.
struct Queue {
    /// What fails is not tried again.
    once: bool,
    done: BTreeSet<String>,
    active: BTreeSet<String>,
    failed: BTreeMap<String, Failed>,
}

impl Queue {
    fn new(once: bool) -> Self {
        Queue { once, done: BTreeSet::new(), active: BTreeSet::new(), failed: BTreeMap::new() }
    }

    /// Whether a crash is to be looked at now.
    fn is_due(&self, id: &str) -> bool {
        let waits = self.failed.get(id).is_some_and(|f| f.next > Instant::now() || self.once);
        !(waits || self.done.contains(id) || self.active.contains(id))
    }

    /// Notes that it is being uploaded. Returns how often that has failed before.
    fn begin(&mut self, id: &str) -> u32 {
        self.active.insert(id.to_owned());
        let before = self.failed.get(id).map_or(0, |failed| failed.times + 1);
        if self.once { u32::MAX } else { before }
    }

    /// Notes what came of it.
    fn end(&mut self, id: String, result: Result<(Uploaded, bool)>) {
        self.active.remove(&id);
        match result {
            Ok((uploaded, is_new)) => {
                if is_new {
                    let Uploaded { url, size, .. } = &uploaded;
                    log::info!("{id}: uploaded to {url} ({size} bytes)");
                }
                self.failed.remove(&id);
                self.done.insert(id);
            }
            Err(e) => {
                let times = self.failed.get(&id).map_or(0, |f| f.times + 1);
                let wait = wait(times);
                let again = match self.once {
                    true => String::new(),
                    false => format!(", trying again in {} s", wait.as_secs()),
                };
                log::warn!("{id}: not uploaded{again}: {}", told(&e));
                self.failed.insert(id, Failed { times, next: Instant::now() + wait });
            }
        }
    }
}

/// The IDs of all records, the oldest first.
fn names(records: &Path) -> Result<BTreeSet<String>> {
    let all = match std::fs::read_dir(records) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        all => all.with_context(|| format!("read {}", records.display()))?,
    };
    let mut names = BTreeSet::new();
    for entry in all {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|n| n.strip_suffix(".jsonl")).map(str::to_owned));
    }
    Ok(names)
}

/// Forgets crashes whose records have gone. Parts of one that was not complete are removed.
async fn tidy(
    shop: &Shop,
    names: &BTreeSet<String>,
    active: &BTreeSet<String>,
    done: &mut BTreeSet<String>,
) -> Result<()> {
    done.retain(|id| names.contains(id));
    for id in shop.states.ids()? {
        if names.contains(&id) || active.contains(&id) {
            continue;
        }
        let state = shop.states.load(&id).unwrap_or_default();
        if state.uploaded.is_none() {
            log::warn!("{id}: its record has gone before it was uploaded");
            let uploader = shop.uploader(&id);
            let file = match shop.upload.what {
                crate::config::What::Core => "core",
                _ => "coredump.tar.zst",
            };
            uploader.drop_parts(&shop.target.path(&format!("{}/{file}", state.key))).await;
        }
        shop.states.forget(&id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_ten_minutes() {
        for times in 0..40 {
            let wait = wait(times);
            assert!(wait >= Duration::from_secs(1) && wait <= WAIT[1], "{times}: {wait:?}");
        }
        assert!(wait(12) >= WAIT[1] / 2);
    }
}
