//! Command-line options that select crashes and a store.

use super::clock;
use super::completions::candidates;
use super::crashes::Crashes;
use super::query::{Query, Term, container};
use super::remote;
use super::usage::WrongUsage;
use crate::config::Config;
use crate::record::Record;
use crate::registry::{Entry, Registry};
use crate::report::one_line;
use crate::store::fetched::Fetched;
use crate::store::uploads::Uploads;
use crate::store::{Records, Store};
use crate::sys::user::{self, RunBy};
use crate::users;
use crate::vacuum::Inventory;
use anyhow::{Context, Result, bail, ensure};
use clap_complete::ArgValueCompleter;
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// What MATCH means, for the `--help` of every verb that takes it.
pub(super) const MATCH: &str = "\
    A MATCH is a PID (in the container or on the host), the path of an executable or a core, a \
    name (of a container, the beginning of its ID, a pod, an executable, a comm or a signal), or \
    FIELD=VALUE, where FIELD is container, pod, namespace, image, exe, comm, pid, signal, core, \
    user or record. Names and values may contain * and ?. A crash must match all of them. A name \
    does not match the rootless containers of users unless user=UID is one of the MATCHes.";

/// Selects the crashes that a verb works on.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Only crashes that match.
    #[arg(value_name = "MATCH", add = ArgValueCompleter::new(candidates::matches))]
    pub matches: Vec<Term>,
    /// Only crashes since this time: 2026-01-31, "2026-01-31 14:30", 14:30, RFC 3339, today,
    /// yesterday, monday, 2h, -2h, "90 minutes ago".
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = clock::argument)]
    pub since: Option<Timestamp>,
    /// Only crashes until this time, in the same forms.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = clock::argument)]
    pub until: Option<Timestamp>,
    /// Read this store instead of the configured one.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

impl Which {
    /// Whether any option restricts the crashes.
    pub(super) fn is_any(&self) -> bool {
        !self.matches.is_empty() || self.since.is_some() || self.until.is_some()
    }

    /// The store, and the query for its records.
    ///
    /// # Errors
    /// A MATCH is a URL ([`WrongUsage`]), or the configuration cannot be read.
    pub(super) fn choose(&self) -> Result<(Chosen, Query)> {
        if let Some(url) = self.matches.iter().filter_map(Term::word).find(|w| remote::is_url(w)) {
            bail!(WrongUsage(format!(
                "{url} is an uploaded crash, which only `info`, `debug` and `export` read; its \
                 page is report.html beside it"
            )));
        }
        let query = Query::new(self.matches.clone(), self.since, self.until);
        Ok((Chosen::of(self.store.as_deref())?, query))
    }
}

/// The store that a verb reads.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The path of the store.
    pub store: PathBuf,
    /// Whether the command line names it. Then it must exist.
    is_named: bool,
    /// Where `oci-coredump-ship` keeps what it has uploaded.
    uploads: PathBuf,
}

impl Chosen {
    /// The store at the given path, else the configured one. A user other than
    /// root has a store of his own.
    pub(super) fn of(store: Option<&Path>) -> Result<Self> {
        let Some(store) = store else {
            let mut config = Config::load()?;
            users::adapt(&mut config)?;
            return Ok(Chosen {
                store: config.store,
                is_named: false,
                uploads: config.upload.state,
            });
        };
        // A store that is named is read whatever the configuration is.
        let uploads = Config::load().unwrap_or_default().upload.state;
        Ok(Chosen { store: store.to_owned(), is_named: true, uploads })
    }

    /// Opens the store for reading; `None` if the configured one does not exist yet.
    pub(super) fn look(&self) -> Result<Option<Store>> {
        let found = Store::open_existing(&self.store)?;
        ensure!(
            found.is_some() || !self.is_named,
            "store {}: there is no such directory",
            self.store.display()
        );
        Ok(found)
    }

    /// Where is kept what debuginfod servers give; `None` if a store is named that is not there, or
    /// a user has no home.
    ///
    /// # Errors
    /// It cannot be made, or is not this user's alone.
    pub(super) fn fetched(&self) -> Result<Option<Fetched>> {
        if let RunBy::User(_) = user::run_by() {
            return users::own_fetched().as_deref().map(Fetched::open).transpose();
        }
        let store = match self.is_named {
            true => Store::open_existing(&self.store)?,
            false => Some(Store::open_at(&self.store)?),
        };
        store.map(|store| store.fetched()).transpose()
    }

    /// The matching crashes; `None` if there are no records at all.
    pub(super) fn crashes<'q>(&self, query: &'q Query) -> Result<Option<Crashes<'q>>> {
        let records = self.look()?.map(|s| s.existing_records()).transpose()?.flatten();
        records.map(|r| Crashes::of(r, Uploads::open(&self.uploads), query)).transpose()
    }

    /// The newest of the matching records, the oldest of them first.
    pub(super) fn newest(&self, query: &Query, most: usize) -> Result<Vec<Record>> {
        Ok(self.crashes(query)?.map(|crashes| crashes.newest(most)).unwrap_or_default())
    }

    /// The inventory of the store; `None` if there are no records.
    pub(super) fn inventory(&self) -> Result<Option<Inventory>> {
        let uploads = Uploads::open(&self.uploads);
        let store = self.look()?;
        Ok(store.map(|store| Inventory::take(&store, &uploads)).transpose()?.flatten())
    }

    /// The directory of the records, for waiting for more. Only the configured store is made if it
    /// does not exist.
    pub(super) fn records_to_watch(&self) -> Result<Records> {
        if !self.is_named {
            let config = Config { store: self.store.clone(), ..Config::default() };
            return Store::open(&config)?.records();
        }
        let records = self.look()?.map(|store| store.existing_records()).transpose()?.flatten();
        records.with_context(|| format!("store {}: it has no records", self.store.display()))
    }
}

/// How the error begins that no crash matches.
pub(super) const NO_CRASH: &str = "no crash in";

/// Reports that no crash matches, and whether a request of such a container was refused: its
/// crashes are the host's. That is a failure, as with coredumpctl.
pub(super) fn no_match<T>(chosen: &Chosen, query: &Query) -> Result<T> {
    let is_own = !chosen.is_named && !user::is_host_root();
    let hint =
        if is_own { "; those of the host's containers are root's: run it with sudo" } else { "" };
    let refused = Registry::own().filter(|_| !chosen.is_named).and_then(|r| refused(&r, query));
    let refused = refused.map_or_else(String::new, |(name, why)| {
        format!(
            "; container {name} runs without a core pattern, since its request was refused: {why}"
        )
    });
    bail!("{NO_CRASH} {} matches{hint}{}", chosen.store.display(), one_line(&refused))
}

/// A container that runs and whose crashes would match, but whose request was refused: its name,
/// and why.
fn refused(registry: &Registry, query: &Query) -> Option<(String, String)> {
    let entries = registry.ids().ok()?.into_iter().filter_map(|id| registry.get(&id));
    let of = |entry: Entry| {
        let why = entry.refused.clone().filter(|_| entry.init_lives())?;
        let time = Timestamp::now().to_string();
        let crash = Record { time, names: entry.names, ..Record::default() };
        query.takes(&crash).then(|| (container(&crash.names), why))
    };
    entries.into_iter().find_map(of)
}
