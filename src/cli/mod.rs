//! The commands for users: dispatches the parsed command line.

mod announced;
mod archive;
mod bundle;
mod debug;
mod doctor;
mod enable;
mod export;
mod info;
mod install;
pub mod kubectl;
mod list;
mod locate;
mod metrics;
mod node;
mod plan;
mod private;
mod query;
mod remote;
mod report_page;
mod rm;
mod selection;
mod serve;
mod sink;
mod stack;
mod still_copied;
mod subject;
mod table;
mod tools;
mod tree;
mod unpack;
mod vacuum;
mod verbs;
mod verify;
mod watch;

use crate::bytes::Limit;
use crate::config::Config;
use crate::engine;
use crate::report::{self, LogTarget};
use crate::vacuum::Rules;
use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use selection::Chosen;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use verbs::{Cli, Verb};

/// The definition of the command line, for the documents that are made from it.
#[cfg(test)]
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// The manual page: the program, and the synopsis, description and options of each verb.
fn man_page() -> anyhow::Result<Vec<u8>> {
    let mut all = Cli::command();
    all.build();
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(all.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    for verb in all.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name().to_uppercase();
        writeln!(text, ".SH {name}")?;
        let page = clap_mangen::Man::new(verb.clone());
        let mut part = Vec::new();
        page.render_description_section(&mut part)?;
        page.render_synopsis_section(&mut part)?;
        page.render_options_section(&mut part)?;
        page.render_extra_section(&mut part)?;
        // As parts of the verb's section.
        text.extend_from_slice(
            &String::from_utf8_lossy(&part).replace(".SH ", ".SS ").into_bytes(),
        );
    }
    page.render_extra_section(&mut text)?;
    Ok(text)
}

/// Runs the command line. An error is one line on stderr.
pub fn run(args: Vec<OsString>) -> ExitCode {
    // `main` cleared the umask for the privileged verbs; files that a user makes here are writable
    // only by that user. `debug` sets a stricter mask.
    crate::sys::file::set_umask(0o022);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    report::init(LogTarget::Stderr, cli.verbose);
    match verb(cli.verb) {
        Ok(code) => code,
        // A reader that closes our output is no error.
        Err(e)
            if e.chain()
                .filter_map(|e| e.downcast_ref::<std::io::Error>())
                .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn verb(verb: Verb) -> Result<ExitCode> {
    // Without colours if stdout is no terminal, or with NO_COLOR.
    let mut out = std::io::BufWriter::new(anstream::AutoStream::auto(std::io::stdout().lock()));
    match verb {
        Verb::Ship { arguments } => return Err(remote::become_it(&arguments)).context("ship"),
        Verb::Report { which, output } => {
            let (chosen, query) = which.choose().context("report")?;
            drop(out);
            let code = report_page::run(&chosen, &query, &output).context("report")?;
            return Ok(code);
        }
        Verb::List { which, newest, reverse, json, follow } => {
            let (chosen, query) = which.choose().context("list")?;
            let code =
                list::run(&mut out, &chosen, &query, &list::Args { newest, reverse, json, follow })
                    .context("list")?;
            out.flush()?;
            return Ok(code);
        }
        Verb::Info { which, json, .. } if remote::is_url(&which.matches) => {
            info::run_bundle(&mut out, remote::fetch(&which.matches[0])?, json).context("info")?;
        }
        Verb::Info { which, newest, core, sysroot, json } => {
            let (chosen, query) = which.choose().context("info")?;
            let code =
                info::run(&mut out, &chosen, &query, &info::Args { newest, core, sysroot, json })
                    .context("info")?;
            out.flush()?;
            return Ok(code);
        }
        Verb::Debug { which, from, debugger, arguments, as_root, debuginfod } => {
            let debugger = debug::Debugger { program: debugger, arguments, as_root, debuginfod };
            if remote::is_url(&which.matches) {
                let bundle = remote::fetch(&which.matches[0]).context("debug")?;
                return debug::run_fetched(bundle, &debugger).context("debug");
            }
            if let [bundle] = which.matches.as_slice()
                && bundle.ends_with(".tar.zst")
            {
                return debug::run_bundle(Path::new(bundle), &debugger).context("debug");
            }
            let (chosen, query) = which.choose().context("debug")?;
            return debug::run(&chosen, &query, &from, &debugger).context("debug");
        }
        Verb::Export { which, output, core_only: false, .. } if remote::is_url(&which.matches) => {
            export::run_fetched(remote::fetch(&which.matches[0])?, &output).context("export")?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Export { which, from, output, core_only } => {
            let (chosen, query) = which.choose().context("export")?;
            drop(out);
            export::run(&chosen, &query, &from, &output, core_only).context("export")?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Vacuum { max_size, max_age, keep, dry_run, store } => {
            let size = |s: String| s.parse::<Limit>().with_context(|| format!("--max-size {s:?}"));
            let max_size = max_size.map(size).transpose().context("vacuum")?;
            let age = |t: String| {
                query::when(&t, &jiff::ZonedDateTime::now())
                    .with_context(|| format!("--max-age {t:?}"))
            };
            let configured =
                Rules::configured(&Config::load().unwrap_or_default(), jiff::Timestamp::now());
            let rules = Rules {
                max_size: max_size.and_then(Limit::finite),
                since: max_age.map(age).transpose().context("vacuum")?,
                keep,
                ..configured
            };
            Chosen::of(store)
                .and_then(|chosen| vacuum::run(&mut out, &chosen, rules, dry_run))
                .context("vacuum")?;
        }
        Verb::Rm { which, all, yes, dry_run } => {
            anyhow::ensure!(
                all || which.is_any(),
                "rm: say which crashes (MATCH, --since, --until), or --all"
            );
            let (chosen, query) = which.choose().context("rm")?;
            let options = rm::Options { yes, dry_run };
            let code = rm::run(&mut out, &chosen, &query, &options).context("rm")?;
            out.flush()?;
            return Ok(code);
        }
        Verb::Watch { once } => {
            install::need_root("watch")?;
            if once { watch::once() } else { watch::run() }.context("watch")?;
        }
        Verb::Metrics { listen: Some(address), store, .. } => {
            let chosen = Chosen::of(store).context("metrics")?;
            match serve::run(address, || metrics::all(&chosen)).context("metrics")? {}
        }
        Verb::Metrics { textfile, every, store, .. } => loop {
            let written = Chosen::of(store.clone())
                .and_then(|chosen| metrics::run(&mut out, &chosen, textfile.as_deref()))
                .context("metrics");
            let Some(seconds) = every else { break written? };
            if let Err(e) = written {
                log::error!("{e:#}, trying again");
            }
            std::thread::sleep(std::time::Duration::from_secs(seconds));
        },
        Verb::Enable { container, pid, by, pattern, limit, filter, compress } => {
            let keys = [
                ("pattern", Some(pattern)),
                ("limit", limit),
                ("filter", filter),
                ("compress", compress),
            ];
            let wishes = keys
                .into_iter()
                .filter_map(|(key, value)| Some((format!("oci-coredump/{key}"), value?)))
                .collect();
            enable::run(&mut out, container.as_deref(), pid, by.as_deref(), &wishes)
                .context("enable")?;
        }
        Verb::Disable { container } => enable::disable(&mut out, &container).context("disable")?,
        Verb::Install { engine: Some(engine), options, dry_run, .. } => {
            install::install_engine(&mut out, engine, &options, dry_run)?
        }
        Verb::Install { detect: true, options, dry_run, .. } => {
            install::install_detected(&mut out, &options, dry_run)?
        }
        Verb::Install { dry_run, .. } => install::install(&mut out, dry_run)?,
        Verb::Uninstall { engine: Some(engine), dry_run, .. } => {
            install::uninstall_engine(&mut out, engine, dry_run)?
        }
        Verb::Uninstall { dry_run, purge, .. } => install::uninstall(&mut out, dry_run, purge)?,
        Verb::Doctor { engine, config, json } => {
            return doctor::run(&mut out, &doctor::Args { engine, config }, json);
        }
        Verb::Plan { bundle, state, config } => {
            plan::run(&mut out, &bundle, state.as_deref(), config.as_deref())?
        }
        Verb::Node { action: node::Action::Run, root, words, .. } => {
            drop(out);
            node::step_in(root.as_deref().unwrap_or(Path::new(node::ROOT))).context("node run")?;
            let words = std::iter::once("oci-coredump".into()).chain(words);
            return match Cli::try_parse_from(words) {
                Ok(cli) => self::verb(cli.verb),
                Err(e) => e.exit(),
            };
        }
        Verb::Node { action, root, directory, config, stay, .. } => {
            let wish = node::Wish {
                root: root.as_deref(),
                directory: directory.as_deref(),
                config: config.as_deref(),
                stay,
            };
            node::run(&mut out, action, &wish)
                .with_context(|| format!("node {action:?}").to_lowercase())?
        }
        Verb::Verify { runtime, json } => {
            return verify::run(&mut out, &runtime, json).context("verify");
        }
        Verb::VerifyProbe { stage, report, scratch, actions } => {
            return Ok(ExitCode::from(crate::verify::probe(&stage, &report, &scratch, &actions)?));
        }
        Verb::Nri { socket } => match engine::nri::run_connecting(&socket)? {},
        Verb::Man => out.write_all(&man_page()?)?,
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "oci-coredump", &mut text);
            out.write_all(&text)?;
        }
        // `main` runs these two without the parser; only their `--help` comes here.
        Verb::Hook { .. } | Verb::Handle { .. } => return Ok(ExitCode::FAILURE),
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
