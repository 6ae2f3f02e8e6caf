//! Paths in a record, which may be any bytes.

use crate::sys::proc::printable;

/// A path as a record has it: its printable text, and its bytes in hexadecimal where the text is not
/// the same.
pub(super) fn text_and_hex(path: Option<&[u8]>) -> (Option<String>, Option<String>) {
    let text = path.map(printable);
    let same = text.as_ref().map(String::as_bytes) == path;
    (text, path.filter(|_| !same).map(|p| p.iter().map(|b| format!("{b:02x}")).collect()))
}

/// The bytes of such a path.
pub(super) fn bytes(text: Option<&String>, hex: Option<&String>) -> Option<Vec<u8>> {
    let Some(hex) = hex else { return text.map(|t| t.as_bytes().to_vec()) };
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        for path in [
            &b"/d/core"[..],
            b"/d/c\xff\xfe",
            b"/d/a\nb",
            b"/d/literal\\xff",
            "/d/\u{e9}".as_bytes(),
            b"",
        ] {
            let (text, hex) = text_and_hex(Some(path));
            assert_eq!(bytes(text.as_ref(), hex.as_ref()).as_deref(), Some(path));
            assert_eq!(hex.is_some(), text.unwrap().as_bytes() != path, "{path:?}");
        }
        assert_eq!(bytes(None, None), None);
    }
}
