//! Files that a module's file, or its debug information, names. The reader cannot open anything: it
//! says what it wants, its caller opens that, and it reads again.

use serde::{Deserialize, Serialize};

/// A file that a module needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct NeededFile {
    pub module: usize,
    pub link: Link,
}

/// How a file is named. The first two are asked of servers only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Link {
    /// The module's file itself, by its build-id.
    Executable,
    /// Its separate debug information, by its build-id.
    DebugInfo,
    /// Separate debug information: the file name in `.gnu_debuglink`.
    Debug(String),
    /// What several files of debug information have in common, as dwz makes it: the path and the
    /// build-id in `.gnu_debugaltlink`.
    Supplementary {
        /// Absolute, or relative to the directory of the file that names it.
        path: String,
        /// In hexadecimal.
        build_id: String,
    },
    /// A `.dwo` file of split DWARF: its name, and the directory that this is relative to.
    Split {
        /// Where the compiler ran.
        directory: String,
        /// As the compiler was told.
        path: String,
    },
}

/// Most files of split DWARF for one module.
pub(crate) const MOST_SPLIT: usize = 128;
/// Longest path of a wanted file, in bytes (PATH_MAX).
const LONGEST: usize = 4096;

/// A path in a file, if it can be one.
pub(super) fn path(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let good = !text.is_empty() && text.len() < LONGEST && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

/// A file name without a directory.
pub(super) fn name(bytes: &[u8]) -> Option<String> {
    path(bytes).filter(|name| !name.contains('/') && name != "." && name != "..")
}
