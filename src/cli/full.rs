//! `--full`: whether arguments and local variables are shown, of how many frames, and what is kept
//! out.

use crate::config::Config;
use crate::corefile::VariableOptions;
use anyhow::Result;

/// Most frames whose variables are shown.
const MOST: u64 = 64;

/// What is shown of variables.
#[derive(Debug, clap::Args)]
pub(super) struct Full {
    /// Show the arguments and local variables of the innermost functions of the thread that
    /// crashed, as far as debug information has them. They may be secrets: the values of names that
    /// match `hide` in the configuration are left out.
    #[arg(long)]
    full: bool,
    /// With --full: of how many functions, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "full")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MOST))]
    frames: u64,
    /// With --full: leave out text and the contents of containers; numbers and addresses stay.
    #[arg(long, requires = "full")]
    no_strings: bool,
}

impl Full {
    /// What is asked of the reader; nothing without `--full`.
    ///
    /// # Errors
    /// The configuration cannot be read, which has the names that are to be hidden.
    pub(super) fn options(&self) -> Result<Option<VariableOptions>> {
        if !self.full {
            return Ok(None);
        }
        let frames = usize::try_from(self.frames)?;
        Ok(Some(VariableOptions { frames, contents: !self.no_strings, hide: Config::load()?.hide }))
    }
}
