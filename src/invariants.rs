//! Invariants of patterns and requests, whatever bytes they were made of. For the readers of
//! untrusted input in [`crate::fuzzing`] and in the entry points.

use crate::annotation::{self, Annotations};
use crate::container_identity::ContainerIdentity;
use crate::pattern::{MAX_LEN, Pattern, Specifiers, escaped};

/// The specifiers of a crash whose names the input gives.
pub(crate) fn crash(text: &[u8]) -> Specifiers {
    let word = |n| escaped(text.split(|b| *b == b'\n').nth(n).unwrap_or_default());
    Specifiers {
        hostname: word(0),
        comm: word(1),
        exe_name: word(2),
        exe_path: word(3),
        pid: text.len() as i32,
        ..Specifiers::default()
    }
}

/// What must hold of every request that is granted.
pub(crate) fn asked(all: &Annotations) {
    let names = ContainerIdentity::of("", all).names;
    let container = names.container_name.as_deref();
    annotation::is_sandbox(all);
    annotation::required(all, container);
    let default = "core".parse().expect("it is a name");
    let Ok(Some(wishes)) = annotation::wishes(all, container, Some(&default)) else { return };
    granted(&wishes.pattern, b"..\n.\n\n/../x");
    assert!(wishes.filter.is_none_or(|mask| mask <= 0x1ff));
}

/// What must hold of a container's pattern: it names a file, and no crash
/// makes its path lead upwards.
pub(crate) fn granted(pattern: &Pattern, names: &[u8]) {
    let text = pattern.text();
    assert!(
        !text.is_empty()
            && text.len() <= MAX_LEN
            && !matches!(text[0], b'|' | b'@')
            && !text.iter().any(u8::is_ascii_control)
    );
    for append_pid in [false, true] {
        let path = pattern.expand(&crash(names), append_pid);
        assert!(
            !path.split(|b| *b == b'/').any(|part| part == b".."),
            "{pattern}: {}",
            path.escape_ascii()
        );
    }
    if let Some(directory) = pattern.directory() {
        assert!(
            directory.starts_with('/')
                && !directory.contains("//")
                && !directory.split('/').any(|part| part == ".."),
            "{pattern}: {directory}"
        );
    }
}
