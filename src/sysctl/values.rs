//! The values that the kernel has now. Every write is read back and compared: since Linux 6.17 the
//! kernel accepts a pattern that it will refuse to use.

use anyhow::{Context, Result, ensure};

pub(super) const PATTERN: &str = "/proc/sys/kernel/core_pattern";
pub(super) const USES_PID: &str = "/proc/sys/kernel/core_uses_pid";
pub(super) const PIPE_LIMIT: &str = "/proc/sys/kernel/core_pipe_limit";

/// `kernel.core_pattern` now, without its final newline.
pub(crate) fn core_pattern() -> Result<String> {
    let text = std::fs::read(PATTERN).with_context(|| format!("read {PATTERN}"))?;
    let text = String::from_utf8(text).map_err(|e| {
        anyhow::anyhow!("kernel.core_pattern is not UTF-8: {}", e.as_bytes().escape_ascii())
    })?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// `kernel.core_uses_pid` now: 0 or 1.
pub(crate) fn core_uses_pid() -> Result<u32> {
    number(USES_PID)
}

/// `kernel.core_pipe_limit` now: a number of processes, 0 for no limit and no waiting.
pub(crate) fn core_pipe_limit() -> Result<u32> {
    number(PIPE_LIMIT)
}

fn number(path: &str) -> Result<u32> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    text.trim().parse().with_context(|| format!("{path} holds {text:?}"))
}

/// Writes a sysctl, reads it back and compares. The newline is needed since an
/// empty write changes nothing.
pub(super) fn write(path: &str, value: &str) -> Result<()> {
    std::fs::write(path, format!("{value}\n"))
        .with_context(|| format!("write {value:?} to {path}"))?;
    let now = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    ensure!(
        now.trim_end_matches('\n') == value,
        "wrote {value:?} to {path}, the kernel has {now:?}"
    );
    Ok(())
}
