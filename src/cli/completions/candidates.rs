//! What may stand where the command line has a MATCH or a container.

use crate::cli::query;
use crate::config::Config;
use crate::record::Record;
use crate::registry::Registry;
use crate::store::{Records, Store};
use crate::sys::run_commands;
use crate::users;
use clap_complete::CompletionCandidate;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Most records that are read: the newest.
const RECORDS: usize = 200;

/// How long the tools of the engines may take, all of them together.
const PATIENCE: Duration = Duration::from_secs(1);

/// The tools that list the names of running containers, one on each line.
const TOOLS: [&[&str]; 3] = [
    &["podman", "ps", "--format", "{{.Names}}"],
    &["docker", "ps", "--format", "{{.Names}}"],
    &["nerdctl", "ps", "--format", "{{.Names}}"],
];

/// For a MATCH: the fields, and what they hold in the newest records; without a field containers,
/// pods, programs and signals.
pub(crate) fn matches(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let records = newest();
    let Some((field, value)) = current.split_once('=') else {
        let fields =
            query::FIELDS.iter().map(|(name, _)| CompletionCandidate::new(format!("{name}=")));
        let words = ["container", "pod", "exe", "signal"];
        let values = words.iter().flat_map(|field| records.iter().flat_map(|r| values(field, r)));
        let known = starting_with(values.collect(), &current);
        let fields = fields.filter(|c| c.get_value().to_string_lossy().starts_with(&*current));
        return known.into_iter().map(CompletionCandidate::new).chain(fields).collect();
    };
    if field == "record" {
        let of = |record: &Record| {
            let id = Records::id_of(record);
            let what = format!("{} of {}", record.signal_name, query::container(&record.names));
            let help = Some(what).filter(|what| what.split(' ').all(is_plain)).map(Into::into);
            (is_plain(&id) && id.starts_with(value))
                .then(|| CompletionCandidate::new(format!("record={id}")).help(help))
        };
        return records.iter().rev().filter_map(of).collect();
    }
    let all = records.iter().flat_map(|record| values(field, record)).collect();
    let found = starting_with(all, value).into_iter();
    found.map(|value| CompletionCandidate::new(format!("{field}={value}"))).collect()
}

/// For a container that runs: what the engines' tools call them, and those that are registered.
pub(crate) fn running(current: &OsStr) -> Vec<CompletionCandidate> {
    let command = |words: &&[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    let answers =
        run_commands::all(TOOLS.iter().map(command).collect(), PATIENCE).into_iter().flatten();
    let told = answers.filter(|answer| answer.success).flat_map(|answer| {
        let text = String::from_utf8_lossy(&answer.out).into_owned();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    let all = told.chain(registered_names()).collect();
    let found = starting_with(all, &current.to_string_lossy()).into_iter();
    found.map(CompletionCandidate::new).collect()
}

/// For a container that is registered.
pub(crate) fn registered(current: &OsStr) -> Vec<CompletionCandidate> {
    let found = starting_with(registered_names().collect(), &current.to_string_lossy()).into_iter();
    found.map(CompletionCandidate::new).collect()
}

fn registered_names() -> impl Iterator<Item = String> {
    let registry = Registry::open();
    let ids = registry.as_ref().and_then(|r| r.ids().ok()).unwrap_or_default();
    ids.into_iter().filter_map(move |id| {
        let names = registry.as_ref()?.get(&id)?.names;
        Some(names.container_name.unwrap_or(id))
    })
}

/// The store that the command line names.
static STORE: OnceLock<PathBuf> = OnceLock::new();

/// Takes the store from the words of the command line that is completed.
pub(super) fn use_store_of(words: &[OsString]) {
    let named = words.windows(2).find(|pair| pair[0] == "--store").map(|pair| pair[1].clone());
    let joined = words.iter().find_map(|word| word.to_str()?.strip_prefix("--store="));
    if let Some(store) = named.or_else(|| joined.map(Into::into)) {
        let _ = STORE.set(store.into());
    }
}

/// The newest records of that store, else of the configured one, the newest last.
fn newest() -> Vec<Record> {
    let mut config = Config::load().unwrap_or_default();
    let adapted = users::adapt(&mut config).map(|()| &config.store);
    let Some(store) = STORE.get().or(adapted.ok()) else { return Vec::new() };
    let store = Store::open_existing(store).ok().flatten();
    let records = store.and_then(|store| store.existing_records().ok().flatten());
    let Some(records) = records else { return Vec::new() };
    let names = records.names().unwrap_or_default();
    let skipped = names.len().saturating_sub(RECORDS);
    names[skipped..].iter().filter_map(|name| records.read(name)).collect()
}

/// What a field holds.
fn values(field: &str, r: &Record) -> Vec<String> {
    let one = |value: &Option<String>| value.iter().cloned().collect();
    match field {
        "container" => vec![query::container(&r.names)],
        "pod" => one(&r.names.pod_name),
        "namespace" => one(&r.names.pod_namespace),
        "image" => one(&r.names.image),
        "exe" => r.exe.rsplit('/').next().map(str::to_owned).into_iter().collect(),
        "comm" => vec![r.comm.clone()],
        "pid" => vec![r.pid.to_string(), r.host_pid.to_string()],
        "signal" => vec![r.signal_name.clone()],
        "core" => one(&r.core_path),
        "user" => r.user.iter().map(u32::to_string).collect(),
        _ => Vec::new(),
    }
}

/// Those that begin so, each once. Names are a container's choice: one with anything that a shell
/// could take for something else is left out.
fn starting_with(values: BTreeSet<String>, start: &str) -> Vec<String> {
    values.into_iter().filter(|value| value.starts_with(start) && is_plain(value)).collect()
}

fn is_plain(value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@+".contains(&b);
    !value.is_empty() && !value.starts_with('-') && value.bytes().all(plain)
}
