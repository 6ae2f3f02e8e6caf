//! Containers whose first process starts the program that dies: it is always PID
//! 100, whoever writes the core.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

use support::bundle::Bundle;
use support::crasher::{crasher, parent};
use support::host::Host;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ended};

/// The core by the pattern `/dump/core`.
pub const CORE: &str = "core.100";

/// SIGSEGV, and the bit that says that there is a core.
pub const DUMPED: i32 = 11 | 0x80;

/// A bundle with the crashing programs, and a volume at /dump which every user may write.
pub fn bundle(pattern: &str, program: &[&str]) -> (Bundle, TempDir) {
    let volume = TempDir::with_prefix("volume").unwrap();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut bundle = support::scene::bundle();
    bundle.rootfs().put(crasher(), "/bin/crasher");
    bundle.rootfs().put(parent(), "/bin/parent");
    bundle.args(&[&["/bin/parent", "--pid", "100", "--core", "unlimited", "--"], program].concat());
    bundle.annotation(ECI, pattern).bind(volume.path(), "/dump");
    (bundle, volume)
}

/// Runs the container to its end; the wait status of the program.
pub fn run(bundle: &Bundle, id: &str) -> i32 {
    bundle.write();
    // Its end is the container's, too: runc removes it itself.
    let output = Runtime::new(Kind::Runc)
        .command()
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(id)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let (pid, status) = ended(&said);
    assert_eq!(pid, 100, "{said}");
    status
}

/// The same with the kernel's own file mode in our place.
pub fn run_with_the_kernels(host: &Host, bundle: &mut Bundle, pattern: &str, id: &str) -> i32 {
    let (ours, hooks) = (host.sysctl("kernel/core_pattern"), bundle.config["hooks"].take());
    host.set("kernel/core_pattern", pattern);
    host.set("kernel/core_uses_pid", "1");
    let status = run(bundle, id);
    bundle.config["hooks"] = hooks;
    host.set("kernel/core_pattern", &ours);
    status
}

/// Takes a core away: its bytes, and the blocks of 512 bytes that it had.
pub fn take(path: &Path) -> (Vec<u8>, u64) {
    let found = (
        fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}")),
        path.metadata().unwrap().blocks(),
    );
    fs::remove_file(path).unwrap();
    found
}
