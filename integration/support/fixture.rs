//! The fixture of the attacks: a container of runc whose cores go to a volume, with the crashing
//! programs in it, and a second container that is to be harmed.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::crasher::{crasher, parent};
use crate::host::STORE;
use crate::runtime::Container;
use crate::scene::{ECI, ECI_PATTERN, ended};

/// The pattern of the containers.
pub const PATTERN: &str = "/dump/core";

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A bundle with the crashing programs, whose cores go to the host's store.
pub fn in_the_store() -> Bundle {
    let mut bundle = crate::scene::bundle();
    bundle.rootfs().put(crasher(), "/bin/crasher");
    bundle.rootfs().put(parent(), "/bin/parent");
    bundle.annotation(ECI, ECI_PATTERN);
    bundle
}

/// A container's directory in the host's store.
pub fn store_of(id: &str) -> PathBuf {
    Path::new(STORE).join("containers").join(id)
}

/// A bundle with the crashing programs, and the volume at /dump, which every user
/// of the container may write.
pub fn bundle() -> (Bundle, TempDir) {
    let volume = TempDir::with_prefix("volume").unwrap();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut bundle = in_the_store();
    bundle.annotation(ECI, PATTERN).bind(volume.path(), "/dump");
    (bundle, volume)
}

/// Runs `parent OPTIONS -- PROGRAM...` by exec as a user. Returns the PID in the
/// container and the raw wait status.
pub fn crash(container: &Container<'_>, user: &str, options: &str, program: &[&str]) -> (i32, i32) {
    let mut args = vec!["/bin/parent", "--core", "unlimited"];
    args.extend(options.split_whitespace());
    args.push("--");
    args.extend(program);
    let output = container.exec_with(&["--user", user], &args);
    ended(&format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The hexadecimal form that `crasher --comm` takes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The names in a directory of the host, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Everything below a directory of the host: mode, owner, size and, of files, contents.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut next = vec![directory.to_owned()];
    while let Some(path) = next.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        all.insert(
            path.clone(),
            (meta.mode(), meta.uid(), if meta.is_dir() { 0 } else { meta.len() }, content),
        );
        if meta.is_dir() {
            next.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

/// A command as a user of the host who has only that ID.
pub fn as_nobody(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", program])
        .args(args);
    command
}
