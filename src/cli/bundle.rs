//! A crash with everything that a debugger needs, in one layout for `debug` (a temporary directory) and `export` (an archive):
//!
//! ```text
//! core              the core, decompressed
//! exe               -> root/...
//! root/             executable and libraries under the paths that they had
//! lib/              -> root/..., by file name and SONAME: the paths in the core go through links that are not here
//! debug/            separate debug information by build-id
//! record.json       what is known of the crash
//! README, gdb.sh
//! ```

use crate::corefile::files::Places;
use crate::corefile::reader::{self, Reading};
use crate::corefile::{Match, Module};
use crate::record::Record;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// What a bundle is put into.
pub trait Sink {
    /// A file, with its holes.
    fn file(&mut self, name: &Path, file: &mut File) -> Result<()>;
    /// A short text.
    fn text(&mut self, name: &Path, text: &str, program: bool) -> Result<()>;
    /// A symbolic link.
    fn link(&mut self, name: &Path, target: &Path) -> Result<()>;
}

/// A bundle to be.
pub struct Bundle {
    core: File,
    record: Option<Record>,
    /// Its files by name.
    files: BTreeMap<PathBuf, File>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// What the debugger will miss.
    pub lacking: Vec<String>,
}

impl Bundle {
    /// Collects what belongs to a core: only files that are the ones that were mapped.
    pub fn collect(core: File, record: Option<Record>, places: &Places) -> Result<Self> {
        let reading = reader::read(&core, places)?;
        let mut bundle = Bundle {
            core,
            record,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            lacking: Vec::new(),
        };
        let Reading { overview, files, matches, sonames, .. } = reading;
        for (i, ((module, opened), verdict)) in
            overview.modules.iter().zip(files).zip(matches).enumerate()
        {
            let good = matches!(verdict, Match::Same | Match::Unproven);
            match (opened.file.filter(|_| good), inside(&module.path)) {
                (Some((_, file)), Some(path)) => {
                    bundle.add(module, &path, file, opened.debug, sonames[i].as_deref(), i == 0)
                }
                _ if module.path.starts_with('[') || !module.path.contains(".so") && i > 0 => {}
                _ => bundle.lacking.push(module.path.clone()),
            }
        }
        Ok(bundle)
    }

    fn add(
        &mut self,
        module: &Module,
        path: &Path,
        file: File,
        debug: Option<File>,
        soname: Option<&str>,
        exe: bool,
    ) {
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
        if let (Some(debug), Some(id)) =
            (debug, module.build_id.as_deref().filter(|id| id.len() > 2))
        {
            self.files.insert(
                Path::new("debug/.build-id").join(&id[..2]).join(format!("{}.debug", &id[2..])),
                debug,
            );
        }
        self.files.insert(root, file);
    }

    /// Puts it all into a sink, always in the same order. `core` stands for the core where the sink need not have a copy.
    pub fn write(mut self, sink: &mut dyn Sink, core: Option<&Path>) -> Result<()> {
        sink.text("README".as_ref(), &self.readme(), false)?;
        if let Some(record) = &self.record {
            sink.text(
                "record.json".as_ref(),
                &(serde_json::to_string_pretty(record)? + "\n"),
                false,
            )?;
        }
        sink.text("gdb.sh".as_ref(), GDB, true)?;
        for (name, target) in &self.links {
            sink.link(name, target)?;
        }
        for (name, file) in &mut self.files {
            file.rewind()?;
            sink.file(name, file)?;
        }
        match core {
            Some(target) => sink.link("core".as_ref(), target),
            None => {
                self.core.rewind()?;
                sink.file("core".as_ref(), &mut self.core)
            }
        }
    }

    /// The core.
    pub fn core(&self) -> &File {
        &self.core
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().chain([&self.core]).map(|f| f.metadata().map_or(0, |m| m.len())).sum()
    }

    fn readme(&self) -> String {
        let mut text = String::from("A core dump, exported by oci-coredump.\n\n");
        if let Some(r) = &self.record {
            text += &format!("{}: {r}\n\n", r.time);
        }
        text += "./gdb.sh opens it in gdb, with the executable and libraries that are in this directory; arguments are passed on.\n";
        text += "`oci-coredump debug BUNDLE` opens the archive itself. The core holds the memory of the process, secrets included.\n";
        for path in &self.lacking {
            text += &format!("\nNot in here, since the right file was not found: {path}");
        }
        text + "\n"
    }
}

/// A path of the core, below a directory: plain components only, since whoever wrote the core chose it.
fn inside(path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_end_matches(" (deleted)"));
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::RootDir => {}
            _ => return None,
        }
    }
    (out != Path::new("")).then_some(out)
}

const GDB: &str = r#"#!/bin/sh
# Opens the core in gdb. Scripts that the files in root/ ask for are not run.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
exec gdb -iex "set auto-load off" -iex "set sysroot $here/root" -iex "set solib-search-path $here/lib" \
    -iex "set debug-file-directory $here/debug:/usr/lib/debug" -se "$here/exe" -core "$here/core" "$@"
"#;

/// A directory, which must be empty.
pub struct Directory(pub PathBuf);

impl Directory {
    fn path(&self, name: &Path) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&self.0))
            .with_context(|| format!("mkdir {}", path.display()))?;
        Ok(path)
    }

    fn create(&self, name: &Path, mode: u32) -> Result<File> {
        let path = self.path(name)?;
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))
    }
}

impl Sink for Directory {
    fn file(&mut self, name: &Path, file: &mut File) -> Result<()> {
        let mut to = self.create(name, 0o600)?;
        std::io::copy(file, &mut to).with_context(|| format!("write {}", name.display()))?;
        // gdb warns of an executable that is newer than its core.
        to.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1))
            .context("futimens")
    }

    fn text(&mut self, name: &Path, text: &str, program: bool) -> Result<()> {
        Ok(self.create(name, if program { 0o700 } else { 0o600 })?.write_all(text.as_bytes())?)
    }

    fn link(&mut self, name: &Path, target: &Path) -> Result<()> {
        let path = self.path(name)?;
        std::os::unix::fs::symlink(target, &path)
            .with_context(|| format!("symlink {}", path.display()))
    }
}

/// An archive. The same crash gives the same bytes: owners, modes and times in it are fixed.
pub struct Archive<W: Write>(tar::Builder<W>, PathBuf);

impl<W: Write> Archive<W> {
    /// `top` is the directory that all is in.
    pub fn new(out: W, top: &Path) -> Self {
        let mut builder = tar::Builder::new(out);
        builder.mode(tar::HeaderMode::Deterministic);
        Archive(builder, top.to_owned())
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<W> {
        Ok(self.0.into_inner()?)
    }

    fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(1);
        header
    }
}

impl<W: Write> Sink for Archive<W> {
    fn file(&mut self, name: &Path, file: &mut File) -> Result<()> {
        self.0
            .append_file(self.1.join(name), file)
            .with_context(|| format!("archive {}", name.display()))
    }

    fn text(&mut self, name: &Path, text: &str, program: bool) -> Result<()> {
        let mut header = Self::header(
            tar::EntryType::Regular,
            text.len() as u64,
            if program { 0o755 } else { 0o644 },
        );
        self.0
            .append_data(&mut header, self.1.join(name), text.as_bytes())
            .with_context(|| format!("archive {}", name.display()))
    }

    fn link(&mut self, name: &Path, target: &Path) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0, 0o777);
        self.0
            .append_link(&mut header, self.1.join(name), target)
            .with_context(|| format!("archive {}", name.display()))
    }
}

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
