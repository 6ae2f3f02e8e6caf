//! Where the files of a bundle are written: a directory or an archive.

use super::announced::Announced;
use anyhow::Result;
use std::path::Path;

/// Where the files of a bundle are written.
pub(super) trait BundleSink {
    /// Adds a file with its holes.
    fn file(&mut self, name: &Path, file: &mut Announced) -> Result<()>;
    /// Adds a short text; `program` makes it executable.
    fn text(&mut self, name: &Path, text: &str, program: bool) -> Result<()>;
    /// Adds a symbolic link.
    fn link(&mut self, name: &Path, target: &Path) -> Result<()>;
}
