//! What the integration tests and the benchmarks share, one subject a file. `tests/` of the product
//! uses the parts that need no root.
#![allow(clippy::new_without_default, reason = "what is made here has an effect on the machine")]

pub mod background;
pub mod bare;
pub mod between;
pub mod bundle;
pub mod cases;
pub mod core_bytes;
pub mod core_file;
pub mod crasher;
pub mod cri;
pub mod daemon;
pub mod fixture;
pub mod fuse;
pub mod host;
pub mod image;
pub mod journal;
pub mod photo;
pub mod pod_crashes;
pub mod podman;
pub mod processes;
pub mod product;
pub mod program;
pub mod require;
pub mod rootfs;
pub mod runtime;
pub mod scene;
pub mod server;
pub mod stacks;
pub mod systemd;
pub mod terminal;
pub mod user;
pub mod wait;
