//! `doctor`: checks everything that a core depends on between the crash and the
//! file, with a verdict for each.

mod check;
mod containers;
mod core_pattern;
mod engines;
mod host;
mod uploads;

use crate::engine::Engine;
use crate::sys::text;
use crate::users;
use anyhow::Result;
use check::{Check, Verdict, warning};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check everything that a core depends on between the crash and the file, with advice.
///
/// Each line is ok, a warning or a failure. The exit status is 1 if there is a failure. For
/// every engine that is found on this host it shows how the engine is to start this program,
/// whether that is configured, and whether annotations reach this program.
///
/// Example: oci-coredump doctor containerd --json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check only this engine.
    engine: Option<Engine>,
    /// The engine's configuration file, if it is not at the usual path.
    #[arg(long, value_name = "FILE", requires = "engine")]
    config: Option<PathBuf>,
    /// Print a JSON array of {"check", "verdict", "text", "hint"}.
    #[arg(long)]
    json: bool,
}

/// Runs all checks and prints them.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let checks = checks(args);
    if args.json {
        writeln!(out, "{}", text::json(&serde_json::to_string_pretty(&checks)?))?;
    } else {
        for c in &checks {
            let verdict = match c.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Warning => "warning",
                Verdict::Failure => "failure",
            };
            writeln!(out, "{verdict}  {:<12}  {}", c.check, text::one_line(&c.text))?;
            if let Some(hint) = &c.hint {
                writeln!(out, "{:23}hint: {}", "", text::one_line(hint))?;
            }
        }
    }
    let worst = checks.iter().map(|c| c.verdict).max();
    Ok(if worst == Some(Verdict::Failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn checks(args: &Args) -> Vec<Check> {
    let mut all = vec![host::root(), host::linux()];
    let (mut config, check) = host::configuration();
    all.push(check);
    all.extend(host::early(&config));
    if let Err(e) = users::adapt(&mut config) {
        all.push(warning("store", format!("{e:#}"), "run it in an environment as after a login"));
    }
    all.push(host::helper());
    all.extend(core_pattern::patterns(&config));
    all.push(host::suid());
    all.extend(engines::ways(&config, args.engine, args.config.as_deref()));
    all.extend(engines::builds());
    all.extend(engines::changed(&config));
    all.push(host::store(&config));
    all.extend(uploads::uploads(&config));
    all.extend(containers::containers());
    all
}
