//! The text of a value, up to a bound, and what stands for one that is not there.

use super::location::Missing;
use std::fmt::Write as _;

pub(super) const OPTIMIZED_OUT: &str = "<optimized out>";

/// A text that is written up to a bound, of which whoever writes takes notice.
pub(super) struct BoundedText {
    pub text: String,
    /// Bytes.
    pub most: usize,
}

impl BoundedText {
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= self.most
    }

    pub(super) fn add(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Says why there is no value.
    pub(super) fn add_missing(&mut self, missing: &Missing) {
        match missing {
            Missing::OptimizedOut => self.add(OPTIMIZED_OUT),
            Missing::NotInCore(address) => self.add_not_in_core(*address),
        }
    }

    pub(super) fn add_not_in_core(&mut self, address: u64) {
        let _ = write!(self.text, "<not in the core: {address:#x}>");
    }
}
