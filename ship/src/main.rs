//! `oci-coredump-ship`: uploads the crashes that the helper has recorded to object storage.
//!
//! ```text
//! <store>/records/*.jsonl --record, todo--> one crash --ship--> bundle, report.html, record.json
//!                                              |   ^
//!                     oci-coredump export ... -+   +- state: what is there, how far the rest is
//! ```
//!
//! A program of its own: no HTTP and no TLS in what the kernel and the engines start. It reads the
//! store and writes nothing there; what reads a core is the helper, in its sandboxes.

mod answers;
mod by_s3;
mod cat;
mod config;
mod credentials;
mod debuginfod;
// Of oci-coredump.
#[path = "../../src/config/glob.rs"]
mod glob;
mod key;
mod log_line;
mod memory;
mod near;
mod record;
mod regular_file;
mod roles;
mod rules;
mod run;
mod ship;
// Of oci-coredump, which uses all of it.
#[allow(dead_code)]
#[path = "../../src/bytes.rs"]
mod size;
mod source;
mod state;
mod target;
mod tell;
mod upload;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use config::Config;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Uploads recorded crashes to object storage.
///
/// `[upload]` of the configuration says what and where to; docs/upload.md describes it. Credentials
/// come from the environment, files and roles, as the storage's own tools have them.
#[derive(Debug, Parser)]
#[command(name = "oci-coredump-ship", version, max_term_width = 100)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// Report in detail on stderr what is done.
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Upload crashes as they happen, until stopped.
    ///
    /// A configuration that has changed is read again, also at SIGHUP.
    Run {
        /// Try each crash that is there once, and end.
        #[arg(long)]
        once: bool,
        /// The name of this node in keys; without it NODE_NAME, else the host's name.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
    /// Say where crashes are uploaded to, or what to mend in `[upload]` first.
    ///
    /// The files that it names are read, but nothing is asked of the storage. `oci-coredump doctor`
    /// starts this.
    Check,
    /// Write an uploaded file to stdout, after a check of its hash at the end.
    ///
    /// Of the directory of a crash, its bundle. `oci-coredump info`, `debug` and `export` start
    /// this for a URL.
    Cat {
        /// Its URL: s3://BUCKET/..., as `list --json` and messages have it.
        url: String,
    },
    /// Write what a debuginfod server has of a build-id to stdout.
    ///
    /// `oci-coredump --debuginfod` starts this, without rights. The exit status is 3 if the server
    /// does not have it.
    FetchDebuginfo(debuginfod::Args),
}

/// Exit status where a server does not have what is asked for.
const NOT_THERE: u8 = 3;

fn node(given: Option<String>) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = given.or_else(|| std::env::var("NODE_NAME").ok()).or_else(host);
    name.unwrap_or_default().trim().to_owned()
}

fn start(cli: Cli) -> Result<ExitCode> {
    // What is written as files, cores above all, is for this user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // The only provider of cryptography that is built in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("start")?;
    let mut out = std::io::stdout().lock();
    if let Verb::FetchDebuginfo(args) = &cli.verb {
        let is_there = runtime.block_on(debuginfod::fetch(args, &mut out))?;
        return Ok(if is_there { ExitCode::SUCCESS } else { ExitCode::from(NOT_THERE) });
    }
    if let Verb::Run { once, node: name } = cli.verb {
        runtime.block_on(run::run(&cli.config, node(name), once))?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(&cli.config)?;
    match cli.verb {
        Verb::Cat { url } => runtime.block_on(cat::cat(&config, &url, &mut out))?,
        Verb::Check => match &config.upload.url {
            Some(url) => {
                // The files that it names, and what only the library knows of a storage.
                let _entered = runtime.enter();
                if !url.starts_with("file:") {
                    target::Target::open(url, &config.upload, true)?;
                }
                tell::Tellers::new(&config.upload)?;
                writeln!(out, "crashes are uploaded to {url}")?;
            }
            None => writeln!(out, "[upload] url is not set: nothing is uploaded")?,
        },
        Verb::Run { .. } | Verb::FetchDebuginfo(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_line::init(cli.verbose);
    match start(cli) {
        Ok(code) => code,
        Err(e) => {
            log::error!("{}", upload::told(&e));
            ExitCode::FAILURE
        }
    }
}
