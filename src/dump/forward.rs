//! Crashes of processes that belong to no registered container: the handler that was there before gets them, as if we were not here.

use super::crash::Crash;
use super::facts::Facts;
use super::{plan, write};
use crate::pattern::Handler;
use crate::sys::process;
use crate::sysctl::{self, Saved};
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// Hands the crash on. A pipe program replaces this process, with the core untouched on stdin and the pidfd as descriptor 3, so this returns only where
/// the handler is a file, nothing, or fails.
pub fn forward(mut crash: Crash, saved: Option<Saved>, patience: Option<Duration>) -> Result<()> {
    let Some(saved) = saved else {
        bail!("what kernel.core_pattern was before is not known, dropping the core")
    };
    match saved.handler() {
        Handler::Nothing => Ok(()),
        Handler::Socket => bail!(
            "the earlier handler {:?} is a socket, which only the kernel can connect to, dropping the core",
            saved.core_pattern
        ),
        Handler::Pipe(args) => {
            let args: Vec<_> = args.iter().map(|a| a.expand_argument(&crash.said)).collect();
            let program = args.first().context("the earlier handler names no program")?.clone();
            let pidfd = Vec::from_iter(crash.pidfd.take());
            Err(process::exec_as_kernel_would(crate::sys::proc::os(&program), &args, &pidfd))
                .context("earlier handler")
        }
        Handler::File(template) => {
            let file = match plan::host_file(&crash, &template, sysctl::core_uses_pid()? != 0) {
                Ok(file) => plan::File { patience, ..file },
                Err(reason) => {
                    log::info!("process {} of the host: no core: {reason}", crash.said.host_pid);
                    return Ok(());
                }
            };
            let facts = Facts::gather(&crash)?;
            let (written, _) = write::write(&crash, &facts, &file, None, |_| {})?;
            let stuck = written.stuck;
            if let Some(reason) = written.reason {
                log::info!(
                    "process {} of the host: core {}: {reason}",
                    crash.said.host_pid,
                    file.path.escape_ascii()
                );
            }
            if stuck { super::let_go(&crash, &facts) } else { Ok(()) }
        }
    }
}
