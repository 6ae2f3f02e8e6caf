//! The kernel: the only place with `unsafe`, and the only one that names `nix`,
//! `rustix`, `libc` or `caps`.
//!
//! One kernel interface per file, and next to them what is built on several: time budgets, running
//! programs, files that are replaced as a whole (also as JSON), text that is safe to show. Errors
//! print like strace (`openat2(3, "a/b", O_PATH): ENOENT`), so that a line of the log is enough to
//! find the call. Nothing here knows of requests, registered containers, records or the format of a
//! core.
//!
//! A function whose comment has no section on errors fails as the system calls do that it makes;
//! its references name them, with the version of Linux that brought them where that is not ancient.

#![allow(unsafe_code)]

pub(crate) mod answer;
pub(crate) mod apparmor;
pub(crate) mod budget;
pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod coredump_socket;
pub(crate) mod counter;
pub(crate) mod cred;
pub(crate) mod descriptor;
pub(crate) mod executor;
pub(crate) mod file;
pub(crate) mod filesystem;
pub(crate) mod filter;
pub(crate) mod isolated_terminal;
pub(crate) mod kernel;
pub(crate) mod mapped_file;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod new_file;
pub(crate) mod ns;
pub(crate) mod pagemap;
pub(crate) mod pidfd;
pub(crate) mod pinned_memory;
pub(crate) mod pipe_readers;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod resolve;
pub(crate) mod rlimit;
pub(crate) mod robust_futex;
pub(crate) mod run_commands;
pub(crate) mod sandbox;
pub(crate) mod selinux;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod terminal_filter;
pub(crate) mod text;
pub(crate) mod user;
pub(crate) mod watch;

pub(crate) use file::Stat;
pub(crate) use rustix::io::Errno;
pub(crate) use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
