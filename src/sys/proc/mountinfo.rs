//! /proc/PID/mountinfo.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of /proc/PID/mountinfo: one mount, see proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// `major:minor` of the file system.
    pub device: String,
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    /// The mount point, below the process's root.
    pub target: PathBuf,
    /// Whether this mount is read-only.
    pub read_only: bool,
}

/// Parses /proc/PID/mountinfo; later lines cover earlier ones.
pub(crate) fn mount_points(text: &[u8]) -> Vec<MountPoint> {
    let path = |word: &[u8]| PathBuf::from(OsString::from_vec(unescape(word)));
    let parse = |line: &[u8]| {
        let mut words = line.split(|b| *b == b' ').skip(2);
        let device = String::from_utf8(words.next()?.to_vec()).ok()?;
        let (root, target, options) = (path(words.next()?), path(words.next()?), words.next()?);
        Some(MountPoint {
            device,
            root,
            target,
            read_only: options.split(|b| *b == b',').any(|o| o == b"ro"),
        })
    };
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// Where the root directory of a process comes from, in the text of its mountinfo: the upper layer
/// of an overlay, else the directory of the file system that is mounted there.
///
/// # References
/// proc_pid_mountinfo(5); the options of an overlay end the line.
pub(crate) fn root_mount(text: &[u8]) -> Option<Vec<u8>> {
    let words = |line: &[u8]| line.split(|b| *b == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let last =
        text.split(|b| *b == b'\n').map(words).rfind(|w| w.get(4).is_some_and(|t| t == b"/"))?;
    let mut options = last.last()?.split(|b| *b == b',');
    let upper = options.find_map(|option| option.strip_prefix(b"upperdir="));
    Some(unescape(upper.unwrap_or(&last[3])))
}

/// Decodes the kernel's escapes, such as `\040` for a blank.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some((first, more)) = rest.split_first() {
        let code = more
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
                     90 80 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n\
                     91 80 254:0 /srv/a\\040b /data/\\134x rw - ext4 /dev/root rw\nshort\n";
        let m = mount_points(text);
        assert_eq!(
            (m.len(), m[0].target.as_path(), m[0].read_only),
            (3, std::path::Path::new("/"), false)
        );
        assert_eq!(
            (m[1].root.to_str(), m[1].target.to_str(), m[1].read_only),
            (Some("/sys"), Some("/proc/sys"), true)
        );
        assert_eq!(
            (m[2].root.to_str(), m[2].target.to_str(), m[2].device.as_str()),
            (Some("/srv/a b"), Some("/data/\\x"), "254:0")
        );
    }
}
