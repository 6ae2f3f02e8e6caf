//! Resource limits of this and of other processes.

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit};

/// A soft and a hard limit in the resource's unit; `None` is `RLIM_INFINITY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftAndHard {
    /// The limit that is enforced.
    pub soft: Option<u64>,
    /// The value up to which the soft limit may be raised.
    pub hard: Option<u64>,
}

impl From<Rlimit> for SoftAndHard {
    fn from(l: Rlimit) -> Self {
        SoftAndHard { soft: l.current, hard: l.maximum }
    }
}

impl From<SoftAndHard> for Rlimit {
    fn from(l: SoftAndHard) -> Self {
        Rlimit { current: l.soft, maximum: l.hard }
    }
}

fn pid(pid: i32) -> Result<Pid> {
    Pid::from_raw(pid).filter(|_| pid > 0).with_context(|| format!("{pid} is no process ID"))
}

/// Sets the `RLIMIT_CORE` of another process. Raising the hard limit needs CAP_SYS_RESOURCE.
///
/// # References
/// prlimit(2), Linux 2.6.36.
pub(crate) fn set_core_of(process: i32, limit: SoftAndHard) -> Result<()> {
    rustix::process::prlimit(Some(pid(process)?), Resource::Core, limit.into())
        .with_context(|| format!("prlimit({process}, RLIMIT_CORE, {limit:?})"))?;
    Ok(())
}

/// Irreversibly bounds this process: address space in bytes, processor time in
/// seconds, and bytes of a file.
///
/// # References
/// setrlimit(2).
pub(crate) fn bound_own(memory: u64, cpu: u64, file: u64) -> Result<()> {
    for (resource, most) in
        [(Resource::As, memory), (Resource::Cpu, cpu), (Resource::Fsize, file), (Resource::Core, 0)]
    {
        let hard = rustix::process::getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
        rustix::process::setrlimit(resource, limit)
            .with_context(|| format!("setrlimit({resource:?}, {most})"))?;
    }
    Ok(())
}

/// Irreversibly bounds the processor time of this process from now on, in seconds.
///
/// # References
/// setrlimit(2); clock_gettime(2), `CLOCK_PROCESS_CPUTIME_ID`.
pub(crate) fn bound_processor(seconds: u64) -> Result<()> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec as u64;
    let most = used + seconds;
    let hard = rustix::process::getrlimit(Resource::Cpu).maximum.map_or(most, |h| h.min(most));
    let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
    rustix::process::setrlimit(Resource::Cpu, limit)
        .with_context(|| format!("setrlimit(RLIMIT_CPU, {most})"))
}

/// What the kernel sets for its pipe helper: a core of this process, or of what it executes, is not
/// handled again.
pub(crate) fn as_helper() -> Result<()> {
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    rustix::process::setrlimit(Resource::Core, one).context("setrlimit(RLIMIT_CORE, 1)")
}

/// Lets this process open as many files as it may.
pub(crate) fn raise_files() {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Sets this process's soft `RLIMIT_FSIZE`, so that the crashed process's own limit truncates its
/// core, as in the kernel's file mode.
pub(crate) fn set_own_file_size(bytes: Option<u64>) -> Result<()> {
    let hard = rustix::process::getrlimit(Resource::Fsize).maximum;
    let current = match (bytes, hard) {
        (Some(b), Some(h)) => Some(b.min(h)),
        (b, h) => b.or(h),
    };
    rustix::process::setrlimit(Resource::Fsize, Rlimit { current, maximum: hard })
        .context("setrlimit(RLIMIT_FSIZE)")
}
