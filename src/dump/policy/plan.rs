//! What to do with a crash. Pure: facts in, a decision out.

use crate::bytes::Limit;
use crate::cause::Cause;
use crate::config::KeptMemory;
use crate::dump::crash::arguments::Crash;
use crate::dump::crash::facts::Facts;
use crate::dump::crash::origin::Origin;
use crate::limits::{DiskShare, Free, Limits};
use crate::name_conflict::{Existing, numbered};
use crate::pattern::{COMPRESSED, Template};
use crate::registry::Entry;
use crate::sys::kernel::page_size;
use std::time::Duration;

/// What becomes of a crash.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Write the core for this container.
    Write(Box<Entry>, CorePlan),
    /// No core for this container, and why.
    NoCore(Box<Entry>, Cause),
    /// The handler that was there before has it.
    Forward,
}

/// The file to write, as the kernel's file mode would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CorePlan {
    /// Absolute, or relative to the crasher's working directory; resolved below its root.
    pub path: Vec<u8>,
    /// Most bytes emitted; holes are free. `None` is unlimited.
    pub limit: Option<u64>,
    /// What happens where the name exists already.
    pub existing: Existing,
    /// How much of the memory it keeps.
    pub keep: KeptMemory,
    /// How many bytes of the path name the directory that is there before any crash. The writer
    /// makes those below it that are missing. `None`: it makes none.
    pub made_below: Option<usize>,
    /// Bounds by the size of its file system.
    pub share: DiskShare,
    /// Who makes it.
    pub rights: Rights,
    /// Compress with zstd. Limits count the bytes before that.
    pub compress: bool,
    /// Let the process go before the file is whole.
    pub early_release: bool,
    /// It is on a memory-backed volume, as far as the hook could see.
    pub memory_backed: bool,
    /// How long the target may take nothing. `None` is for ever.
    pub patience: Option<Duration>,
    /// What must stay free of the file system.
    pub min_free: Option<Free>,
    /// Most threads that copy.
    pub threads: usize,
    /// The crasher has the mounts of its container's first process.
    pub at_home: bool,
}

/// With whose rights the file is made, and from whose root directory its path is resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rights {
    /// The crasher's own.
    #[default]
    Crasher,
    /// Dump mode 2, for the host's own file pattern: the host's root, never for a container.
    HostRoot,
    /// Dump mode 2 in a container: its root, from the container's own root directory.
    ContainerRoot,
}

impl CorePlan {
    /// The same with a number in its name; 1 is the name without one.
    pub(crate) fn with_number(&self, number: u32) -> Self {
        let ending = if self.compress { COMPRESSED } else { "" };
        CorePlan { path: numbered(&self.path, number, ending.as_bytes()), ..self.clone() }
    }

    /// The root and the working directory that the path is resolved from, as paths in the
    /// container.
    pub(crate) fn seen_from<'a>(&self, facts: &'a Facts) -> (&'a [u8], &'a [u8]) {
        match self.rights {
            Rights::ContainerRoot => (b"/", b"/"),
            Rights::Crasher | Rights::HostRoot => (&facts.root_path, &facts.cwd_path),
        }
    }
}

/// Decides what becomes of a crash, by the order in which the kernel's file mode decides: rights,
/// limit, path.
pub(crate) fn plan(crash: &Crash, facts: &Facts, origin: Origin) -> Decision {
    let Origin::Container { entry, by_exec } = origin else { return Decision::Forward };
    let refused = entry.refused.clone().map(Cause::Refused).map_or(Ok(()), Err);
    let rights = match refused.and_then(|()| rights(crash, facts, &entry)) {
        Ok(rights) => rights,
        Err(cause) => return Decision::NoCore(entry, cause),
    };
    let own = Limit::from_raw(crash.said.limit).finite();
    let soft = limit_of(own, facts.core_limit.hard, by_exec, entry.limit.finite());
    let limit = smaller(soft, entry.limit.finite());
    if let Some(bytes) = limit.filter(|l| *l < page_size()) {
        return Decision::NoCore(entry, Cause::RlimitCoreTooLow(bytes));
    }
    let Some(pattern) = &entry.pattern else {
        return Decision::NoCore(entry, Cause::Refused("its registration has no pattern".into()));
    };
    let mut path = pattern.expand(&crash.said, entry.append_pid);
    if rights == Rights::ContainerRoot && path.first() != Some(&b'/') {
        return Decision::NoCore(entry, Cause::RelativePath);
    }
    // As the kernel does in dump mode 2, root's writer removes nothing, and it makes no directory.
    let is_roots = rights == Rights::ContainerRoot;
    let existing = if is_roots { Existing::Keep } else { entry.existing };
    let made_below = pattern.fixed_directory().filter(|_| entry.make_directories && !is_roots);
    if entry.compress {
        path.extend_from_slice(COMPRESSED.as_bytes());
    }
    let file = CorePlan {
        path,
        limit,
        existing,
        keep: entry.keep,
        made_below,
        share: entry.share,
        rights,
        compress: entry.compress,
        early_release: entry.early_release,
        patience: None,
        min_free: None,
        threads: usize::MAX,
        at_home: rights == Rights::ContainerRoot || facts.mount_ns == entry.init.mount_ns,
        memory_backed: entry.place.is_memory,
    };
    Decision::Write(entry, file)
}

/// What one thread that copies, or compresses, takes of memory, in bytes: its buffers, zstd's
/// tables and window; and what a writer takes without any.
const COPYING: u64 = 3 << 20;
const COMPRESSING: u64 = 8 << 20;
const WRITER: u64 = 2 << 20;

/// The file as a container with so much memory left can afford it: fewer threads, and where not
/// even one may compress, no compression. An option never costs the core. `headroom`: bytes until a
/// memory limit, of which half is left to the container. Returns what was given up, for the record.
pub(crate) fn affordable(mut file: CorePlan, headroom: Option<u64>) -> (CorePlan, Option<String>) {
    let Some(headroom) = headroom else { return (file, None) };
    let mut note = None;
    let threads = |each: u64| usize::try_from((headroom / 2).saturating_sub(WRITER) / each);
    if file.compress && threads(COMPRESSING) == Ok(0) {
        file.compress = false;
        file.path.truncate(file.path.len() - COMPRESSED.len());
        note = Some(format!(
            "it is not compressed: the container has {} KiB left of its memory limit",
            headroom >> 10
        ));
    }
    let each = if file.compress { COMPRESSING } else { COPYING };
    file.threads = threads(each).unwrap_or(usize::MAX).max(1);
    (file, note)
}

/// The file that a host's own file pattern makes of a crash, or why none. `fs.suid_dumpable=2` is
/// the kernel's dump mode 2.
pub(crate) fn host_file(
    crash: &Crash,
    template: &Template,
    append_pid: bool,
) -> Result<CorePlan, Cause> {
    let path = template.expand(&crash.said, append_pid);
    let suid = crash.said.dump_mode == 2;
    let limit = Limit::from_raw(crash.said.limit).finite();
    if let Some(bytes) = limit.filter(|l| *l < page_size()) {
        return Err(Cause::RlimitCoreTooLow(bytes));
    }
    if suid && path.first() != Some(&b'/') {
        return Err(Cause::RelativePath);
    }
    Ok(CorePlan {
        path,
        limit,
        existing: if suid { Existing::Keep } else { Existing::Replace },
        rights: if suid { Rights::HostRoot } else { Rights::Crasher },
        threads: usize::MAX,
        at_home: true,
        ..CorePlan::default()
    })
}

/// Whose the core is, or why nobody in the container may have it, whatever the limit says.
///
/// In dump mode 2 it is for the container's root, as the kernel's file mode gives it to the host's.
/// Not where a user has registered the container: its root is that user, who may not read every
/// program that he can start in it. And not without a pidfd: whose memory comes through the pipe
/// must be certain then.
fn rights(crash: &Crash, facts: &Facts, entry: &Entry) -> Result<Rights, Cause> {
    match crash.said.dump_mode {
        1 if facts.has_more_rights() => Err(Cause::SetUserId),
        1 => Ok(Rights::Crasher),
        2 => {
            let no = |why: &str| Err(Cause::RootsCore(why.to_owned()));
            match &facts.container_root {
                _ if entry.user.is_some() => no("its container is a user's"),
                _ if crash.pidfd.is_none() => no("the kernel gives no pidfd (Linux 6.16)"),
                Some(Ok(_)) => Ok(Rights::ContainerRoot),
                Some(Err(e)) => no(&format!("{e:#}")),
                None => no("the container's root is not known"),
            }
        }
        mode => Err(Cause::DumpMode(mode)),
    }
}

/// The process's own soft limit. An engine's exec does not inherit what the hook set: for such a
/// process 0 under a hard limit above it means "never set", and the container's limit counts.
fn limit_of(
    own: Option<u64>,
    hard: Option<u64>,
    by_exec: bool,
    container: Option<u64>,
) -> Option<u64> {
    match own {
        Some(0) if by_exec && hard != Some(0) => smaller(hard, container),
        own => own,
    }
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// How long the target may take nothing: `limits.stall`.
pub(crate) fn patience(limits: &Limits) -> Option<Duration> {
    Limits::nonzero(limits.stall).map(Duration::from_secs)
}

/// The core's path inside the container, for the record: in its mount namespace, without empty and
/// `.` components.
pub(crate) fn inside_path(path: &[u8], root: &[u8], cwd: &[u8]) -> Vec<u8> {
    let start = if path.first() == Some(&b'/') { root } else { cwd };
    let components = start.split(|b| *b == b'/').chain(path.split(|b| *b == b'/'));
    components.filter(|c| !matches!(*c, b"" | b".")).flat_map(|c| [b"/", c].concat()).collect()
}

/// The same file on the host, if the mount behind the pattern's directory is known and the path
/// lies below it.
pub(crate) fn host_path(inside: &[u8], mount: Option<&(String, String)>) -> Option<Vec<u8>> {
    let (target, source) = mount?;
    let rest = inside.strip_prefix(target.trim_end_matches('/').as_bytes())?;
    rest.starts_with(b"/").then(|| [source.trim_end_matches('/').as_bytes(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_the_kernel_and_the_exec_exception() {
        // own, hard, by exec, container -> effective
        let table = [
            (Some(0), None, false, None, Some(0)),
            (Some(0), None, true, None, None),
            (Some(0), None, true, Some(5000), Some(5000)),
            (Some(0), Some(4096), true, None, Some(4096)),
            (Some(0), Some(0), true, None, Some(0)),
            (Some(8192), None, true, None, Some(8192)),
            (None, None, false, Some(1), None),
        ];
        for (own, hard, exec, container, expected) in table {
            assert_eq!(
                limit_of(own, hard, exec, container),
                expected,
                "{own:?} {hard:?} {exec} {container:?}"
            );
        }
    }

    #[test]
    fn compression_is_given_up_before_the_core() {
        let file = CorePlan {
            path: b"/d/core.1.zst".to_vec(),
            compress: true,
            threads: usize::MAX,
            at_home: true,
            ..CorePlan::default()
        };
        // headroom in MiB -> compressed, threads
        for (mib, compress, threads) in
            [(3, false, 1), (16, false, 2), (24, true, 1), (100, true, 6)]
        {
            let (file, note) = affordable(file.clone(), Some(mib << 20));
            assert_eq!((file.compress, file.threads), (compress, threads), "{mib}");
            assert_eq!(
                (file.path.ends_with(b".zst"), note.is_none()),
                (compress, compress),
                "{mib}"
            );
        }
        assert_eq!(affordable(file.clone(), None), (file, None));
    }

    #[test]
    fn paths_for_the_record() {
        let inside = |path: &str, root: &str, cwd: &str| {
            String::from_utf8(inside_path(path.as_bytes(), root.as_bytes(), cwd.as_bytes()))
                .unwrap()
        };
        assert_eq!(inside("/d/core.1", "/", "/w"), "/d/core.1");
        assert_eq!(inside("/d/core.1", "/jail", "/jail/w"), "/jail/d/core.1");
        assert_eq!(inside("core.1", "/", "/w"), "/w/core.1");
        assert_eq!(inside("./core.1", "/", "/"), "/core.1");
        assert_eq!(inside("//d/.//core.1", "/", "/"), "/d/core.1");
        let host = |inside: &str, target: &str| {
            let mount = (target.to_owned(), "/srv/vol/".to_owned());
            host_path(inside.as_bytes(), Some(&mount)).map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(host("/d/core.1", "/d").as_deref(), Some("/srv/vol/core.1"));
        assert_eq!(host("/d/x/core.1", "/d/").as_deref(), Some("/srv/vol/x/core.1"));
        assert_eq!(host("/data/core.1", "/d"), None);
        assert_eq!(host_path(b"/d/core.1", None), None);
    }
}
