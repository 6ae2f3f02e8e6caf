//! The kernel: the only place with `unsafe`, and the only one that names `nix`,
//! `rustix`, `libc` or `caps`.
//!
//! One kernel interface per file. Errors print like strace (`openat2(3, "a/b", O_PATH):
//! ENOENT`), so that a line of the log is enough to find the call. Nothing here knows of requests,
//! registered containers, records or the format of a core.
//!
//! A function whose comment has no section on errors fails as the system calls do that it makes;
//! its references name them, with the version of Linux that brought them where that is not ancient.

#![allow(unsafe_code)]

pub mod apparmor;
pub mod budget;
pub mod cgroup;
pub mod child;
pub mod counter;
pub mod cred;
pub mod descriptor;
pub mod executor;
pub mod file;
pub mod filesystem;
pub mod filter;
pub mod isolated_terminal;
pub mod kernel;
pub mod limit;
pub mod mapped_file;
pub mod memory;
pub mod mount;
pub mod new_file;
pub mod ns;
pub mod pagemap;
pub mod pidfd;
pub mod pinned_memory;
pub mod proc;
pub mod process;
pub mod resolve;
pub mod robust_futex;
pub mod run_commands;
pub mod sandbox;
pub mod selinux;
pub mod socket;
pub mod terminal_filter;
pub mod text;
pub mod user;
pub mod watch;

pub use file::Stat;
pub use rustix::io::Errno;
pub use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
