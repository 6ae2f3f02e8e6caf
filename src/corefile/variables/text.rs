//! Text, as C, C++, Rust and Go have it: quoted, on one line, of bounded length.

use super::location::ValueLocation;
use super::members::{named, pointer, unsigned};
use super::types;
use crate::corefile::entries::Die;
use crate::corefile::process_memory::DumpedMemory;
use addr2line::gimli::{self, AttributeValue};

/// Most bytes of a text that are shown.
pub(super) const LONGEST: usize = 200;

/// A text in quotes; `is_cut` if there is more of it.
pub(super) fn quoted(bytes: &[u8], is_cut: bool) -> String {
    let mut out = String::from('"');
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    if is_cut {
        out.push_str("...");
    }
    out
}

/// The text at an address, up to a NUL.
pub(super) fn terminated(process: &DumpedMemory<'_>, address: u64) -> Option<String> {
    let bytes = process.up_to(address, LONGEST)?;
    let end = bytes.iter().position(|b| *b == 0);
    Some(quoted(&bytes[..end.unwrap_or(bytes.len())], end.is_none()))
}

/// The text of an array that may end with a NUL.
pub(super) fn in_array(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    quoted(&bytes[..end.min(LONGEST)], end > LONGEST)
}

/// Whether a type is a character of C.
pub(super) fn is_character(ty: &Die<'_, '_>) -> bool {
    types::size(ty) == Some(1)
        && matches!(
            ty.attr(gimli::DW_AT_encoding),
            Some(AttributeValue::Encoding(gimli::DW_ATE_signed_char | gimli::DW_ATE_unsigned_char))
        )
}

/// Whether an array of such elements may be text: characters of any width, and bytes.
pub(super) fn may_be_of_text(element: &Die<'_, '_>) -> bool {
    const WIDE: [&str; 4] = ["wchar_t", "char8_t", "char16_t", "char32_t"];
    types::chain(element).any(|ty| {
        let is_wide = ty.name().is_some_and(|name| WIDE.contains(&name.as_str()));
        let is_utf =
            || ty.attr(gimli::DW_AT_encoding) == Some(AttributeValue::Encoding(gimli::DW_ATE_UTF));
        let is_base = ty.tag() == gimli::DW_TAG_base_type;
        is_wide || is_base && (is_utf() || types::size(&ty) == Some(1))
    })
}

/// Address and length of the text that a structure is.
pub(super) fn of_structure(
    ty: &Die<'_, '_>,
    location: &ValueLocation,
    process: &DumpedMemory<'_>,
) -> Option<(u64, u64)> {
    let name = ty.name()?;
    let (start, length) = if name == "string" {
        // Go.
        (named(ty, location, "str")?, named(ty, location, "len")?)
    } else if name.starts_with("basic_string<char,") {
        // libstdc++; libc++ has another layout.
        let pointed = named(ty, location, "_M_dataplus")?;
        (pointer(&pointed.0, &pointed.1)?, named(ty, location, "_M_string_length")?)
    } else if name.starts_with("basic_string_view<char,") {
        (named(ty, location, "_M_str")?, named(ty, location, "_M_len")?)
    } else if matches!(name.as_str(), "&str" | "&mut str")
        || name.starts_with("alloc::boxed::Box<str")
    {
        (named(ty, location, "data_ptr")?, named(ty, location, "length")?)
    } else if name == "String" {
        // Rust: a vector of bytes.
        let bytes = named(ty, location, "vec")?;
        (pointer(&bytes.0, &bytes.1)?, named(&bytes.0, &bytes.1, "len")?)
    } else {
        return None;
    };
    Some((unsigned(&start.0, &start.1, process)?, unsigned(&length.0, &length.1, process)?))
}

/// The text with an address and a length; `None` if the core does not have it.
pub(super) fn counted(process: &DumpedMemory<'_>, address: u64, length: u64) -> Option<String> {
    let size = usize::try_from(length).unwrap_or(usize::MAX).min(LONGEST);
    let mut bytes = vec![0; size];
    process.read(address, &mut bytes).or((size == 0).then_some(()))?;
    Some(quoted(&bytes, length > size as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_line() {
        assert_eq!(quoted(b"a\"b\\\n\x1b[31m\xff", false), "\"a\\\"b\\\\\\n\\u{1b}[31m\u{fffd}\"");
        assert_eq!(in_array(b"abc\0\0\0"), "\"abc\"");
        assert_eq!(in_array(&[b'x'; LONGEST + 1]).len(), LONGEST + 5);
    }
}
