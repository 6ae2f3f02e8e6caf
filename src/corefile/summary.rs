//! A crash in a few words: the functions where it happened, and a hash by which the same crash is
//! recognised.

use super::binary::{self, ModuleFiles};
use super::image::CoreImage;
use super::modules;
use super::names::ModuleNames;
use super::results::{Frame, TRAMPOLINE};
use super::tail_calls;
use super::unwind::StackUnwinder;
use crate::elf::{Source, hex};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Most functions that are told of, and most that make the hash. The outer ones differ where the
/// same fault is reached in several ways, but they say in which.
const MOST: usize = 12;
const HASHED: usize = 8;
/// Longest function in a summary, in characters.
const LONGEST: usize = 160;
/// Bytes of the hash.
const HASH: usize = 8;

/// The stack of the thread that crashed, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Its functions, the innermost first: `function (file:line)`, or `module+0xoffset`.
    pub stack: Vec<String>,
    /// A hash in hexadecimal of the signal and the innermost functions, without addresses and
    /// lines: the same for the same crash, also of another process or a build of nearly the same
    /// source.
    pub hash: String,
}

/// Summarizes the stack of the thread that crashed. `files` are the files of the core's modules.
///
/// # Errors
/// The file is not a core that can be read.
pub(crate) fn summary(source: &dyn Source, files: &[ModuleFiles<'_>]) -> Result<Summary> {
    let image = CoreImage::parse(source)?;
    let modules = modules::of(&image);
    let none = ModuleFiles::default();
    let binaries: Vec<_> = modules
        .iter()
        .enumerate()
        .map(|(i, m)| binary::open(m, files.get(i).unwrap_or(&none), &image.memory))
        .collect();
    let unwound = StackUnwinder::new(&image, &modules, &binaries).unwind(&image.notes.threads[0]);
    let names = ModuleNames::new(&modules, &binaries);
    let mut frames = tail_calls::stack(&names, &unwound.frames);
    frames.retain(|f| f.function.as_deref() != Some(TRAMPOLINE));
    let path = |f: &Frame| f.module.map(|i| base(&modules[i].module.path).to_owned());
    let place = |f: &Frame| match (path(f), f.offset) {
        (Some(module), Some(offset)) => format!("{module}+{offset:#x}"),
        _ => "??".to_owned(),
    };
    let mut hasher = blake3::Hasher::new();
    let signal = image.notes.signal.as_ref().map_or(0, |s| s.number);
    hasher.update(&signal.to_le_bytes());
    for f in frames.iter().take(HASHED) {
        let function = f.function.clone().unwrap_or_else(|| place(f));
        hasher.update(path(f).unwrap_or_default().as_bytes());
        hasher.update(b"\0").update(function.as_bytes()).update(b"\0");
    }
    let text = |f: &Frame| {
        let function = f.function.as_deref().map_or_else(|| place(f), without_arguments);
        let at = f.file.as_ref().map(|file| match f.line {
            Some(line) => format!(" ({}:{line})", base(file)),
            None => format!(" ({})", base(file)),
        });
        (function + &at.unwrap_or_default()).chars().take(LONGEST).collect()
    };
    Ok(Summary {
        stack: frames.iter().take(MOST).map(text).collect(),
        hash: hex(&hasher.finalize().as_bytes()[..HASH]).unwrap_or_default(),
    })
}

/// `shop::Basket::sum` of `shop::Basket::sum() const`: a demangled C++ name without its arguments.
pub(crate) fn without_arguments(name: &str) -> String {
    let start = name.rfind(')').and_then(|end| {
        let mut depth = 0usize;
        name[..=end].char_indices().rev().find_map(|(i, c)| {
            match c {
                ')' => depth += 1,
                '(' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0).then_some(i)
        })
    });
    // `(anonymous namespace)::f`, `main.(*till).open` and `operator()` have no arguments there.
    match start {
        Some(at) if at > 0 && !name.ends_with("()") && is_end(&name[at..]) => name[..at].to_owned(),
        Some(at) if at > 0 && name.ends_with("()") && !name[..at].ends_with("operator") => {
            name[..at].to_owned()
        }
        _ => name.to_owned(),
    }
}

fn is_end(rest: &str) -> bool {
    let after = rest.rsplit(')').next().unwrap_or_default();
    matches!(after, "" | " const" | " &" | " &&" | " const &" | " volatile")
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_arguments() {
        for (name, expected) in [
            ("main", "main"),
            ("shop::Basket::sum() const", "shop::Basket::sum"),
            ("sell(shop::Basket const&)", "sell"),
            ("f(void (*)(int), int)", "f"),
            ("main.(*till).open", "main.(*till).open"),
            ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
            ("X::operator()(int) const", "X::operator()"),
            ("X::operator()", "X::operator()"),
            ("f()", "f"),
        ] {
            assert_eq!(without_arguments(name), expected, "{name}");
        }
    }
}
