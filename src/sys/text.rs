//! Makes text from untrusted sources safe to show. One rule for the journal, tables,
//! messages and files: characters that move the cursor, change the reading order or are
//! invisible are escaped. Pure.

/// Characters that look like others, or like nothing: Unicode's Bidi_Control,
/// Default_Ignorable_Code_Point, line and paragraph separators, and interlinear annotations.
/// Variation selectors are included: two names that differ only in them look the same.
///
/// # References
/// Unicode 15, PropList.txt and DerivedCoreProperties.txt; UTR #36, 3 (non-visual security).
const DECEPTIVE: [(u32, u32); 22] = [
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
    (0xF0000, 0xFFFFD),
    (0x100000, 0x10FFFF),
];

/// Whether a character must not be shown as it is.
pub(crate) fn is_deceptive(c: char) -> bool {
    let n = u32::from(c);
    c.is_control() || DECEPTIVE.iter().any(|(first, last)| (*first..=*last).contains(&n))
}

/// The start of a text, `most` bytes at most, since a container can write text of any length.
pub(crate) fn head(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// Text as one line in which no character moves the cursor or is hidden: `\n`, `\u{202e}`.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Bytes of a path or a name as text for a record. If they are not UTF-8 or contain a character
/// that must not be shown, everything but ASCII is escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(s) if !s.chars().any(is_deceptive) => s.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// JSON with the same meaning that is safe to show. Such characters occur only in its strings,
/// where JSON has an escape for each.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // A line feed outside of strings is part of JSON's layout.
        if is_deceptive(c) && c != '\n' {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|u| out += &format!("\\u{u:04x}"));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_escaped() {
        let ranges: [(u32, u32); 16] = [
            (0x00, 0x1F),
            (0x7F, 0x9F),
            (0x00AD, 0x00AD),
            (0x061C, 0x061C),
            (0x180E, 0x180E),
            (0x200B, 0x200F),
            (0x2028, 0x2029),
            (0x202A, 0x202E),
            (0x2060, 0x2064),
            (0x2066, 0x2069),
            (0xFE00, 0xFE0F),
            (0xFEFF, 0xFEFF),
            (0xE0000, 0xE007F),
            (0xE0100, 0xE01EF),
            (0x3164, 0x3164),
            (0xFFF9, 0xFFFB),
        ];
        for c in ranges.iter().flat_map(|(a, b)| *a..=*b).map(|n| char::from_u32(n).unwrap()) {
            let text = format!("a{c}b");
            for shown in [one_line(&text), printable(text.as_bytes())] {
                assert!(shown.is_ascii() && shown.len() > 3, "{:04X}: {shown:?}", u32::from(c));
                assert!(!shown.chars().any(is_deceptive), "{shown:?}");
            }
        }
    }

    #[test]
    fn what_can_be_read_stays() {
        for text in
            ["nginx", "/usr/bin/a b", "é", "日本語", "עברית", "हिन्दी", "\u{1f600}", "\u{2014}"]
        {
            assert_eq!((one_line(text), printable(text.as_bytes())), (text.into(), text.into()));
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(one_line("a\nb\x1b[2J\u{9b}é"), "a\\nb\\u{1b}[2J\\u{9b}é");
        assert_eq!(one_line("a\u{202e}cba\u{2028}"), "a\\u{202e}cba\\u{2028}");
        assert_eq!(printable(b"a\xff\n"), "a\\xff\\n");
        assert_eq!(printable("a\u{202e}".as_bytes()), "a\\xe2\\x80\\xae");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"a": "x\u{202e}\u{e0041}\u{7f}\u{9b}y", "b": ["é\n"]});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = json(&text);
            assert!(!shown.chars().any(|c| c != '\n' && is_deceptive(c)), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
