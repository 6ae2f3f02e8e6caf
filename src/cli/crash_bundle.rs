//! A crash with everything that a debugger needs, in one layout for `debug` (a temporary directory)
//! and `export` (an archive):
//!
//! ```text
//! core              the core, decompressed
//! exe               -> root/...
//! root/             executable and libraries under the paths that they had
//! lib/              -> root/..., by file name and SONAME, since the paths in the core may go
//!                   through symbolic links that are not here
//! debug/            separate debug information by build-id
//! record.json       what is known of the crash
//! gdb.sh, README
//! ```

use super::announced::Announced;
use super::sink::BundleSink;
use super::subject::Opened;
use super::unpack;
use crate::corefile::Match;
use crate::corefile::reader::{self, CoreReading};
use crate::record::Record;
use crate::sys::text;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// A bundle that is being put together.
pub(super) struct CrashBundle {
    core: Announced,
    record: Option<Record>,
    /// Its files by their path in the bundle.
    files: BTreeMap<PathBuf, Announced>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// What the debugger will not find, one line each.
    pub lacking: Vec<String>,
}

impl CrashBundle {
    /// Collects the files of a core. A file is taken only if it is the one that was mapped.
    pub(super) fn collect(Opened { core, record, paths, name }: Opened) -> Result<Self> {
        // First of all, so that from here on its owner cannot make it longer.
        let core = Announced::new(core)?;
        let reading = reader::read(core.inner(), &paths, None).context(name)?;
        let mut bundle = CrashBundle {
            core,
            record,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            lacking: Vec::new(),
        };
        let CoreReading { overview, files, matches, sonames, .. } = reading;
        for (i, ((module, opened), verdict)) in
            overview.modules.iter().zip(files).zip(matches).enumerate()
        {
            let good = matches!(verdict, Match::Same | Match::Unproven);
            let file = opened.file.filter(|_| good);
            match (file, inside(&module.path).filter(|path| bundle.has_place(path))) {
                (Some((_, file)), Some(path)) => {
                    let added = Announced::new(file).map(|file| {
                        bundle.add(&path, file, sonames[i].as_deref(), i == 0);
                        bundle.add_debug(module.build_id.as_deref(), opened.debug);
                        bundle.add_debug(opened.common_id.as_deref(), opened.supplementary);
                    });
                    if added.is_err() {
                        bundle.lacking.push(module.path.clone());
                    }
                }
                _ if module.path.starts_with('[') || !module.path.contains(".so") && i > 0 => {}
                _ => bundle.lacking.push(module.path.clone()),
            }
        }
        Ok(bundle)
    }

    /// Whether `path` is free: a core can name one path as a file and as a directory. Also
    /// bounds the number of files.
    fn has_place(&self, path: &Path) -> bool {
        let root = Path::new("root").join(path);
        let in_the_way = |k: &PathBuf| *k != root && (k.starts_with(&root) || root.starts_with(k));
        // With two links and two files of debug information for each file, there are five times as
        // many entries.
        self.files.len() < unpack::MOST_ENTRIES / 8 && !self.files.keys().any(in_the_way)
    }

    fn add(&mut self, path: &Path, file: Announced, soname: Option<&str>, exe: bool) {
        let root = Path::new("root").join(path);
        let target = Path::new("..").join(&root);
        if exe {
            self.links.insert("exe".into(), root.clone());
        }
        for name in [path.file_name().and_then(|n| n.to_str()), soname].into_iter().flatten() {
            if let Some(name) = inside(name).filter(|n| n.components().count() == 1) {
                self.links.entry(Path::new("lib").join(name)).or_insert_with(|| target.clone());
            }
        }
        self.files.insert(root, file);
    }

    /// Adds debug information where a debugger looks for it by its build-id. Of several candidates
    /// the first: where one was found by its build-id it is that one.
    fn add_debug(&mut self, id: Option<&str>, candidates: Vec<File>) {
        let is_id =
            |id: &&str| (3..=200).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
        let debug = candidates.into_iter().next().map(Announced::new);
        if let (Some(Ok(debug)), Some(id)) = (debug, id.filter(is_id)) {
            let name = format!("{}/{}.debug", &id[..2], &id[2..]);
            self.files.insert(Path::new("debug/.build-id").join(name), debug);
        }
    }

    /// Writes everything to a sink, always in the same order. `without_core`: the core
    /// is there already. What a file has lost since it was opened reads as zeros; the
    /// log and the README say so.
    pub(super) fn write(mut self, sink: &mut dyn BundleSink, without_core: bool) -> Result<()> {
        if let Some(record) = &self.record {
            sink.text(
                "record.json".as_ref(),
                &(text::json(&serde_json::to_string_pretty(record)?) + "\n"),
                false,
            )?;
        }
        sink.text("gdb.sh".as_ref(), GDB, true)?;
        for (name, target) in &self.links {
            sink.link(name, target)?;
        }
        let mut shrunk = Vec::new();
        let core = (Path::new("core"), &mut self.core);
        let files = self.files.iter_mut().map(|(name, file)| (name.as_path(), file));
        for (name, file) in files.chain((!without_core).then_some(core)) {
            sink.file(name, file)?;
            if let Some(words) = file.shortened(&name.display()) {
                log::warn!("{words}");
                shrunk.push(words);
            }
        }
        sink.text("README".as_ref(), &self.readme(&shrunk), false)
    }

    /// The core, decompressed.
    pub(super) fn core(&mut self) -> &mut Announced {
        &mut self.core
    }

    /// Bytes of data of all files, holes excluded.
    pub(super) fn size(&self) -> u64 {
        self.files.values().chain([&self.core]).map(Announced::data).sum()
    }

    fn readme(&self, shrunk: &[String]) -> String {
        let mut words = String::from("A core dump, exported by oci-coredump.\n\n");
        if let Some(r) = &self.record {
            words += &format!("{}\n\n", text::one_line(&format!("{}: {r}", r.time)));
        }
        words += "./gdb.sh opens it in gdb, with the executable and libraries that are in this \
                  directory; arguments are passed on.\n";
        words += "`oci-coredump debug BUNDLE` opens the archive itself. The core holds the memory \
                  of the process, secrets included.\n";
        for path in &self.lacking {
            let path = text::one_line(path);
            words += &format!("\nNot in here, since the right file was not found: {path}");
        }
        for line in shrunk {
            words += &format!("\n{}", text::one_line(line));
        }
        words + "\n"
    }
}

/// A path from the core, made relative. Only plain components are accepted, since whoever wrote the
/// core chose it. `None` if it has others.
fn inside(path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_end_matches(" (deleted)"));
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            // No file system accepts a longer name, so it cannot be made here either.
            Component::Normal(name) if name.len() <= 255 => out.push(name),
            Component::RootDir => {}
            _ => return None,
        }
    }
    let most = unpack::LONGEST - "../root/".len();
    (out != Path::new("") && out.as_os_str().len() <= most).then_some(out)
}

/// The script contains no name from the container. The directory that it is in may have any name,
/// so gdb reaches it through a link with a plain one.
const GDB: &str = r#"#!/bin/sh
# Opens the core in gdb, which reads the executable, the libraries and the core and no other file
# that came with them: no settings, no scripts. HOME and the working directory are an empty
# directory, which is removed afterwards.
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
here=$(CDPATH= cd -- "${here:-/}" && pwd -P && echo .) || exit 1
here=${here%??}
own=$(umask 077 && mktemp -d /tmp/oci-coredump-gdb.XXXXXX) || exit 1
trap 'rm -rf "$own"' EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM
trap : INT
mkdir "$own/home" && ln -s "$here" "$own/at" && cd "$own/home" || exit 1
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM="${TERM:-dumb}" \
    LANG="${LANG:-C}" LC_ALL="${LC_ALL:-}" HOME="$own/home" XDG_CONFIG_HOME="$own/home" \
    XDG_CACHE_HOME="$own/home" XDG_DATA_HOME="$own/home" \
    gdb -nx -nh -iex "set auto-load off" -iex "set auto-load safe-path /dev/null/none" \
    -iex "set debuginfod enabled off" -iex "set history save off" \
    -iex "set sysroot $own/at/root" -iex "set solib-search-path $own/at/lib" \
    -iex "set debug-file-directory $own/at/debug:/usr/lib/debug" \
    -se "$own/at/exe" -core "$own/at/core" "$@"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_core_stay_inside() {
        for (path, expected) in [
            ("/usr/bin/a", Some("usr/bin/a")),
            ("/usr/bin/a (deleted)", Some("usr/bin/a")),
            ("/a/../../etc/passwd", None),
            ("..", None),
            ("/", None),
            ("", None),
            ("[vdso]", Some("[vdso]")),
        ] {
            assert_eq!(inside(path).as_deref(), expected.map(Path::new), "{path}");
        }
    }
}
