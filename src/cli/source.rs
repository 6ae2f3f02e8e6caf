//! Where `info`, `debug` and `export` take a crash from: the records of a store, or a bundle, which
//! is one crash with all of its files.

use super::private::Private;
use super::query::{Query, Term};
use super::selection::{Chosen, Which};
use super::subject::Opened;
use super::usage::WrongUsage;
use super::{remote, subject, unpack};
use crate::corefile::decompress::{decompressed, is_compressed};
use crate::corefile::files::SearchPaths;
use crate::record::Record;
use crate::sys::{file, kernel};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Largest record of a bundle, in bytes.
const RECORD: usize = 1 << 20;

/// Where a crash is taken from.
#[derive(Debug)]
pub(super) enum CrashSource<'a> {
    /// The records of a store that match.
    Records(Chosen, Query),
    /// A bundle.
    Packed(Packed<'a>),
}

/// A bundle, and where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packed<'a> {
    /// A file that `export` has written.
    Bundle(&'a Path),
    /// The URL of an uploaded one.
    Url(&'a str),
}

impl Which {
    /// Where the crash is. `others`: options of the verb that apply to records only, and whether
    /// they are given.
    ///
    /// # Errors
    /// A bundle is named, and an option that does not apply to it ([`WrongUsage`]); or the
    /// configuration cannot be read.
    pub(super) fn source(&self, others: &[(&str, bool)]) -> Result<CrashSource<'_>> {
        let Some(packed) = self.matches.iter().filter_map(Term::word).find_map(Packed::of) else {
            let (chosen, query) = self.choose()?;
            return Ok(CrashSource::Records(chosen, query));
        };
        let own = [
            ("another MATCH", self.matches.len() > 1),
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
            ("--store", self.store.is_some()),
        ];
        match own.iter().chain(others).find(|(_, is_given)| *is_given) {
            None => Ok(CrashSource::Packed(packed)),
            Some((option, _)) => bail!(WrongUsage(format!(
                "{option} does not apply to {}: that is one crash with all of its files",
                packed.name()
            ))),
        }
    }
}

impl<'a> Packed<'a> {
    fn of(word: &'a str) -> Option<Self> {
        match word {
            url if remote::is_url(url) => Some(Packed::Url(url)),
            path if path.ends_with(".tar.zst") => Some(Packed::Bundle(path.as_ref())),
            _ => None,
        }
    }

    /// What the user calls it.
    pub(super) fn name(&self) -> std::path::Display<'a> {
        match self {
            Packed::Bundle(path) => path.display(),
            Packed::Url(url) => Path::new(*url).display(),
        }
    }

    /// Opens it. An uploaded one is fetched.
    ///
    /// # Errors
    /// It cannot be opened or fetched.
    pub(super) fn open(&self) -> Result<File> {
        match self {
            Packed::Bundle(path) => subject::open_named(path),
            Packed::Url(url) => remote::fetch(url),
        }
    }

    /// Unpacks it into a directory that `private` makes. Returns that, and where in it.
    ///
    /// # Errors
    /// It cannot be opened, or is no bundle.
    pub(super) fn unpack(
        &self,
        private: impl FnOnce() -> Result<Private>,
    ) -> Result<(Private, PathBuf)> {
        let unpack = || {
            let packed = self.open()?;
            ensure!(is_compressed(&packed), "it is not compressed with zstd");
            // Decompressed in a sandbox, up to a maximum size.
            let tar = decompressed(packed)?;
            let dir = private()?;
            let (tree, at) = dir.tree("crash")?;
            let room = kernel::free_bytes(&at).unwrap_or(0) / 10 * 9;
            unpack::unpack(&tar, &tree, room)?;
            Ok((dir, at))
        };
        unpack().with_context(|| format!("unpack {}", self.name()))
    }

    /// Unpacks it, and opens its core. What is returned first removes it in the end.
    ///
    /// # Errors
    /// As for [`Packed::unpack`], or its core or record cannot be read.
    pub(super) fn subject(&self) -> Result<(Private, Opened)> {
        let (dir, at) = self.unpack(|| Private::new(false))?;
        let core = subject::open_named(&at.join("core"))?;
        // A bundle without executables has no such directory.
        let mut paths = SearchPaths::usual(file::open_dir(&at.join("root")).ok(), None);
        paths.debug.splice(..0, file::open_dir(&at.join("debug")).ok());
        // Nor has that of a core file a record.
        let read = |open| -> Result<Record> {
            let text = file::read_bounded(open, RECORD, "record.json")?;
            serde_json::from_slice(&text).context("record.json")
        };
        let record = subject::open_named(&at.join("record.json")).ok().map(read).transpose()?;
        Ok((dir, Opened { core, record, paths, name: self.name().to_string() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_a_bundle() {
        assert_eq!(Packed::of("s3://a/b"), Some(Packed::Url("s3://a/b")));
        assert_eq!(Packed::of("a/b.tar.zst"), Some(Packed::Bundle("a/b.tar.zst".as_ref())));
        for other in ["web", "/cores/core", "x.tar", "http://a/b"] {
            assert_eq!(Packed::of(other), None, "{other}");
        }
    }
}
