//! Where the kernel sends crashes, and where those go that are no container's.

use super::check::{Check, failure, ok, warning};
use crate::config::{Config, KernelInterface, Mode};
use crate::pattern::Handler;
use crate::store::Store;
use crate::sys::user::{self, RunBy};
use crate::sysctl::{self, Saved};
use std::path::{Path, PathBuf};

const CHECK: &str = "core_pattern";

/// What is to be said of the kernel's settings.
pub(super) fn patterns(config: &Config) -> Vec<Check> {
    let now = match sysctl::core_pattern() {
        Ok(p) => p,
        Err(e) => {
            return vec![failure(CHECK, format!("{e:#}"), "kernel.core_pattern must be readable")];
        }
    };
    if let RunBy::User(uid) = user::run_by() {
        return vec![match config.mode {
            Mode::Dispatch if sysctl::is_ours(&now) => ok(CHECK, "crashes come to this program"),
            _ => failure(
                CHECK,
                format!("{now:?}, so that containers of user {uid} get no cores"),
                "the administrator must run `oci-coredump install` once, as root",
            ),
        }];
    }
    let saved = Store::peek(config).and_then(|s| Saved::load(&s).ok()).flatten();
    let mut all = match now == sysctl::SOCKET_PATTERN {
        true => vec![served()],
        false => vec![owner(config, &now, saved.as_ref())],
    };
    if sysctl::is_ours(&now) && config.mode == Mode::Dispatch {
        all.extend(interface(config, &now));
    }
    if sysctl::is_ours(&now) {
        all.extend(pipe_limit());
        all.push(forwarding(saved.as_ref()));
    }
    all
}

/// A server whose socket's file was removed listens where nobody finds it: only a restart of its
/// socket unit makes the file again.
const RESTART: &str = "`systemctl restart oci-coredump-serve.socket oci-coredump-serve.service`, \
                       or `oci-coredump serve` without systemd; `oci-coredump watch --once` gives \
                       crashes to the pipe meanwhile";

/// The kernel connects to the socket.
fn served() -> Check {
    match sysctl::is_served() {
        true => ok(CHECK, "crashes come to this program, through its coredump socket"),
        false => failure(
            CHECK,
            format!("no server answers at {}: every core on this host is lost", sysctl::SOCKET),
            RESTART,
        ),
    }
}

/// Which way crashes come, where that is another one than configured.
fn interface(config: &Config, now: &str) -> Option<Check> {
    const NAME: &str = "kernel interface";
    if now == sysctl::SOCKET_PATTERN {
        return match config.kernel_interface {
            KernelInterface::Pipe => Some(warning(
                NAME,
                "the coredump socket, although kernel_interface = \"pipe\"",
                "`oci-coredump watch --once`, or the next hook of any container, changes it",
            )),
            _ => Some(ok(NAME, "the coredump socket: the kernel starts no program for a crash")),
        };
    }
    match config.kernel_interface {
        KernelInterface::Pipe => None,
        _ if !sysctl::has_socket() => {
            Some(ok(NAME, "the pipe: the coredump socket with requests takes Linux 6.17"))
        }
        _ if !sysctl::is_served() => Some(warning(
            NAME,
            format!("the pipe, since no server answers at {}", sysctl::SOCKET),
            RESTART,
        )),
        _ => Some(warning(
            NAME,
            "the pipe, although the coredump socket is served",
            "oci-coredump.service changes it within seconds, else the next hook of any container",
        )),
    }
}

/// Whose the kernel's pattern is.
fn owner(config: &Config, now: &str, saved: Option<&Saved>) -> Check {
    let own = std::env::current_exe().ok().and_then(|p| sysctl::dispatch_pattern(&p).ok());
    match (saved, config.mode) {
        (_, Mode::Dispatch) if Some(now) == own.as_deref() => {
            ok(CHECK, "crashes come to this program")
        }
        (_, Mode::Dispatch) if sysctl::is_ours(now) => {
            let program = now[1..].split(' ').next().unwrap_or_default().to_owned();
            if Path::new(&program).exists() {
                warning(
                    CHECK,
                    format!("crashes go to another copy of this program, {program}"),
                    "run `oci-coredump install` by the path that shall stay",
                )
            } else {
                failure(
                    CHECK,
                    format!("{program} does not exist: every core on this host is lost"),
                    "run `oci-coredump install`, or `oci-coredump uninstall` to undo it",
                )
            }
        }
        (Some(s), Mode::Kernel) if s.ours == now && !s.owners.is_empty() => {
            ok(CHECK, format!("{now:?}, for container {}", s.owners.join(", ")))
        }
        (_, Mode::Kernel) => ok(
            CHECK,
            format!("{now:?}; a container's own goes there when it starts (mode = \"kernel\")"),
        ),
        (Some(_), _) => warning(
            CHECK,
            format!("something has overwritten it with {now:?}"),
            "oci-coredump.service repairs it within seconds, else the next hook of any container; \
             `oci-coredump install` does it now",
        ),
        (None, _) => ok(CHECK, format!("{now:?}; the first container that asks takes it over")),
    }
}

/// Whether the kernel waits for this program.
fn pipe_limit() -> Option<Check> {
    match sysctl::core_pipe_limit() {
        Ok(limit) if limit >= sysctl::OUR_PIPE_LIMIT => None,
        Ok(limit) => Some(warning(
            "pipe limit",
            format!(
                "kernel.core_pipe_limit is {limit}: with 0 the kernel does not wait, over it \
                 crashes are lost"
            ),
            "run `oci-coredump install`",
        )),
        Err(e) => {
            Some(warning("pipe limit", format!("{e:#}"), "kernel.core_pipe_limit must be readable"))
        }
    }
}

/// Where other crashes go.
fn forwarding(saved: Option<&Saved>) -> Check {
    match saved.map(Saved::handler) {
        None => warning(
            "forwarding",
            "what core_pattern was before is not known: crashes of the host's go to the \
             distribution's handler, or to a file",
            "run `oci-coredump uninstall`, set core_pattern, run `oci-coredump install`",
        ),
        Some(Handler::Socket) => warning(
            "forwarding",
            "the earlier handler is a socket, which only the kernel can connect to",
            "configure that handler as a pipe program",
        ),
        Some(Handler::Pipe(args)) => {
            let program = args.first().map(|a| PathBuf::from(a.to_string())).unwrap_or_default();
            if program.exists() {
                ok("forwarding", format!("other crashes go on to {}", program.display()))
            } else {
                warning(
                    "forwarding",
                    format!(
                        "the earlier handler {} is gone: cores of the host's processes are \
                         lost",
                        program.display()
                    ),
                    "run `oci-coredump uninstall`, set core_pattern, run `oci-coredump \
                     install`",
                )
            }
        }
        Some(Handler::File(t)) => {
            ok("forwarding", format!("other crashes write the file {:?}, as before", t.to_string()))
        }
        Some(Handler::Nothing) => ok("forwarding", "other crashes write nothing, as before"),
    }
}
