//! The running kernel: version, uptime, memory, free disk space.

use anyhow::{Context, Result};
use std::path::Path;

/// Major and minor version; (0, 0) if the release string has an unusual form.
pub(crate) fn version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Bytes of a page of memory: 4 KiB; on some machines of AArch64 16 or 64 KiB. Makes no system
/// call.
///
/// # References
/// sysconf(3), `_SC_PAGESIZE`.
pub(crate) fn page_size() -> u64 {
    // SAFETY: the call returns a number and touches no memory of ours.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned()
}

/// Time since boot, including suspend. Unlike the wall clock it cannot be set.
///
/// # References
/// clock_gettime(2), `CLOCK_BOOTTIME`, Linux 2.6.39.
pub(crate) fn since_boot() -> std::time::Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    std::time::Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Seconds since the epoch, by the clock that the kernel dates crashes with.
///
/// # References
/// clock_gettime(2), `CLOCK_REALTIME_COARSE`, Linux 2.6.32.
pub(crate) fn seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}

/// Bytes of memory of this machine, and bytes available without swapping.
///
/// # References
/// proc_meminfo(5): `MemTotal`, `MemAvailable`, Linux 3.14.
pub(crate) fn memory() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let field = |name: &str| {
        let kib = text.lines().find_map(|line| {
            line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok()
        });
        kib.map(|kib| kib << 10).with_context(|| format!("/proc/meminfo has no {name}"))
    };
    Ok((field("MemTotal:")?, field("MemAvailable:")?))
}

/// Bytes that root may still write to the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let s = rustix::fs::statvfs(path).with_context(|| format!("statvfs({path:?})"))?;
    Ok(s.f_bfree * s.f_frsize)
}
