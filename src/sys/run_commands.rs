//! Runs several programs at once, within one time limit.

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most bytes that are read of each output.
const MOST: usize = 16 << 20;

/// What a program has written, and whether it succeeded.
#[derive(Debug, Default)]
pub(crate) struct ToolOutput {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    /// Whether its exit status is 0.
    pub success: bool,
}

/// A program that runs, and its open outputs.
struct RunningTool {
    child: Child,
    pipes: [Option<Box<dyn Pipe>>; 2],
    answer: ToolOutput,
}

trait Pipe: Read + std::os::fd::AsFd {}
impl<T: Read + std::os::fd::AsFd> Pipe for T {}

impl RunningTool {
    fn start(mut command: Command) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let out = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Pipe>);
        let err = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Pipe>);
        Ok(RunningTool { child, pipes: [out, err], answer: ToolOutput::default() })
    }

    fn read(&mut self, which: usize) {
        let mut buffer = [0; 1 << 16];
        let text = if which == 0 { &mut self.answer.out } else { &mut self.answer.err };
        let pipe = &mut self.pipes[which];
        match pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
            Some(Ok(n)) if n > 0 && text.len() < MOST => text.extend_from_slice(&buffer[..n]),
            Some(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => *pipe = None,
        }
    }
}

/// Runs the commands at once, and returns what became of each within `time`, in their order. One
/// that has not ended by then is killed.
///
/// # Errors
/// For each: it cannot be started (the cause is a [`std::io::Error`]), or it has not ended in time.
pub(crate) fn all(commands: Vec<Command>, time: Duration) -> Vec<Result<ToolOutput>> {
    let until = Instant::now() + time;
    let mut all: Vec<std::io::Result<RunningTool>> =
        commands.into_iter().map(RunningTool::start).collect();
    loop {
        let open: Vec<(usize, usize)> = (all.iter().enumerate())
            .flat_map(|(i, asked)| [(i, 0), (i, 1)].map(|at| (at, asked)))
            .filter(|((_, which), asked)| asked.as_ref().is_ok_and(|a| a.pipes[*which].is_some()))
            .map(|(at, _)| at)
            .collect();
        let left = until.saturating_duration_since(Instant::now());
        if open.is_empty() || left.is_zero() {
            break;
        }
        let ready: Vec<bool> = {
            let pipes =
                open.iter().filter_map(|(i, which)| all[*i].as_ref().ok()?.pipes[*which].as_ref());
            let mut fds: Vec<_> =
                pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)).collect();
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let _ = poll(&mut fds, Some(&left));
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for ((i, which), _) in open.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Ok(asked) = &mut all[i] {
                asked.read(which);
            }
        }
    }
    all.into_iter().map(|asked| end(asked.context("start")?, until, time)).collect()
}

/// Its outputs are closed, or the time is over.
fn end(mut asked: RunningTool, until: Instant, time: Duration) -> Result<ToolOutput> {
    let pidfd = super::pidfd::open(asked.child.id() as i32);
    let left = until.saturating_duration_since(Instant::now());
    let has_ended = asked.pipes.iter().all(Option::is_none)
        && pidfd.is_ok_and(|fd| super::descriptor::wait_readable(fd, Some(left)).unwrap_or(false));
    if !has_ended {
        let _ = asked.child.kill();
        let _ = asked.child.try_wait();
        return Err(anyhow!("no answer in {} seconds", time.as_secs()));
    }
    asked.answer.success = asked.child.wait().context("wait")?.success();
    Ok(asked.answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    /// One that does not end keeps none of the others from answering, and is not waited for.
    #[test]
    fn each_has_its_answer() {
        let all = all(
            vec![
                shell("echo one; echo two >&2"),
                shell("sleep 1000"),
                shell("head -c 200000 /dev/zero; exit 3"),
                Command::new("/nonexistent"),
                shell("exec >&- 2>&-; sleep 1000"),
            ],
            // Much, for an emulated machine.
            Duration::from_secs(5),
        );
        let [said, hung, long, missing, silent] = all.as_slice() else { panic!("{all:?}") };
        let said = said.as_ref().unwrap();
        assert_eq!(
            (&said.out[..], &said.err[..], said.success),
            (&b"one\n"[..], &b"two\n"[..], true)
        );
        assert_eq!(hung.as_ref().unwrap_err().to_string(), "no answer in 5 seconds");
        let long = long.as_ref().unwrap();
        assert_eq!((long.out.len(), long.success), (200_000, false));
        assert!(missing.as_ref().unwrap_err().is::<std::io::Error>());
        assert!(silent.is_err());
    }
}
