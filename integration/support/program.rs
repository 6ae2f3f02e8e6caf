//! The program under test, and where this repository and its target directory are.
//!
//! cargo builds the program, and says where it is, only for the tests of its own package. For the
//! integration tests it is built before: by `make test`, or by `cargo build`.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The program, of the profile that the tests were built with.
///
/// # Panics
///
/// If it is missing, or older than one of its sources: then the tests would test another program.
pub fn program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = profile().join("oci-coredump");
        if let Some(why) = unfit(&path) {
            panic!(
                "{why}: run the integration tests by `make test`, which builds the program first, \
                 or run `cargo build` before"
            );
        }
        path
    })
}

/// The repository that the tests were built from.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The directory for what the tests compile: what cargo calls `CARGO_TARGET_TMPDIR`.
pub fn scratch() -> PathBuf {
    profile().with_file_name("tmp")
}

/// The directory of the profile in the target directory. A test is in its directory `deps`.
fn profile() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    assert_eq!(deps.file_name().unwrap(), "deps", "{test:?} is not where cargo puts tests");
    deps.parent().unwrap().to_owned()
}

/// Why the program must not be tested. cargo lists the sources of a program beside it; a virtual
/// machine has the program only.
fn unfit(program: &Path) -> Option<String> {
    let Some(built) = modified(program) else {
        return Some(format!("{} does not exist", program.display()));
    };
    let rule = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let sources = rule.split_once(": ").map_or("", |(_, sources)| sources);
    let newer = sources.split_whitespace().find(|source| modified(Path::new(source)) > Some(built));
    newer.map(|source| format!("{} is older than {source}", program.display()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}
