//! Which crashes, and of which store, a verb is about.

use super::export;
use super::query::Query;
use crate::config::Config;
use crate::record::Record;
use crate::store::Store;
use crate::users;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which crashes a verb is about.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Only crashes that match.
    #[arg(value_name = "MATCH")]
    pub matches: Vec<String>,
    /// Not before this time: 2026-01-31, "2026-01-31 14:30", 14:30, RFC 3339, today,
    /// yesterday, 2h, "90 minutes ago".
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Not after this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Read this store instead of the configured one.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Source {
    /// The same, for the verbs.
    pub fn subject(self) -> export::Subject {
        export::Subject { core: self.core, sysroot: self.sysroot }
    }
}

impl Which {
    /// Whether anything is said of which ones.
    pub fn is_any(&self) -> bool {
        !self.matches.is_empty() || self.since.is_some() || self.until.is_some()
    }

    /// The store, and what to look for in it.
    pub fn choose(self) -> Result<(Chosen, Query)> {
        let now = jiff::ZonedDateTime::now();
        let query =
            Query::parse(&self.matches, self.since.as_deref(), self.until.as_deref(), &now)?;
        Ok((Chosen::of(self.store)?, query))
    }
}

/// What a verb is about, if that is no record.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Take this core file, whether there is a record of it or not.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["matches", "since", "until"])]
    core: Option<PathBuf>,
    /// Take executables and libraries from below this directory instead of the container's root.
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
}

/// The store that a verb reads.
#[derive(Debug)]
pub struct Chosen {
    /// Its path.
    pub store: PathBuf,
}

impl Chosen {
    /// The store that was named, or the configured one; a user's own where it is not root who asks.
    pub fn of(store: Option<PathBuf>) -> Result<Self> {
        let configured = || {
            let mut config = Config::load()?;
            users::adapt(&mut config)?;
            Ok::<_, anyhow::Error>(config.store)
        };
        Ok(Chosen { store: store.map_or_else(configured, Ok)? })
    }

    /// The records that match, the oldest first.
    pub fn records(&self, query: &Query) -> Result<Vec<Record>> {
        let Some(records) =
            Store::look(&self.store)?.map(|s| s.look_at_records()).transpose()?.flatten()
        else {
            return Ok(Vec::new());
        };
        Ok(by_time(
            records
                .names()?
                .iter()
                .filter_map(|n| records.read(n))
                .filter(|r| query.takes(r))
                .collect(),
        ))
    }

    /// Opens the store, making it if it is not there.
    pub fn make_store(&self) -> Result<Store> {
        Store::open(&Config { store: self.store.clone(), ..Config::default() })
    }
}

/// The oldest first.
pub fn by_time(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by(|a, b| a.time.cmp(&b.time));
    records
}

/// Nothing to show is a failure, as it is for coredumpctl.
pub fn no_match(verb: &str, store: &Path) -> Result<ExitCode> {
    log::error!("{verb}: no crash in {} matches", store.display());
    Ok(ExitCode::FAILURE)
}
