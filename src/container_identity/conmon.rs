//! Finds the name of podman's containers. Their configuration does not contain it;
//! conmon, the monitor that podman starts for each container as a parent of the runtime,
//! has it on its command line.

use crate::sys::proc::{Proc, printable};
use std::path::Path;

/// How many parents are examined: the runtime, perhaps a wrapper or two of it, then conmon.
const DEPTH: usize = 6;

/// The name of a container of podman's, for a process that its runtime has started.
pub(super) fn name(id: &str) -> Option<String> {
    let mut pid = std::process::id() as i32;
    for _ in 0..DEPTH {
        pid = Proc::open(pid).and_then(|p| p.status()).ok()?.parent;
        let line = Proc::open(pid).and_then(|p| p.read("cmdline")).ok()?;
        if let Some(name) = named(&line, id) {
            return Some(name);
        }
    }
    None
}

/// The name in a command line of conmon(8) for the container `id`: `--cid ID --name NAME`, which
/// podman writes as `-c` and `-n`.
fn named(line: &[u8], id: &str) -> Option<String> {
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    let program = words.first().and_then(|w| std::str::from_utf8(w).ok()).map(Path::new)?;
    let value = |option: &[u8]| words.windows(2).find(|w| w[0] == option).map(|w| w[1]);
    (program.file_name()? == "conmon" && value(b"-c")? == id.as_bytes())
        .then(|| value(b"-n").map(printable))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn command_lines() {
        let line = b"/usr/bin/conmon\0--api-version\x001\0-c\0abc\0-u\0abc\0\
                     -r\0/usr/bin/crun\0-n\0shop\0--exit-dir\0/run\0";
        assert_eq!(named(line, "abc").as_deref(), Some("shop"));
        assert_eq!(named(line, "ab"), None);
        assert_eq!(named(b"/usr/bin/crun\0-c\0abc\0-n\0shop\0", "abc"), None);
        assert_eq!(named(b"conmon\0-c\0abc\0-n", "abc"), None);
        assert_eq!(named(b"", "abc"), None);
    }
}
