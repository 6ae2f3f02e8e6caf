//! Requirements of a test. With `CI` set, a missing tool is a failure; without it the test prints
//! `SKIPPED: why` on the real standard error (which libtest does not capture) and ends.
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Where `program` is on `PATH`, or in cargo's directory of installed programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), home.join(".cargo/bin")])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// True if every one of `programs` is there. Otherwise a failure in CI, and a counted
/// `SKIPPED` line elsewhere.
#[must_use]
pub fn programs(programs: &[&str]) -> bool {
    match programs.iter().find(|program| find(program).is_none()) {
        None => true,
        Some(missing) => skip(&format!("{missing} is not installed")),
    }
}

/// Reports a skip (always returns false), or fails where CI is set: there nothing may be skipped.
pub fn skip(why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "CI is set and this cannot be tested: {why}");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // A closed standard error is no reason to fail a test.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why} ({count} skipped so far)");
    false
}

/// The integration tests change sysctls and start containers.
pub fn root() {
    assert!(rustix::process::geteuid().is_root(), "the integration tests need root");
}
