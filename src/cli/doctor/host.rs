//! The host: privileges, kernel, configuration, this program, the store.

use super::check::{Check, failure, ok, warning};
use crate::config::{self, Config};
use crate::sys::{kernel, ns, user};
use crate::sysctl;
use std::path::Path;

/// Who asks.
pub(super) fn root() -> Check {
    if user::is_host_root() {
        let own = std::env::current_exe().unwrap_or_default();
        match ns::check_initial(&own) {
            Ok(()) => ok("privileges", "root of the host"),
            Err(e) => failure("privileges", format!("{e:#}"), "run it on the host itself"),
        }
    } else {
        warning(
            "privileges",
            "not root of the host: some checks cannot look everywhere",
            "run it with sudo, outside of any container",
        )
    }
}

/// The kernel.
pub(super) fn linux() -> Check {
    let version = kernel::version();
    let text = format!("Linux {}.{}", version.0, version.1);
    match version {
        v if v < (5, 12) => failure(
            "kernel",
            format!("{text}: mount_setattr(2) is missing"),
            "Linux 5.12 or newer is needed",
        ),
        v if v < (6, 16) => ok(
            "kernel",
            format!(
                "{text}; the crasher is known by its PID and CoreDumping, not by a pidfd (Linux \
                 6.16)"
            ),
        ),
        _ => ok("kernel", format!("{text}, with pidfds for crashers")),
    }
}

/// The configuration, or the defaults where it cannot be read.
pub(super) fn configuration() -> (Config, Check) {
    match Config::load() {
        Ok(c) if !c.problems.is_empty() => {
            let what = format!("{}: {}", config::PATH, c.problems.join("; "));
            (c, failure("config", what, "correct it; all other keys hold"))
        }
        Ok(c) => {
            let there = Path::new(config::PATH).exists();
            (
                c,
                ok(
                    "config",
                    if there {
                        config::PATH.to_owned()
                    } else {
                        format!("{} is absent, using the defaults", config::PATH)
                    },
                ),
            )
        }
        Err(e) => (
            Config::default(),
            failure(
                "config",
                format!("{e:#}"),
                "correct the file; until then the defaults are used",
            ),
        ),
    }
}

/// The cost of early release, if it is allowed.
pub(super) fn early(config: &Config) -> Option<Check> {
    let told = "containers may ask for it: the memory of a crashed process then stays in use until \
                its core is whole, and counts as nobody's";
    config.allow_early_release.then(|| ok("release", told))
}

/// This program, as the kernel is to start it.
pub(super) fn helper() -> Check {
    let own = std::env::current_exe().unwrap_or_default();
    match sysctl::dispatch_pattern(&own).and_then(|_| sysctl::check_helper(&own)) {
        Ok(()) => ok("helper", own.display().to_string()),
        Err(e) => failure(
            "helper",
            format!("{e:#}"),
            "install it with `make install`, where only root can write",
        ),
    }
}

/// What becomes of set-user-ID programs.
pub(super) fn suid() -> Check {
    match std::fs::read_to_string("/proc/sys/fs/suid_dumpable")
        .map(|s| s.trim().to_owned())
        .as_deref()
    {
        Ok("1") => warning(
            "suid",
            "fs.suid_dumpable is 1: cores of set-user-ID programs belong to whoever started them, \
             those of containers are not kept",
            "set it to 0 or 2",
        ),
        Ok("0") => Check {
            hint: Some("sysctl -w fs.suid_dumpable=2, as systemd sets it".into()),
            ..ok(
                "suid",
                "fs.suid_dumpable is 0: the kernel makes no core, and tells of no crash, of \
                 set-user-ID programs and of daemons that gave up root's rights",
            )
        },
        Ok("2") => ok(
            "suid",
            "fs.suid_dumpable is 2: cores of set-user-ID programs and of daemons that gave up \
             root's rights are for the container's root",
        ),
        Ok(v) => ok("suid", format!("fs.suid_dumpable is {v}")),
        Err(e) => {
            warning("suid", format!("/proc/sys/fs/suid_dumpable: {e}"), "it must be readable")
        }
    }
}

/// The store: its owner and its room.
pub(super) fn store(config: &Config) -> Check {
    let path = &config.store;
    match std::fs::symlink_metadata(path) {
        Err(_) => ok("store", format!("{} is made when it is needed", path.display())),
        Ok(meta) => {
            use std::os::unix::fs::MetadataExt;
            let own = user::effective_uid();
            if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o077 != 0 {
                return failure(
                    "store",
                    format!(
                        "{} is not a directory of user {own}'s alone (mode 0700)",
                        path.display()
                    ),
                    &format!("chown {own} {0} && chmod 0700 {0}", path.display()),
                );
            }
            match kernel::free_bytes(path) {
                Ok(free) if free < 1 << 30 => warning(
                    "store",
                    format!("{}: {} MiB free", path.display(), free >> 20),
                    "make room, or set `store` in the configuration to another disk",
                ),
                Ok(free) => ok("store", format!("{}: {} GiB free", path.display(), free >> 30)),
                Err(e) => warning(
                    "store",
                    format!("{}: {e:#}", path.display()),
                    "its file system must answer",
                ),
            }
        }
    }
}
