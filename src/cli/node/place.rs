//! The program on a node: the directory that it is in, and what was made there, and so may be
//! removed.

use crate::config;
use crate::engine;
use crate::sys::{file, filesystem};
use crate::sysctl;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where the program may be placed on a host, the first that will do. The first is where `make
/// install` puts it. On Flatcar, Bottlerocket and others /usr cannot be written; on GKE's
/// Container-Optimized OS neither can /opt, and programs run from a directory of its own only; on
/// Talos there is only /var.
const DIRECTORIES: [&str; 4] = [
    "/usr/libexec/oci/hooks.d",
    "/opt/oci-coredump",
    "/home/kubernetes/bin/oci-coredump",
    "/var/lib/oci-coredump-node",
];
/// The name of the program.
pub(super) const NAME: &str = "oci-coredump";
/// In that directory: what `node` has placed on the host, and so may remove, a JSON array of paths
/// in the order in which they were made.
const PLACED: &str = ".oci-coredump-node.json";

/// The directory that the program is in: the given one, or one of [`DIRECTORIES`].
pub(super) fn find(given: Option<&Path>) -> Option<&Path> {
    let mut known = given.into_iter().chain(DIRECTORIES.iter().map(Path::new));
    known.find(|d| d.join(PLACED).exists() || is_installed(d))
}

/// Whether somebody has installed the program in the usual place.
fn is_installed(directory: &Path) -> bool {
    directory == Path::new(DIRECTORIES[0]) && directory.join(NAME).exists()
}

/// The directory for the program: the given one; the one where it is already; the first that will
/// do.
///
/// # Errors
/// Why none will do.
pub(super) fn choose<'a>(given: Option<&'a Path>, there: Option<&'a Path>) -> Result<&'a Path> {
    if let Some(only) = given {
        ensure!(
            there.is_none_or(|there| there == only),
            "the program is in {}: uninstall it before it goes to {}",
            there.unwrap_or(only).display(),
            only.display()
        );
        return will_do(only).map(|()| only);
    }
    if let Some(there) = there {
        return Ok(there);
    }
    let mut why = Vec::new();
    for directory in DIRECTORIES.map(Path::new) {
        // Not made on hosts that are none of GKE's.
        if directory.starts_with("/home") && !Path::new("/home/kubernetes").is_dir() {
            continue;
        }
        match will_do(directory) {
            Ok(()) => return Ok(directory),
            Err(e) => why.push(format!("{e:#}")),
        }
    }
    bail!("no directory for the program (--directory names one): {}", why.join("; "))
}

/// Whether the kernel can start the program from there: the pattern with its path has 127 bytes at
/// most, only root can replace it, and the file system takes files and lets programs run.
fn will_do(directory: &Path) -> Result<()> {
    ensure!(directory.is_absolute(), "{} is not absolute", directory.display());
    sysctl::dispatch_pattern(&directory.join(NAME))?;
    let there = directory.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
    file::check_own(there)?;
    match filesystem::refuses_programs(file::open_dir(there)?)? {
        Some(why) => bail!("{} is mounted {why}", there.display()),
        None => Ok(()),
    }
}

/// The paths placed before; none if the list does not exist.
fn placed(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read(directory.join(PLACED)) {
        Ok(text) => serde_json::from_slice(&text).context(PLACED),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).context(PLACED),
    }
}

/// Copies the program and its links to the host. Every path is recorded before it is made.
pub(super) fn place(out: &mut impl Write, mut own: File, directory: &Path) -> Result<()> {
    let program = directory.join(NAME);
    let mut placed = placed(directory)?;
    let missing: Vec<&Path> = directory.ancestors().take_while(|p| !p.exists()).collect();
    for directory in missing.into_iter().rev() {
        fs::DirBuilder::new()
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("mkdir {}", directory.display()))?;
        placed.push(directory.to_owned());
    }
    let there = |path: &Path| path.symlink_metadata().is_ok();
    if there(&program) && !placed.contains(&program) {
        bail!(
            "{} is there and was not put there by this: remove that installation first \
             (`make uninstall`)",
            program.display()
        );
    }
    // A new file and a rename, since the kernel may be running the old one.
    let new = directory.join(format!("{NAME}.new"));
    let _ = fs::remove_file(&new);
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&new)
        .with_context(|| format!("create {}", new.display()))?;
    std::io::copy(&mut own, &mut copy)
        .and_then(|_| copy.sync_all())
        .with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, &program).with_context(|| format!("rename {}", new.display()))?;
    if !placed.contains(&program) {
        placed.push(program.clone());
    }
    write_down(directory, &placed)?;
    let usual = directory == Path::new(DIRECTORIES[0]);
    let target = if usual { Path::new("../libexec/oci/hooks.d/oci-coredump") } else { &program };
    for (link, target) in [
        (directory.join(engine::RUNTIME_NAME), Path::new(NAME)),
        (Path::new("/usr/bin").join(NAME), target),
        (Path::new("/usr/bin").join(engine::RUNTIME_NAME), target),
    ] {
        if there(&link) || !link.parent().is_some_and(Path::is_dir) {
            continue;
        }
        match symlink(target, &link) {
            Ok(()) => placed.push(link),
            // The names in /usr/bin are for a person's convenience.
            Err(e) if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem => continue,
            Err(e) => return Err(e).with_context(|| format!("symlink {}", link.display())),
        }
        write_down(directory, &placed)?;
    }
    writeln!(out, "{} is this program, version {}", program.display(), env!("CARGO_PKG_VERSION"))?;
    Ok(())
}

/// Writes the host's configuration, unless it has one that was not put there by this.
pub(super) fn place_config(out: &mut impl Write, text: &str, directory: &Path) -> Result<()> {
    let path = Path::new(config::PATH);
    let mut placed = placed(directory)?;
    let known = placed.iter().any(|p| p == path);
    ensure!(
        known || path.symlink_metadata().is_err(),
        "{} is there and was not put there by this: remove it, or the configuration here",
        path.display()
    );
    let parent = path.parent().unwrap_or(Path::new("/etc"));
    if !known {
        if !parent.exists() {
            placed.push(parent.to_owned());
        }
        placed.push(path.to_owned());
        write_down(directory, &placed)?;
    }
    let dir = file::make_path(parent, 0o755)?;
    file::replace(dir, path.file_name().unwrap_or_default(), text.as_bytes(), 0o644)
        .with_context(|| format!("write {}", path.display()))?;
    writeln!(out, "{} is the configuration of the DaemonSet", path.display())?;
    Ok(())
}

fn write_down(directory: &Path, placed: &[PathBuf]) -> Result<()> {
    let dir = file::open_dir(directory)?;
    file::replace(&dir, PLACED.as_ref(), &serde_json::to_vec(placed)?, 0o644).context(PLACED)
}

/// Removes what was placed, the last first. A directory that has other files in it stays.
pub(super) fn take_away(out: &mut impl Write, directory: &Path) -> Result<()> {
    let placed = placed(directory)?;
    if placed.is_empty() {
        writeln!(out, "{} stays: it was not put there by this", directory.join(NAME).display())?;
        return Ok(());
    }
    fs::remove_file(directory.join(PLACED)).context(PLACED)?;
    for path in placed.iter().rev() {
        let result = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(path)
        } else {
            fs::remove_file(path)
        };
        match result {
            Ok(()) => writeln!(out, "removed {}", path.display())?,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_for_the_program() {
        for directory in DIRECTORIES {
            sysctl::dispatch_pattern(&Path::new(directory).join(NAME)).unwrap();
        }
        let long = PathBuf::from(format!("/opt/{}", "x".repeat(60)));
        for (bad, why) in [("relative", "not absolute"), (long.to_str().unwrap(), "127")] {
            let said = format!("{:#}", will_do(Path::new(bad)).unwrap_err());
            assert!(said.contains(why), "{bad}: {said}");
        }
        let (usr, opt) = (Path::new(DIRECTORIES[0]), Path::new(DIRECTORIES[1]));
        assert_eq!(choose(None, Some(opt)).unwrap(), opt);
        assert!(choose(Some(opt), Some(usr)).is_err());
    }
}
