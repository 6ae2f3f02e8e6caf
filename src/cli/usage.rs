//! Command lines that the parser takes and that are wrong all the same.

use std::fmt;

/// What is wrong with the command line. The exit status is then 2, as for what the parser refuses.
#[derive(Debug)]
pub(super) struct WrongUsage(pub String);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}
