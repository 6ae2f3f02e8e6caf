//! The kernel's coredump socket: the demonstration through it on each runtime, who may connect, and
//! that no crash is lost when the server ends, hangs, is killed or replaced. Needs root and Linux
//! 6.17; elsewhere its tests say that they are not run. What the oracle, `matrix` and `attacks`
//! have for both ways is there.
#[path = "socket/impostors.rs"]
mod impostors;
#[path = "socket/lifecycle.rs"]
mod lifecycle;
#[path = "socket/resources.rs"]
mod resources;
#[path = "socket/runtimes.rs"]
mod runtimes;
