//! Crashes of processes that belong to no registered container: the handler that was there before gets them, as if we were not here.

use super::crash::Crash;
use super::facts::Facts;
use super::forwarded::{self, Most};
use super::{plan, write};
use crate::limits::Limits;
use crate::pattern::Handler;
use crate::registry::Registry;
use crate::sys::{pidfd, process};
use crate::sysctl::{self, Saved};
use anyhow::{Context, Result, bail};

/// Hands the crash on. A pipe program replaces this process, with the core untouched on stdin and the pidfd as descriptor 3, so this returns only where
/// the handler is a file, nothing, or fails.
pub fn forward(mut crash: Crash, saved: Saved, limits: &Limits) -> Result<()> {
    let handler = saved.handler();
    let pipe_limit = matches!(handler, Handler::Pipe(_)).then(|| saved.pipe_limit());
    if !matches!(handler, Handler::Nothing) {
        let most = Most::of(pipe_limit, limits);
        let registry = Registry::create()?;
        let is_still = || crash.pidfd.as_ref().is_none_or(pidfd::lives);
        if !forwarded::enter(&registry, most, crash.said.uid, is_still)? {
            let pid = crash.said.host_pid;
            crate::report::sparingly(registry.dir(), "forwarded", || {
                log::warn!(
                    "process {pid} of the host: the earlier handler has as many crashes in hand as it \
                     may, this one is skipped (further ones are not told of for a minute)"
                )
            });
            return Ok(());
        }
    }
    match handler {
        Handler::Nothing => Ok(()),
        Handler::Socket => bail!(
            "the earlier handler {:?} is a socket, which only the kernel can connect to, dropping the \
             core",
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
            let append_pid = sysctl::core_uses_pid()? != 0;
            let file = match plan::host_file(&crash, &template, append_pid) {
                Ok(file) => plan::File { patience: super::patience(limits), ..file },
                // As the kernel: nothing is said of processes that may leave no core.
                Err(reason) => {
                    log::debug!("process {} of the host: no core: {reason}", crash.said.host_pid);
                    return Ok(());
                }
            };
            let facts = Facts::gather(&crash)?;
            let (written, waiting) = write::write(&crash, &facts, &file, None, None, |_| {})?;
            let stuck = written.stuck;
            if let Some(reason) = written.reason {
                let path = file.path.escape_ascii();
                log::debug!("process {} of the host: core {path}: {reason}", crash.said.host_pid);
            }
            process::release_stdin();
            if let Some(writer) = waiting {
                writer.end()?;
            }
            if stuck { super::let_go(&crash, &facts) } else { Ok(()) }
        }
    }
}
