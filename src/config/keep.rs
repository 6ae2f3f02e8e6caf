//! How much of a process's memory its core keeps. Pure.

use serde::{Deserialize, Serialize};

/// How much of the memory a core keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// All that the kernel dumps.
    #[default]
    All,
    /// The stacks, what a debugger needs to find the libraries, global variables, and the pages
    /// that registers and stacks point to, within bounds: a small core.
    Stacks,
    /// The stacks, and what a debugger needs to find the libraries: nothing of the heap.
    StacksOnly,
}

impl Keep {
    /// All of them.
    pub(crate) const ALL: [Keep; 3] = [Keep::All, Keep::Stacks, Keep::StacksOnly];

    /// The word for it in the configuration and the annotation.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Keep::All => "all",
            Keep::Stacks => "stacks",
            Keep::StacksOnly => "stacks-only",
        }
    }

    /// What a core of it has, for people.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Keep::All => "all",
            Keep::Stacks => "stacks, global variables and what is pointed to",
            Keep::StacksOnly => "stacks, and nothing of the heap,",
        }
    }

    /// Whether the core has all of it.
    pub(crate) fn is_all(&self) -> bool {
        *self == Keep::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_serde_writes() {
        for one in Keep::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
    }
}
