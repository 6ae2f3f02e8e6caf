//! Command-line options that select crashes and a store.

use super::query::Query;
use super::remote;
use crate::config::Config;
use crate::record::Record;
use crate::store::Store;
use crate::store::uploads::Uploads;
use crate::users;
use crate::vacuum::Inventory;
use anyhow::{Result, bail};
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
    #[arg(value_name = "MATCH")]
    pub matches: Vec<String>,
    /// Only crashes since this time: 2026-01-31, "2026-01-31 14:30", 14:30, RFC 3339, today,
    /// yesterday, 2h, "90 minutes ago".
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only crashes until this time, in the same forms.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Read this store instead of the configured one.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Which {
    /// Whether any option restricts the crashes.
    pub(super) fn is_any(&self) -> bool {
        !self.matches.is_empty() || self.since.is_some() || self.until.is_some()
    }

    /// The URL of an uploaded bundle, if that is the one MATCH.
    pub(super) fn url(&self) -> Option<&str> {
        match self.matches.as_slice() {
            [one] if remote::is_url(one) => Some(one),
            _ => None,
        }
    }

    /// The store, and the query for its records.
    pub(super) fn choose(&self) -> Result<(Chosen, Query)> {
        let now = jiff::ZonedDateTime::now();
        let query =
            Query::parse(&self.matches, self.since.as_deref(), self.until.as_deref(), &now)?;
        Ok((Chosen::of(self.store.as_deref())?, query))
    }
}

/// The store that a verb reads.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The path of the store.
    pub store: PathBuf,
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
            return Ok(Chosen { store: config.store, uploads: config.upload.state });
        };
        // A store that is named is read whatever the configuration is.
        let uploads = Config::load().unwrap_or_default().upload.state;
        Ok(Chosen { store: store.to_owned(), uploads })
    }

    /// The matching records, the oldest first.
    pub(super) fn records(&self, query: &Query) -> Result<Vec<Record>> {
        let Some(records) =
            Store::look(&self.store)?.map(|s| s.look_at_records()).transpose()?.flatten()
        else {
            return Ok(Vec::new());
        };
        let names = records.names()?;
        let found = names.iter().filter_map(|n| records.read(n)).filter(|r| query.takes(r));
        let uploads = Uploads::look(&self.uploads);
        let found = found.map(|record| Record { uploaded: uploads.of(&record), ..record });
        Ok(by_time(found.collect()))
    }

    /// The inventory of the store; `None` if there are no records.
    pub(super) fn inventory(&self) -> Result<Option<Inventory>> {
        let uploads = Uploads::look(&self.uploads);
        let store = Store::look(&self.store)?;
        Ok(store.map(|store| Inventory::take(&store, &uploads)).transpose()?.flatten())
    }

    /// Opens the store, making it if it does not exist.
    pub(super) fn make_store(&self) -> Result<Store> {
        Store::open(&Config { store: self.store.clone(), ..Config::default() })
    }
}

/// Sorts by time, the oldest first.
pub(super) fn by_time(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by(|a, b| a.time.cmp(&b.time));
    records
}

/// Reports that no crash matches. That is a failure, as with coredumpctl.
pub(super) fn no_match<T>(chosen: &Chosen) -> Result<T> {
    bail!("no crash in {} matches", chosen.store.display())
}
