//! `serve`: the server of the kernel's coredump socket.

use super::root::need_root;
use crate::config::{Config, KernelInterface, Mode};
use crate::dump::server::{Ending, Server};
use crate::registry::Registry;
use crate::store::Store;
use crate::sys::child::{self, Ended};
use crate::sys::signals::{self, SignalEvent, Signals};
use crate::sys::{OwnedFd, descriptor, process, socket};
use crate::sysctl::{self, SOCKET, SOCKET_PATTERN};
use anyhow::{Context, Result, bail, ensure};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long nothing has to come after the pipe has the kernel's crashes again: the kernel may have
/// read the pattern before.
const QUIET: Duration = Duration::from_secs(1);

/// How long the crashes that have come may take to begin.
const DRAIN: Duration = Duration::from_secs(60);

/// A server that has run for less is not started again at once.
const SHORT: Duration = Duration::from_secs(5);

/// Serve the kernel's coredump socket, until stopped: the kernel then starts no program for a
/// crash.
///
/// With kernel_interface = "socket" or "auto" in the configuration, Linux 6.17 or later connects to
/// /run/oci-coredump/coredump.socket for every crash as long as this runs. SIGTERM ends it: the
/// kernel starts the pipe helper again from then on, and what has come is served. SIGHUP makes it
/// start the program that is installed now, to which it hands the connections that wait. It takes
/// the socket from systemd's oci-coredump-serve.socket, or makes it; then it also starts itself
/// again, should it be killed. `oci-coredump doctor` tells which way crashes come.
///
/// Example: oci-coredump serve
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Serves until it is told to end.
///
/// # Errors
/// The socket cannot be made or waited for, or the kernel has no such interface.
pub(super) fn run(_: &Args) -> Result<ExitCode> {
    let mut passed = socket::passed();
    need_root()?;
    ensure!(
        sysctl::has_socket(),
        "this kernel has no coredump socket with requests, which takes Linux 6.17; crashes come \
         through the pipe (kernel_interface = \"pipe\")"
    );
    match passed.iter().position(socket::listens) {
        Some(at) => {
            let listener = passed.remove(at).into();
            serve(listener, passed)
        }
        None => keep(&listener()?),
    }
}

/// The socket, where no unit of systemd has made it.
fn listener() -> Result<UnixListener> {
    Registry::create()?;
    ensure!(!sysctl::is_served(), "{SOCKET} is served already, by another `oci-coredump serve`");
    socket::listen(Path::new(SOCKET))
}

/// Serves what comes to `listener`; `accepted` has come already.
fn serve(listener: UnixListener, accepted: Vec<OwnedFd>) -> Result<ExitCode> {
    let mut server = Server::new(listener, accepted)?;
    // In a process of its own: the kernel's pattern is set when this one answers. systemd does not
    // know whose word it is that a process has sent which has ended: so this one sends it.
    let setting = child::fork(|| {
        if let Err(e) = signals::give_back().and_then(|()| lead_here()) {
            log::error!("serve: {e:#}, crashes come through the pipe");
        }
        0
    })?;
    server.when_ended(&setting, ready);
    server.regularly(confirm);
    match server.run()? {
        Ending::End => {
            let config = Config::load_or_default();
            match sysctl::leave_socket(&config) {
                Ok(_) => {}
                Err(e) => log::error!("serve: the pipe's pattern cannot be given back: {e:#}"),
            }
            server.drain(QUIET, DRAIN)?;
            Ok(ExitCode::SUCCESS)
        }
        Ending::Again => {
            // What has come of signals meanwhile is the new program's.
            let program = sysctl::helper()?;
            Err(socket::pass_on(server.into_descriptors(), Command::new(program).arg("serve")))
        }
    }
}

/// Tells systemd that this process is alive. Leads crashes here again where they have gone to the
/// pipe since, because this server had not answered in time: `watch` as a service has a mount
/// namespace of its own, from which the kernel does not take the socket's pattern.
fn confirm() {
    tell_systemd(b"WATCHDOG=1");
    let by_pipe = |now: String| sysctl::is_ours(&now) && now != SOCKET_PATTERN;
    if !sysctl::core_pattern().is_ok_and(by_pipe) || !Config::load().is_ok_and(|c| is_wanted(&c)) {
        return;
    }
    // A process of its own, since it waits for this one's answer.
    let done = child::fork(|| {
        if let Err(e) = signals::give_back().and_then(|()| lead_here()) {
            log::error!("serve: {e:#}, crashes come through the pipe");
        }
        0
    });
    if let Err(e) = done {
        log::debug!("serve: {e:#}");
    }
}

/// Whether the configuration wants the socket.
fn is_wanted(config: &Config) -> bool {
    config.mode == Mode::Dispatch && config.kernel_interface != KernelInterface::Pipe
}

/// Makes the kernel connect to the socket, if that is configured.
fn lead_here() -> Result<()> {
    let config = Config::load()?;
    if !is_wanted(&config) {
        log::warn!(
            "serve: the configuration wants no socket (mode = \"dispatch\", kernel_interface = \
             \"socket\" or \"auto\"): nothing comes here"
        );
        return Ok(());
    }
    let helper = sysctl::helper()?;
    let ours = sysctl::wanted(&config, &helper)?;
    // Before anything was asked for, the first container's hook does it.
    let Some(store) = Store::open_existing(&config.store)? else { return Ok(()) };
    if sysctl::Saved::load(&store).is_ok_and(|saved| saved.is_none()) {
        return Ok(());
    }
    let registry = Registry::create()?;
    let _lock = registry.lock()?;
    sysctl::take_over(&store, &helper, &ours).map(drop)
}

/// Tells systemd that the service has started.
fn ready() {
    tell_systemd(b"READY=1");
}

fn tell_systemd(what: &[u8]) {
    if let Ok(path) = std::env::var("NOTIFY_SOCKET") {
        socket::send(&path, what);
    }
}

/// Holds the socket, and has a child serve it, a new one whenever it is killed: meanwhile crashes
/// wait in the kernel.
fn keep(listener: &UnixListener) -> Result<ExitCode> {
    process::not_dumpable()?;
    let mut signals = Signals::take()?;
    loop {
        let begun = Instant::now();
        let server = child::fork(|| {
            process::end_with_parent_by_term();
            let ours = signals::give_back().and_then(|()| Ok(listener.try_clone()?));
            let code = ours.and_then(|listener| serve(listener, Vec::new()));
            i32::from(code.inspect_err(|e| log::error!("serve: {e:#}")).is_err())
        })?;
        let mut told_to_end = false;
        let ended = loop {
            if let Some(ended) = server.has_ended()? {
                break ended;
            }
            descriptor::wait_readable(&signals, Some(SHORT))?;
            while let Some(told) = signals.next() {
                told_to_end |= told == SignalEvent::End;
                match told {
                    SignalEvent::Child => {}
                    SignalEvent::End => server.tell_to_end()?,
                    SignalEvent::Again => server.tell_again()?,
                }
            }
        };
        match ended {
            Ended::Exit(0) => return Ok(ExitCode::SUCCESS),
            _ if told_to_end => bail!("the server was told to end, and did: {ended:?}"),
            _ => log::error!("serve: the server has ended ({ended:?}), starting another one"),
        }
        if begun.elapsed() < SHORT {
            // The pipe has the crashes until a server runs again.
            sysctl::leave_socket(&Config::load_or_default()).context("give the pipe back")?;
            std::thread::sleep(QUIET);
        }
    }
}
