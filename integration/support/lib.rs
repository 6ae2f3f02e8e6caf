//! What the integration tests share, one subject a file. Every test binary uses a part of it.

pub mod bare;
pub mod between;
pub mod bundle;
pub mod cases;
pub mod core_bytes;
pub mod core_file;
pub mod crasher;
pub mod daemon;
pub mod fixture;
pub mod fuse;
pub mod host;
pub mod podman;
pub mod processes;
pub mod program;
pub mod require;
pub mod rootfs;
pub mod runtime;
pub mod scene;
pub mod stacks;
pub mod systemd;
pub mod terminal;
pub mod user;
pub mod wait;
