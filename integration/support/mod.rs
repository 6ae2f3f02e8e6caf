//! What the integration tests share, one subject a file. Every test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses another part of the support")]

pub mod bare;
pub mod between;
pub mod bundle;
pub mod crasher;
pub mod daemon;
pub mod fuse;
pub mod host;
pub mod podman;
pub mod require;
pub mod rootfs;
pub mod runtime;
pub mod systemd;
pub mod terminal;
pub mod user;
