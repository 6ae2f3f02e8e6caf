//! `nri`: serves an engine as its NRI plugin.

use crate::engine;
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Serve an engine as its NRI plugin, by connecting to its socket. Runs until stopped, and
/// reconnects when the engine restarts.
///
/// Usually the engine starts the plugin itself: `oci-coredump install containerd`.
///
/// Example: oci-coredump nri --socket /var/run/nri/nri.sock
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The engine's NRI socket.
    #[arg(long, value_name = "PATH", default_value = engine::nri::SOCKET)]
    socket: PathBuf,
}

/// Runs until it is stopped.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    match engine::nri::run_connecting(&args.socket)? {}
}
