//! Filters what a program that displays hostile text may send to a terminal. Text, colours and
//! cursor movement pass; titles, clipboards, modes that outlast the program, and requests that
//! the terminal answers do not.
//!
//! # References
//! ECMA-48; console_codes(4): control strings (OSC, DCS, APC, PM, SOS) end with ST, or with BEL.

/// Position of the stream within an escape sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EscapeSequence {
    #[default]
    Text,
    /// After an ESC, whose meaning the next byte decides.
    Escape,
    /// In a control sequence: `ESC [` and the bytes up to its final one.
    Sequence,
    /// In a control string, which is dropped.
    Dropped,
    /// After an ESC in a control string.
    DroppedEscape,
}

/// A filter for one stream.
#[derive(Debug, Default)]
pub(crate) struct Tame {
    state: EscapeSequence,
    /// The bytes of the sequence that is not complete yet.
    held: Vec<u8>,
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// Longest control sequence in bytes.
const LONGEST: usize = 64;

/// Final bytes of control sequences that terminals answer (DA, DSR, DECRQM), or that
/// set what outlasts the program: window operations (`t`), media copy (`i`), key
/// mappings and the like (`p`, `q`).
const DROPPED: &[u8] = b"cntipq";

impl Tame {
    /// Returns what may pass of the next bytes.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.one(*byte, &mut out);
        }
        out
    }

    fn one(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (self.state, byte) {
            (EscapeSequence::Text, ESC) => EscapeSequence::Escape,
            (EscapeSequence::Text, _) => {
                out.push(byte);
                EscapeSequence::Text
            }
            (EscapeSequence::Escape, b'[') => {
                self.held.clear();
                EscapeSequence::Sequence
            }
            (EscapeSequence::Escape, b']' | b'P' | b'X' | b'^' | b'_') => EscapeSequence::Dropped,
            (EscapeSequence::Escape, ESC) => EscapeSequence::Escape,
            // DECID asks for an answer, RIS resets the terminal.
            (EscapeSequence::Escape, b'Z' | b'c') => EscapeSequence::Text,
            (EscapeSequence::Escape, _) => {
                out.extend([ESC, byte]);
                EscapeSequence::Text
            }
            (EscapeSequence::Sequence, ESC) => EscapeSequence::Escape,
            (EscapeSequence::Sequence, 0x40..=0x7e) => {
                if !DROPPED.contains(&byte) && self.held.len() < LONGEST {
                    out.extend([ESC, b'[']);
                    out.append(&mut self.held);
                    out.push(byte);
                }
                EscapeSequence::Text
            }
            (EscapeSequence::Sequence, _) => {
                if self.held.len() < LONGEST {
                    self.held.push(byte);
                }
                EscapeSequence::Sequence
            }
            (EscapeSequence::Dropped, BEL) | (EscapeSequence::DroppedEscape, b'\\') => {
                EscapeSequence::Text
            }
            (EscapeSequence::Dropped | EscapeSequence::DroppedEscape, ESC) => {
                EscapeSequence::DroppedEscape
            }
            // A string without an end would drop everything after it, so a line break ends it.
            (EscapeSequence::Dropped | EscapeSequence::DroppedEscape, b'\n' | b'\r') => {
                out.push(byte);
                EscapeSequence::Text
            }
            (EscapeSequence::Dropped | EscapeSequence::DroppedEscape, _) => EscapeSequence::Dropped,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes() {
        for (said, passes) in [
            ("plain \u{e9}\r\n\t\u{7}", "plain \u{e9}\r\n\t\u{7}"),
            ("\x1b[1;31mred\x1b[0m\x1b[2K\x1b[10;20H", "\x1b[1;31mred\x1b[0m\x1b[2K\x1b[10;20H"),
            ("\x1b[?2004h\x1bM\x1b=", "\x1b[?2004h\x1bM\x1b="),
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x1b]52;c;cm0gLXJm\x1b\\b", "ab"),
            ("a\x1bP$q\"p\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", "abcde"),
            ("a\x1b[6nb\x1b[cc\x1b[>0cd\x1b[21te\x1bZf\x1bcg\x1b[?1$p\x1b[>qh", "abcdefgh"),
            ("a\x1b]0;never ends\nb", "a\nb"),
            ("a\x1b]0;x\x1b]0;y\x07b", "ab"),
        ] {
            let whole = Tame::default().pass(said.as_bytes());
            assert_eq!(String::from_utf8(whole).unwrap(), passes, "{said:?}");
            let mut tame = Tame::default();
            let pieces: Vec<u8> = said.bytes().flat_map(|byte| tame.pass(&[byte])).collect();
            assert_eq!(String::from_utf8(pieces).unwrap(), passes, "{said:?}");
        }
    }
}
