//! Takes on the credentials of another process, irreversibly.

use anyhow::{Context, Result};
use caps::CapSet;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use std::os::fd::{AsFd, OwnedFd};

/// The credentials that the kernel checks when a process accesses a file. IDs are those of
/// the initial user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Real, effective, saved and file-system user ID.
    pub uid: [u32; 4],
    /// Real, effective, saved and file-system group ID.
    pub gid: [u32; 4],
    /// Supplementary group IDs, in the order of `Groups` in /proc/PID/status.
    pub groups: Vec<u32>,
    /// Effective capabilities, a bit mask as in `CapEff` of /proc/PID/status, valid in the
    /// process's own user namespace.
    pub effective: u64,
    /// Mask of the permitted capabilities: `CapPrm` of /proc/PID/status.
    pub permitted: u64,
}

impl Credentials {
    /// Whether real and effective IDs differ: a set-user-ID or set-group-ID program,
    /// or one that changed them.
    pub(crate) fn mixed(&self) -> bool {
        self.uid[0] != self.uid[1] || self.gid[0] != self.gid[1]
    }
}

/// Gives this process, which must be single-threaded, exactly the credentials `c`, inside `user_ns`
/// if the crashed process has its own. It is irreversible: no_new_privs, so that no execve gives it
/// anything (the bounding set, which only execve uses, stays: emptying it takes 41 system calls),
/// and securebits as the kernel gives them to a new process of that namespace.
///
/// The order matters for security: IDs while any can still be set; the namespace while we still
/// have rights over it; capabilities last.
///
/// # References
/// credentials(7), capabilities(7), setns(2), user_namespaces(7).
pub(crate) fn assume(c: &Credentials, user_ns: Option<&OwnedFd>) -> Result<()> {
    become_who(c, user_ns, || Ok(()))
}

/// The same with the user ID of the root of `user_ns`, instead of `c`'s. `check` is run there, as
/// root with every capability.
///
/// # Errors
/// Also that of `check`.
pub(crate) fn assume_root(
    c: &Credentials,
    user_ns: Option<&OwnedFd>,
    check: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let c = Credentials { uid: [0; 4], ..c.clone() };
    become_who(&c, user_ns, || {
        let root = Uid::ROOT;
        rustix::thread::set_thread_res_uid(root, root, root).context("setresuid(0)")?;
        check()
    })
}

/// `there`: run in the user namespace, before its capabilities are given up.
fn become_who(
    c: &Credentials,
    user_ns: Option<&OwnedFd>,
    there: impl FnOnce() -> Result<()>,
) -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    caps::clear(None, CapSet::Ambient).context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .context("prctl(PR_SET_SECUREBITS)")?;
    let gids: Vec<_> = c.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&gids)
        .with_context(|| format!("setgroups({:?})", c.groups))?;
    let [r, e, s, fs] = c.gid.map(Gid::from_raw);
    rustix::thread::set_thread_res_gid(r, e, s)
        .with_context(|| format!("setresgid({:?})", c.gid))?;
    set_fs_id(fs.as_raw(), libc::SYS_setfsgid);
    let [r, e, s, fs] = c.uid.map(Uid::from_raw);
    rustix::thread::set_thread_res_uid(r, e, s)
        .with_context(|| format!("setresuid({:?})", c.uid))?;
    set_fs_id(fs.as_raw(), libc::SYS_setfsuid);
    if let Some(ns) = user_ns {
        super::ns::enter(ns.as_fd(), super::ns::NamespaceKind::User)?;
    }
    there()?;
    // In a user namespace that is all. Outside of one, the kernel's helper may lack capabilities
    // that an administrator removed.
    let have = rustix::thread::capabilities(None).context("capget")?.permitted.bits();
    let set = |mask| CapabilitySet::from_bits_retain(mask & have);
    let sets = CapabilitySets {
        effective: set(c.effective),
        permitted: set(c.permitted),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).context("capset")?;
    // Every change of IDs has set it to fs.suid_dumpable.
    super::process::not_dumpable()
}

/// Becomes the user and group `id`, other than 0, without groups or capabilities, irreversibly.
/// Needs CAP_SETUID and CAP_SETGID only: the pod of the DaemonSet has no CAP_SETPCAP, which the
/// securebits of [`assume`] take. Without those the kernel itself drops all capabilities with the
/// user ID.
///
/// # References
/// capabilities(7), "Effect of user ID changes on capabilities".
pub(crate) fn give_up(id: u32) -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    caps::clear(None, CapSet::Ambient).context("prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
    rustix::thread::set_thread_groups(&[]).context("setgroups([])")?;
    let (gid, uid) = (Gid::from_raw(id), Uid::from_raw(id));
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .with_context(|| format!("setresgid({id})"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .with_context(|| format!("setresuid({id})"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).context("capset")?;
    super::process::not_dumpable()
}

/// Runs `work` in a thread that has only these credentials: what it opens is what that user may
/// open. The process itself keeps its own, but is not dumpable from then on.
///
/// # Errors
/// The thread could not get them, and nothing was done.
pub(crate) fn run_as<T: Send>(c: &Credentials, work: impl FnOnce() -> T + Send) -> Result<T> {
    let as_user = || assume(c, None).map(|()| work());
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().spawn_scoped(scope, as_user).context("a thread")?;
        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread panicked")))
    })
}

fn set_fs_id(id: u32, call: libc::c_long) {
    // SAFETY: setfsuid and setfsgid take one integer and touch no memory. They report nothing; the
    // file's owner is checked after it was made.
    unsafe { libc::syscall(call, id) };
}
