//! core(5) templates: parse, validate, expand. Pure.
//!
//! In: the text of a `core_pattern`. Out: a [`Pattern`], if a container may have it, or any
//! [`Template`] of the host's; and, given the facts of a crash, the file name that the kernel would
//! have made of it. No access to files, processes or the clock.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// The longest pattern in bytes: the kernel's `CORENAME_MAX_SIZE` is 128 including the NUL.
pub(crate) const MAX_LEN: usize = 127;

/// What is added to the name of a core that is compressed.
pub(crate) const COMPRESSED: &str = ".zst";

/// The values of core(5)'s specifiers for one crash. `hostname`, `comm`, `exe_name` and `exe_path`
/// are already escaped, as the kernel escapes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Specifiers {
    /// `%p`: thread-group ID in the crasher's own PID namespace.
    pub pid: i32,
    /// `%P`: thread-group ID in the initial PID namespace.
    pub host_pid: i32,
    /// `%i`: thread ID in the crasher's own PID namespace.
    pub tid: i32,
    /// `%I`: thread ID in the initial PID namespace.
    pub host_tid: i32,
    /// `%u`: real user ID in the initial user namespace.
    pub uid: u32,
    /// `%g`: real group ID in the initial user namespace.
    pub gid: u32,
    /// `%d`: dump mode, 0 to 2.
    pub dump_mode: u32,
    /// `%s`: signal number.
    pub signal: i32,
    /// `%t`: seconds since the epoch.
    pub time: i64,
    /// `%c`: soft `RLIMIT_CORE` in bytes; `u64::MAX` is unlimited.
    pub limit: u64,
    /// `%C`: CPU number. `None` if the kernel does not know the specifier (6.1 does
    /// not), which then drops it.
    pub cpu: Option<i32>,
    /// `%F`: number of the pidfd, if the kernel gave one. Only in arguments of a pipe helper.
    pub pidfd: Option<i32>,
    /// `%h`: host name, escaped.
    pub hostname: Vec<u8>,
    /// `%e`: comm of the crashing thread, escaped.
    pub comm: Vec<u8>,
    /// `%f`: file name of the executable, escaped.
    pub exe_name: Vec<u8>,
    /// `%E`: path of the executable, escaped.
    pub exe_path: Vec<u8>,
}

/// What the kernel is asked to say to the dispatcher, in this order, after the verb and the version
/// of this list. `dump::crash::arguments` reads it.
pub(crate) const HANDLE_SPECIFIERS: [&str; 16] = [
    "%P", "%p", "%I", "%i", "%u", "%g", "%d", "%s", "%t", "%c", "%C", "%F", "%h", "%e", "%f", "%E",
];

/// A value of `%h`, `%e`, `%f` or `%E` as the kernel escapes it, so that it is one component of a
/// path.
pub(crate) fn escaped(value: &[u8]) -> Vec<u8> {
    let mut out = value.to_vec();
    if matches!(value, b"" | b"." | b"..") {
        out.splice(..value.len().min(1), *b"!");
    }
    out.iter_mut().filter(|b| **b == b'/').for_each(|b| *b = b'!');
    out
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Specifier(u8),
}

/// A parsed template. Equal texts are equal templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Vec<u8>,
    pieces: Vec<Piece>,
}

/// Why a container's pattern is refused. Displayed after the name of the annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The text is empty.
    Empty,
    /// It starts with `|`: a program on the host.
    Pipe,
    /// It starts with `@`: a socket on the host.
    Socket,
    /// It is longer than 127 bytes; holds its length.
    TooLong(usize),
    /// It contains a NUL or another control character.
    Control(u8),
    /// It has `..` as a path component.
    Parent,
    /// Its last component is empty or `.`.
    Directory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Empty => write!(f, "a pattern may not be empty"),
            Refusal::Pipe => {
                write!(f, "a container may not name a program (`|`); give the path of a file")
            }
            Refusal::Socket => {
                write!(f, "a container may not name a socket (`@`); give the path of a file")
            }
            Refusal::TooLong(n) => {
                write!(f, "a pattern has at most {MAX_LEN} bytes, this one has {n}")
            }
            Refusal::Control(b) => {
                write!(f, "a pattern may not hold control characters, this one has \\x{b:02x}")
            }
            Refusal::Parent => write!(f, "a pattern may not have `..` as a component"),
            Refusal::Directory => write!(f, "it names a directory: add a file name"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The `core_pattern` of a container: a template that follows the rules of [`Refusal`], and so
/// names a file below the container's root and nothing else. In files it is its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Template);

impl FromStr for Pattern {
    type Err = Refusal;

    /// The error is the first rule that the text breaks.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let text = text.as_bytes();
        match text.first() {
            None => return Err(Refusal::Empty),
            Some(b'|') => return Err(Refusal::Pipe),
            Some(b'@') => return Err(Refusal::Socket),
            Some(_) => {}
        }
        if text.len() > MAX_LEN {
            return Err(Refusal::TooLong(text.len()));
        }
        if let Some(b) = text.iter().find(|b| b.is_ascii_control()) {
            return Err(Refusal::Control(*b));
        }
        let template = Template::parse(text);
        // An unknown specifier expands to nothing: `/a/.%z./core` becomes `/a/../core`. So the rule
        // is applied to the expanded path.
        let shape = template.expand_argument(&Specifiers::shape());
        if shape.split(|b| *b == b'/').any(|c| c == b"..") {
            return Err(Refusal::Parent);
        }
        if matches!(shape.rsplit(|b| *b == b'/').next(), Some(b"" | b".")) {
            return Err(Refusal::Directory);
        }
        Ok(Pattern(template))
    }
}

impl TryFrom<String> for Pattern {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

impl Deref for Pattern {
    type Target = Template;

    fn deref(&self) -> &Template {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Its text, quoted.
impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl Template {
    /// Parses a template of the host's, which is accepted as it is: the administrator is trusted,
    /// and the kernel refuses nothing either.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.iter().copied();
        while let Some(b) = bytes.next() {
            match (b, if b == b'%' { bytes.next() } else { Some(b) }) {
                // A single % at the end is dropped, as in the kernel.
                (_, None) => break,
                (b'%', Some(b'%')) => literal.push(b'%'),
                (b'%', Some(letter)) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Specifier(letter));
                }
                (b, _) => literal.push(b),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Template { text: text.to_vec(), pieces }
    }

    /// The text that the template was parsed from.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the expanded name is relative to the crashed process's working directory.
    pub(crate) fn is_relative(&self) -> bool {
        self.text.first() != Some(&b'/')
    }

    /// The file name for one crash. `append_pid` stands for `kernel.core_uses_pid`, which takes
    /// effect only if the template has no `%p`. `%F` expands to nothing: in its file mode the
    /// kernel does not know that specifier.
    pub(crate) fn expand(&self, with: &Specifiers, append_pid: bool) -> Vec<u8> {
        let mut out = self.pieces_of(with, |specifier| specifier != b'F');
        if append_pid && !self.pieces.contains(&Piece::Specifier(b'p')) {
            out.extend(format!(".{}", with.pid).bytes());
        }
        out
    }

    /// The values of `kernel.core_pattern` and `kernel.core_uses_pid` from which a program computes
    /// the name that its core will have, with `suffix` at its end.
    pub(crate) fn as_sysctls(&self, append_pid: bool, suffix: &str) -> (String, bool) {
        let pid = match append_pid && !self.pieces.contains(&Piece::Specifier(b'p')) {
            true if !suffix.is_empty() => ".%p",
            _ => "",
        };
        (format!("{self}{pid}{suffix}"), append_pid && pid.is_empty())
    }

    /// The text for one crash without the PID that `core_uses_pid` appends: an
    /// argument of a pipe helper.
    pub(crate) fn expand_argument(&self, with: &Specifiers) -> Vec<u8> {
        self.pieces_of(with, |_| true)
    }

    fn pieces_of(&self, with: &Specifiers, known: fn(u8) -> bool) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(l) => out.extend_from_slice(l),
                Piece::Specifier(s) if known(*s) => with.append(*s, &mut out),
                Piece::Specifier(_) => {}
            }
        }
        out
    }

    /// Whether a directory of the path contains a specifier. Such a directory must be made before a
    /// core can be written to it.
    pub(crate) fn varies_by_directory(&self) -> bool {
        let end = self.text.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.text[..end].contains(&b'%')
    }

    /// How many bytes of the text, and of each name that it gives, are the directory that can exist
    /// before any crash, where other directories come below it. `None` where they do not.
    pub(crate) fn fixed_directory(&self) -> Option<usize> {
        let literal = self.text.split(|b| *b == b'%').next()?;
        let end = literal.iter().rposition(|b| *b == b'/')? + 1;
        (self.varies_by_directory() && !self.is_relative()).then_some(end)
    }

    /// The directory that can exist before any crash: the longest directory prefix without a
    /// specifier. `/cores/%e/core` has `/cores`, `/core` has `/`. `None` for a relative template.
    pub(crate) fn directory(&self) -> Option<String> {
        if self.is_relative() {
            return None;
        }
        let literal = self.text.split(|b| *b == b'%').next()?;
        let end = literal.iter().rposition(|b| *b == b'/')?;
        let parts: Vec<_> =
            literal[..end].split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
        Some(format!("/{}", String::from_utf8_lossy(&parts.join(&b'/'))))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.text))
    }
}

impl Specifiers {
    /// Stand-in values for any crash: each is a plain word, as escaped values are.
    fn shape() -> Self {
        let word = || b"x".to_vec();
        Specifiers {
            hostname: word(),
            comm: word(),
            exe_name: word(),
            exe_path: word(),
            ..Default::default()
        }
    }

    /// Appends the value of one specifier. An unknown letter adds nothing, as in the kernel.
    fn append(&self, letter: u8, out: &mut Vec<u8>) {
        let text = match letter {
            b'h' => return out.extend_from_slice(&self.hostname),
            b'e' => return out.extend_from_slice(&self.comm),
            b'f' => return out.extend_from_slice(&self.exe_name),
            b'E' => return out.extend_from_slice(&self.exe_path),
            b'p' => self.pid.to_string(),
            b'P' => self.host_pid.to_string(),
            b'i' => self.tid.to_string(),
            b'I' => self.host_tid.to_string(),
            b'u' => self.uid.to_string(),
            b'g' => self.gid.to_string(),
            b'd' => self.dump_mode.to_string(),
            b's' => self.signal.to_string(),
            b't' => self.time.to_string(),
            b'c' => self.limit.to_string(),
            b'C' => self.cpu.map(|cpu| cpu.to_string()).unwrap_or_default(),
            b'F' => self.pidfd.map(|fd| fd.to_string()).unwrap_or_default(),
            _ => return,
        };
        out.extend(text.bytes());
    }
}

/// What a `core_pattern` of the host makes the kernel do with a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// Pipe it to a program. The first element is its path, the others are its arguments.
    Pipe(Vec<Template>),
    /// Send it to a socket, to which only the kernel can connect.
    Socket,
    /// Write it to a file.
    File(Template),
    /// Write no core.
    Nothing,
}

impl Handler {
    /// Reads a `core_pattern` without its final newline. A pipe's arguments are split before
    /// anything is expanded (Linux 5.3).
    pub(crate) fn of(pattern: &[u8]) -> Self {
        match pattern.first() {
            None => Handler::Nothing,
            Some(b'@') => Handler::Socket,
            Some(b'|') => {
                let words = pattern[1..]
                    .split(|b| matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0xa0))
                    .filter(|w| !w.is_empty());
                Handler::Pipe(words.map(Template::parse).collect())
            }
            Some(_) => Handler::File(Template::parse(pattern)),
        }
    }
}

#[cfg(test)]
mod tests;
