//! What differs between languages.

use crate::corefile::entries::Die;
use addr2line::gimli::{self, AttributeValue};

/// How values are written, and which types are containers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// `{a = 1}`: C, C++ and all that is not named here.
    C,
    /// As C; `[]T` is a slice.
    Go,
    /// `Name {a: 1}`
    Rust,
}

impl Language {
    /// That of a function's compilation unit.
    pub(super) fn of(function: &Die<'_, '_>) -> Self {
        let root = function.unit.unit.entries().next_dfs().ok().flatten().cloned();
        match root.and_then(|root| root.attr_value(gimli::DW_AT_language)) {
            Some(AttributeValue::Language(gimli::DW_LANG_Rust)) => Language::Rust,
            Some(AttributeValue::Language(gimli::DW_LANG_Go)) => Language::Go,
            _ => Language::C,
        }
    }
}
