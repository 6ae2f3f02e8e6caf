//! SELinux: the label that the kernel would give to a file made by another process, whether the
//! policy lets that process make it, and setting the label.
//!
//! The loaded policy is queried; this module knows nothing of its content. Where the kernel has
//! none, that costs one system call.

use super::file;
use super::proc::Proc;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Where selinuxfs is mounted, since Linux 3.0.
const ROOT: &str = "/sys/fs/selinux";

/// The extended attribute with a file's label. The kernel answers with the label in use,
/// whatever the file system stores.
const XATTR: &str = "security.selinux";

/// The kernel's own bound, in bytes, of a query and its answer.
const MOST: usize = 4096;

/// Whether SELinux is enabled in the kernel.
pub(crate) fn is_on() -> bool {
    rustix::fs::access("/sys/fs/selinux/create", Access::EXISTS).is_ok()
}

/// A process in SELinux's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelinuxSubject {
    /// Its security context, as /proc/PID/attr/current has it.
    context: Vec<u8>,
    /// The label that it has set for all files that it makes (setfscreatecon(3)).
    chosen: Option<Vec<u8>>,
}

impl SelinuxSubject {
    /// Reads the context of a task. `None` if SELinux is off.
    ///
    /// # References
    /// proc_pid_attr(5).
    pub(crate) fn of(task: &Proc) -> Option<Result<Self>> {
        is_on().then(|| {
            let context = context_of(task.read("attr/current")?)
                .context("/proc/PID/attr/current is empty")?;
            Ok(SelinuxSubject { context, chosen: context_of(task.read("attr/fscreate")?) })
        })
    }
}

/// The label of what `fd` refers to, which may not be an `O_PATH` descriptor.
/// `None` if SELinux is off.
pub(crate) fn label_of(fd: impl AsFd) -> Result<Option<String>> {
    if !is_on() {
        return Ok(None);
    }
    let mut buffer = [0; MOST];
    let n = rustix::fs::fgetxattr(fd, XATTR, &mut buffer[..])
        .context("fgetxattr(\"security.selinux\")")?;
    Ok(context_of(buffer[..n].to_vec()).and_then(|label| String::from_utf8(label).ok()))
}

/// Sets the label of a file or directory if SELinux is on; elsewhere it would only be an attribute
/// in the file system. A file on a file system without labels of its own (a `context=` mount, NFS)
/// keeps the one that applies to all of it.
///
/// # References
/// setfilecon(3), which writes the NUL too.
pub(crate) fn set_label(fd: impl AsFd, label: &str) -> Result<()> {
    match rustix::fs::fsetxattr(fd, XATTR, &[label.as_bytes(), b"\0"].concat(), XattrFlags::empty())
    {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other.with_context(|| format!("fsetxattr(\"security.selinux\", {label:?})")),
    }
}

/// The policy, usable by a process that has changed its root and IDs since.
#[derive(Debug)]
pub(crate) struct Policy {
    fs: OwnedFd,
    chosen: OwnedFd,
}

/// The policy's answer for a file that is to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AccessVector {
    /// The label that it would have.
    pub label: Vec<u8>,
    /// The right that the process would need but does not have.
    pub denied: Option<String>,
    /// Whether it may remove an existing file of that name.
    pub may_replace: bool,
}

impl Policy {
    /// Opens the policy for this thread, which must be the one that makes the file.
    pub(crate) fn open() -> Result<Self> {
        let chosen = "/proc/thread-self/attr/fscreate";
        let chosen = rustix::fs::open(chosen, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open({chosen:?})"))?;
        Ok(Policy { fs: file::open_dir(ROOT.as_ref())?, chosen })
    }

    /// The descriptors that have to stay open.
    pub(crate) fn files(&self) -> [BorrowedFd<'_>; 2] {
        [self.fs.as_fd(), self.chosen.as_fd()]
    }

    /// Whether its answers are enforced. Assumed unless it says otherwise.
    pub(crate) fn is_enforced(&self) -> bool {
        self.read("enforce").map_or(true, |text| text != "0")
    }

    /// Asks what would happen if `subject` made the regular file `name` in a directory, which
    /// becomes the working directory.
    ///
    /// # References
    /// `may_create()`, `may_link()` and `selinux_determine_inode_label()` in
    /// security/selinux/hooks.c: what the kernel checks, and in which order it decides.
    pub(crate) fn ask(
        &self,
        subject: &SelinuxSubject,
        dir: impl AsFd,
        name: &OsStr,
    ) -> Result<AccessVector> {
        // An `O_PATH` descriptor has no attributes, and with search permission
        // alone no other can be had.
        file::change_dir(dir)?;
        let parent =
            xattr(".".as_ref()).context("getxattr(the directory, \"security.selinux\")")?;
        let label = match &subject.chosen {
            Some(label) => label.clone(),
            None => self.transition(&subject.context, &parent, name)?,
        };
        let mut rights = vec!["create", "write"];
        if self.read("policy_capabilities/open_perms").is_ok_and(|text| text == "1") {
            rights.push("open");
        }
        let denied = self.denied(subject, &parent, "dir", &["search", "write", "add_name"])?;
        let denied =
            if denied.is_some() { denied } else { self.denied(subject, &label, "file", &rights)? };
        let may_replace = match rustix::fs::statat(rustix::fs::CWD, name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|s| FileType::from_raw_mode(s.st_mode))
        {
            Err(_) => true,
            Ok(kind) => {
                self.denied(subject, &parent, "dir", &["remove_name"])?.is_none()
                    && self
                        .denied(
                            subject,
                            &xattr(name).context("lgetxattr(\"security.selinux\")")?,
                            class(kind),
                            &["unlink"],
                        )?
                        .is_none()
            }
        };
        Ok(AccessVector { label, denied, may_replace })
    }

    /// Gives this thread's new files this label from now on, on file systems
    /// with labels of their own.
    ///
    /// # References
    /// setfscreatecon(3).
    pub(crate) fn choose(&self, label: &[u8]) -> Result<()> {
        rustix::io::write(&self.chosen, label).with_context(|| {
            format!("write({:?}) to attr/fscreate", label.escape_ascii().to_string())
        })?;
        Ok(())
    }

    /// # References
    /// security_compute_create_name(3).
    fn transition(&self, from: &[u8], to: &[u8], name: &OsStr) -> Result<Vec<u8>> {
        let class = self.number("class/file/index")?;
        let answer = self.transact(
            "create",
            &[from, to, class.to_string().as_bytes(), &escaped(name.as_bytes())],
        )?;
        context_of(answer).context("selinuxfs says nothing of the label")
    }

    /// The first of some rights that the subject does not have, in words.
    ///
    /// # References
    /// security_compute_av_flags(3).
    fn denied(
        &self,
        subject: &SelinuxSubject,
        target: &[u8],
        class: &str,
        rights: &[&str],
    ) -> Result<Option<String>> {
        let number = self.number(&format!("class/{class}/index"))?;
        let answer =
            self.transact("access", &[&subject.context, target, number.to_string().as_bytes()])?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        for right in rights {
            let bit = self.number(&format!("class/{class}/perms/{right}"))?;
            if !allows(&answer, bit).with_context(|| format!("selinuxfs answers {answer:?}"))? {
                let [who, whom] = [&subject.context, target].map(|c| c.escape_ascii().to_string());
                return Ok(Some(format!("{who} may not {right}, {class} {whom}")));
            }
        }
        Ok(None)
    }

    /// Sends one query. Each needs the file to be opened anew.
    fn transact(&self, name: &str, words: &[&[u8]]) -> Result<Vec<u8>> {
        let words = words.join(&b' ');
        let ask = || -> rustix::io::Result<Vec<u8>> {
            let fd =
                rustix::fs::openat(&self.fs, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&fd, &words)?;
            let mut answer = vec![0; MOST];
            let n = rustix::io::read(&fd, &mut answer[..])?;
            answer.truncate(n);
            Ok(answer)
        };
        ask().with_context(|| format!("ask {ROOT}/{name}, {:?}", words.escape_ascii().to_string()))
    }

    fn read(&self, name: &str) -> Result<String> {
        let fd =
            rustix::fs::openat(&self.fs, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("open {ROOT}/{name}"))?;
        let text = file::read_bounded(std::fs::File::from(fd), MOST, name)?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    fn number(&self, name: &str) -> Result<u32> {
        let text = self.read(name)?;
        let n = text.parse().with_context(|| format!("{ROOT}/{name} says {text:?}"))?;
        ensure!(n > 0, "{ROOT}/{name} says {text:?}");
        Ok(n)
    }
}

/// The label of a name in the working directory, not following links.
fn xattr(name: &OsStr) -> Result<Vec<u8>> {
    let mut buffer = [0; MOST];
    let n = rustix::fs::lgetxattr(name, XATTR, &mut buffer[..])?;
    context_of(buffer[..n].to_vec()).context("it is empty")
}

/// A context without the NUL at its end; `None` if it is empty.
fn context_of(mut text: Vec<u8>) -> Option<Vec<u8>> {
    let end = text.iter().position(|b| matches!(b, 0 | b'\n')).unwrap_or(text.len());
    text.truncate(end);
    (!text.is_empty()).then_some(text)
}

/// Whether an answer of `access` (allowed, decided, two of auditing, a number, flags) grants the
/// `n`th right of its class. A permissive domain has all rights.
fn allows(answer: &str, n: u32) -> Option<bool> {
    let mut words = answer.split_whitespace();
    let allowed = u32::from_str_radix(words.next()?, 16).ok()?;
    let permissive =
        words.nth(4).is_some_and(|flags| u32::from_str_radix(flags, 16).is_ok_and(|f| f & 1 != 0));
    Some(permissive || allowed & 1u32.checked_shl(n.checked_sub(1)?)? != 0)
}

/// A name in the escaped form that the kernel reads in a query.
fn escaped(name: &[u8]) -> Vec<u8> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    name.iter()
        .flat_map(|b| if plain(*b) { vec![*b] } else { format!("%{b:02x}").into_bytes() })
        .collect()
}

fn class(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "dir",
        FileType::Symlink => "lnk_file",
        FileType::Fifo => "fifo_file",
        FileType::Socket => "sock_file",
        FileType::CharacterDevice => "chr_file",
        FileType::BlockDevice => "blk_file",
        _ => "file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_policy() {
        // allowed, the right -> whether it is granted
        let table = [
            ("13 ffffffff 0 ffffffff 7 0", 1, Some(true)),
            ("13 ffffffff 0 ffffffff 7 0", 3, Some(false)),
            ("13 ffffffff 0 ffffffff 7 0", 5, Some(true)),
            ("0 ffffffff 0 ffffffff 7 1", 5, Some(true)),
            ("80000000 ffffffff 0 ffffffff 7", 32, Some(true)),
            ("13", 0, None),
            ("13", 33, None),
            ("", 1, None),
            ("x ffffffff", 1, None),
        ];
        for (answer, n, expected) in table {
            assert_eq!(allows(answer, n), expected, "{answer:?} {n}");
        }
    }

    #[test]
    fn names_and_contexts() {
        assert_eq!(escaped(b"core.1"), b"core.1");
        assert_eq!(escaped(b"a +%\n\xff"), b"a%20%2b%25%0a%ff");
        assert_eq!(
            context_of(b"u:r:t:s0:c1,c2\0".to_vec()).as_deref(),
            Some(&b"u:r:t:s0:c1,c2"[..])
        );
        assert_eq!(context_of(b"u:r:t:s0\n".to_vec()).as_deref(), Some(&b"u:r:t:s0"[..]));
        assert_eq!((context_of(b"\0".to_vec()), context_of(Vec::new())), (None, None));
    }
}
