//! How much of a process's memory its core keeps. Pure.

use serde::{Deserialize, Serialize};

/// How much of the memory a core keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeptMemory {
    /// All that the kernel dumps.
    #[default]
    All,
    /// The stacks, what a debugger needs to find the libraries, global variables, and the pages
    /// that registers and stacks point to, within bounds: a small core.
    Stacks,
    /// The stacks, and what a debugger needs to find the libraries: nothing of the heap.
    StacksOnly,
}

impl KeptMemory {
    /// All of them.
    pub(crate) const ALL: [KeptMemory; 3] =
        [KeptMemory::All, KeptMemory::Stacks, KeptMemory::StacksOnly];

    /// The word for it in the configuration and the annotation.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            KeptMemory::All => "all",
            KeptMemory::Stacks => "stacks",
            KeptMemory::StacksOnly => "stacks-only",
        }
    }

    /// What a core of it has, for people.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            KeptMemory::All => "all",
            KeptMemory::Stacks => "stacks, global variables and what is pointed to",
            KeptMemory::StacksOnly => "stacks, and nothing of the heap,",
        }
    }

    /// Whether the core has all of it.
    pub(crate) fn is_all(&self) -> bool {
        *self == KeptMemory::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_serde_writes() {
        for one in KeptMemory::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
    }
}
