//! core(5) templates: parse, validate, expand. Pure.
//!
//! In: the bytes of a `core_pattern`. Out: a [`Template`] and, with the facts of a crash, the file
//! name that the kernel would have made of it. Never: a file, a process, a clock.

use std::fmt;

/// The kernel's `CORENAME_MAX_SIZE` is 128 bytes with the NUL.
pub const MAX_LEN: usize = 127;

/// The values of core(5)'s specifiers for one crash. `hostname`, `comm`, `exe_name` and `exe_path`
/// are already escaped, as the kernel escapes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specifiers {
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
    /// `%C`: CPU. A kernel that does not know the specifier (6.1 does not) drops it everywhere.
    pub cpu: Option<i32>,
    /// `%F`: the number of the pidfd, where the kernel gave one; in
    /// arguments of a pipe helper only.
    pub pidfd: Option<i32>,
    /// `%h`
    pub hostname: Vec<u8>,
    /// `%e`
    pub comm: Vec<u8>,
    /// `%f`
    pub exe_name: Vec<u8>,
    /// `%E`
    pub exe_path: Vec<u8>,
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
    /// Nothing in it.
    Empty,
    /// Starts with `|`: a program on the host.
    Pipe,
    /// Starts with `@`: a socket on the host.
    Socket,
    /// Longer than 127 bytes.
    TooLong(usize),
    /// Holds a NUL or another control character.
    Control(u8),
    /// Has `..` as a path component.
    Parent,
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
        }
    }
}

impl std::error::Error for Refusal {}

impl Template {
    /// A pattern that a container asks for: a file, and nothing else.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn of_container(text: &[u8]) -> Result<Self, Refusal> {
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
        let template = Self::of_host(text);
        // An unknown specifier vanishes: `/a/.%z./core` becomes `/a/../core`. So the
        // rule judges what is left.
        let shape = template.expand_argument(&Specifiers::shape());
        if shape.split(|b| *b == b'/').any(|c| c == b"..") {
            return Err(Refusal::Parent);
        }
        Ok(template)
    }

    /// A template of the host's own, taken as it is: the administrator is trusted, and the
    /// kernel refuses nothing either.
    pub fn of_host(text: &[u8]) -> Self {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.iter().copied();
        while let Some(b) = bytes.next() {
            match (b, if b == b'%' { bytes.next() } else { Some(b) }) {
                // A single % at the end is dropped.
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

    /// The text that it was made from.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the name is resolved against the crasher's working directory.
    pub fn is_relative(&self) -> bool {
        self.text.first() != Some(&b'/')
    }

    /// The file name for one crash. `append_pid`: `kernel.core_uses_pid`, which acts only where
    /// the template has no `%p`. There is no pidfd in a file name: to the kernel's file mode
    /// `%F` is an unknown specifier.
    pub fn expand(&self, with: &Specifiers, append_pid: bool) -> Vec<u8> {
        let mut out = self.pieces_of(with, |specifier| specifier != b'F');
        if append_pid && !self.pieces.contains(&Piece::Specifier(b'p')) {
            out.extend(format!(".{}", with.pid).bytes());
        }
        out
    }

    /// The text for one crash, without the PID that `core_uses_pid` appends: an
    /// argument of a pipe helper.
    pub fn expand_argument(&self, with: &Specifiers) -> Vec<u8> {
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

    /// Whether a specifier stands in a directory of the path: somebody has to make that directory
    /// before a core can be there.
    pub fn varies_by_directory(&self) -> bool {
        let end = self.text.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.text[..end].contains(&b'%')
    }

    /// The directory that exists before any crash: the longest directory prefix without a
    /// specifier. `None` for a relative template. `/cores/%e/core` has `/cores`, `/core` has `/`.
    pub fn directory(&self) -> Option<String> {
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
    /// A stand-in for every crash: each value is some plain word, as escaped values are.
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

    /// Appends the value of one specifier; an unknown letter is nothing, as in the kernel.
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

/// What a host's `core_pattern` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A program that the core is piped to, with its arguments; the first is its path.
    Pipe(Vec<Template>),
    /// A socket; only the kernel can connect to it.
    Socket,
    /// A file.
    File(Template),
    /// Nothing: no core is written.
    Nothing,
}

impl Handler {
    /// Reads a `core_pattern`, without its final newline. A pipe's arguments are split before
    /// anything is expanded (Linux 5.3).
    pub fn of(pattern: &[u8]) -> Self {
        match pattern.first() {
            None => Handler::Nothing,
            Some(b'@') => Handler::Socket,
            Some(b'|') => {
                let words = pattern[1..]
                    .split(|b| matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0xa0))
                    .filter(|w| !w.is_empty());
                Handler::Pipe(words.map(Template::of_host).collect())
            }
            Some(_) => Handler::File(Template::of_host(pattern)),
        }
    }
}

#[cfg(test)]
mod tests;
