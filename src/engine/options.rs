//! What is configured, and how: the engine, the options of `install`, and the path of this program.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The name under which this program acts as an OCI runtime.
pub const RUNTIME_NAME: &str = "oci-coredump-runtime";

/// An engine that can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Through its daemon.json: a runtime that wraps the real one.
    Docker,
    /// Through an NRI plugin (containerd 2, and 1.7 with NRI enabled), or the base
    /// specification of its CRI plugin.
    Containerd,
    /// Through hooks.d.
    Podman,
    /// Through hooks.d.
    Crio,
}

impl Engine {
    /// All engines.
    pub const ALL: [Engine; 4] = [Engine::Docker, Engine::Containerd, Engine::Podman, Engine::Crio];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Containerd => "containerd",
            Engine::Podman => "podman",
            Engine::Crio => "crio",
        }
    }

    /// The usual path of the engine's configuration.
    pub(super) fn config(self) -> &'static Path {
        Path::new(match self {
            Engine::Docker => "/etc/docker/daemon.json",
            Engine::Containerd => "/etc/containerd/config.toml",
            Engine::Podman => "/etc/containers/containers.conf",
            Engine::Crio => "/etc/crio/crio.conf",
        })
    }
}

/// How containerd is made to start this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Interface {
    /// A plugin in /opt/nri/plugins: containerd 2, or 1.7 with NRI switched on.
    Nri,
    /// A base specification of the CRI plugin: all versions, but only pods.
    Spec,
}

/// How to configure an engine.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The engine's configuration file, if it is not at the usual path.
    #[arg(long, value_name = "FILE", requires = "engine")]
    pub config: Option<PathBuf>,
    /// containerd: how it starts this program; by default what its version supports.
    #[arg(long, requires = "engine")]
    pub way: Option<Interface>,
    /// docker: use it only for containers that are started with `--runtime oci-coredump`.
    #[arg(long, requires = "engine")]
    pub no_default: bool,
}

/// This program, at a path where engines can find it.
#[derive(Clone, Debug)]
pub struct Program {
    /// Path of the binary.
    pub path: PathBuf,
}

impl Program {
    /// The running program.
    pub fn own() -> Result<Self> {
        Ok(Program { path: std::env::current_exe().context("readlink(/proc/self/exe)")? })
    }

    /// Path of the link under which it acts as a runtime.
    pub fn runtime(&self) -> PathBuf {
        self.path.with_file_name(RUNTIME_NAME)
    }

    /// Its path as text, as configurations need it.
    ///
    /// # Errors
    /// The path is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        self.path.to_str().context("the path of this program is not UTF-8")
    }
}
