//! Fuzz targets and their invariants: for each reader of untrusted bytes a function that reads any
//! input and asserts what must hold of the result.
//!
//! For the fuzz targets in `fuzz/`; not part of the program. The seeds are
//! replayed here as a plain test.

use crate::annotation::Annotations;
use crate::config::{self, Config};
use crate::corefile::{self, ModuleFiles, PartialResult, VariableOptions, overview, stacks};
use crate::invariants::{asked, crash, granted};
use crate::pattern::Handler;
use crate::registry::{self, Entry};
use crate::report;
use crate::store;
use crate::sys::proc::{self, Status};
use crate::sysctl::Saved;
use crate::{dump, elf, engine, hook};
use std::collections::BTreeSet;
use std::io::Read;

/// A name, and the function that reads the bytes and asserts its invariants.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All targets, by the names that `fuzz/run.sh` takes.
pub const TARGETS: [FuzzTarget; 18] = [
    ("state", hook::invariants::state),
    ("bundle", hook::invariants::bundle),
    ("annotations", annotations),
    ("template", template),
    ("argv", dump::invariants::argv),
    ("proc", proc_files),
    ("mountinfo", mountinfo),
    ("stream", dump::invariants::stream),
    ("entry", entry),
    ("record", record),
    ("config", configuration),
    ("spec", spec),
    ("corefile", corefile),
    ("reduced", corefile::reduced::invariants::reduced),
    ("identity", identity),
    ("symbols", symbols),
    ("variables", variables),
    ("compressed", compressed),
];

/// A compressed core: what is read of it anywhere is what a decompressor of the whole reads there.
fn compressed(file: &[u8]) {
    const MOST: u64 = 1 << 20;
    let file = file.to_vec();
    let Ok(core) = corefile::Compressed::of(&file) else { return };
    let mut whole = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(&file[..]);
    let read = decoder.and_then(|from| from.take(MOST).read_to_end(&mut whole));
    if read.is_ok() && (whole.len() as u64) < MOST {
        assert_eq!(elf::Source::size(&core), whole.len() as u64);
        for offset in [0, 1, whole.len() / 2, whole.len()] {
            let mut part = vec![0; 1 << 12];
            let n = elf::Source::read_at(&core, offset as u64, &mut part);
            assert!(whole.get(offset..).is_none_or(|rest| rest.starts_with(&part[..n])));
        }
    }
    let _ = overview(&core);
}

/// Annotations: a line `key=value` for each; `;` stands for a newline in a value.
fn annotations(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let all: Annotations = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.replace(';', "\n")))
        .collect();
    asked(&all);
}

/// A template, a NUL, and the names of a crash, one on each line.
fn template(text: &[u8]) {
    let mut parts = text.splitn(2, |b| *b == 0);
    let (pattern, names) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Some(pattern) = std::str::from_utf8(pattern).ok().and_then(|p| p.parse().ok()) {
        granted(&pattern, names);
    }
    if let Handler::Pipe(words) = Handler::of(pattern) {
        words.iter().for_each(|word| drop(word.expand_argument(&crash(names))));
    }
}

/// The first byte selects the file of /proc whose reader is tested.
fn proc_files(text: &[u8]) {
    let Some((which, text)) = text.split_first() else { return };
    match which % 6 {
        0 => drop(Status::parse(text)),
        1 => drop((proc::start_time(text), proc::is_zombie(text))),
        2 => {
            for key in proc::cgroups(text).iter().flat_map(registry::cgroup_keys) {
                assert!(
                    key.len() <= 255 && !key.contains('/') && !key.chars().any(char::is_control),
                    "{key:?}"
                );
            }
        }
        3 => drop(["Max file size", proc::CORE_LIMIT].map(|name| proc::limit(text, name))),
        4 => drop(proc::auxiliary(text, proc::AT_SECURE)),
        _ => drop((proc::mapped_root(text), proc::printable(text))),
    }
}

/// A /proc/PID/mountinfo.
fn mountinfo(text: &[u8]) {
    let lines = text.split(|b| *b == b'\n').count();
    let points = proc::mount_points(text);
    assert!(
        points.len() <= lines
            && points.iter().all(|point| point.target.as_os_str().len() <= text.len())
    );
}

/// An entry of the registry.
fn entry(text: &[u8]) {
    let Ok(entry) = serde_json::from_slice::<Entry>(text) else { return };
    let again: Entry = serde_json::from_slice(&serde_json::to_vec(&entry).expect("it was JSON"))
        .expect("what we write we read");
    assert_eq!(again, entry);
    if registry::check_id(&entry.names.container_id).is_ok() {
        let id = &entry.names.container_id;
        assert!(!id.contains('/') && id != "." && id != "..");
    }
    dump::invariants::place(&entry);
}

/// A file of the store: a record, or the saved sysctls.
fn record(text: &[u8]) {
    if let Ok(Some(record)) = store::last(text) {
        let again = store::last(&serde_json::to_vec(&record).expect("it was JSON"))
            .expect("what we write we read");
        assert_eq!(again.as_ref(), Some(&record));
        assert!(!report::one_line(&record.to_string()).chars().any(char::is_control));
    }
    if let Ok(saved) = serde_json::from_slice::<Saved>(text) {
        saved.handler();
    }
}

/// A config.toml, then a NUL and a value for `[select]`.
fn configuration(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let (text, value) = text.split_once('\0').unwrap_or((&text, "prod"));
    let config = Config::read(text);
    assert!(
        config.store.is_absolute() && config.runtime.as_ref().is_none_or(|path| path.is_absolute())
    );
    let all: Annotations =
        config.select.keys().map(|key| (key.clone(), value.to_owned())).collect();
    if let Some(pattern) = config.default_for(&all) {
        granted(pattern, b"");
    }
    let all_match = config.select.values().all(|glob| config::matches(glob, value));
    assert_eq!(config.default_for(&all).is_some(), config.default_pattern.is_some() && all_match);
}

/// A config.json that the runtime wrapper edits: a second edit changes nothing, and what
/// the file held before stays.
fn spec(text: &[u8]) {
    let (config, program) = (Config::default(), std::path::Path::new("/usr/libexec/oci-coredump"));
    let Ok(Some(edited)) = engine::spec::edit(text, None, &config, program, u64::MAX) else {
        return;
    };
    let again = engine::spec::edit(&edited, None, &config, program, u64::MAX)
        .expect("what we write we read");
    assert_eq!(again, None, "{}", String::from_utf8_lossy(&edited));
}

/// A core, and a file for each of its modules: the size of the core (4 bytes, little-endian), then
/// the files one after the other.
fn corefile(data: &[u8]) {
    let Some((size, rest)) = data.split_first_chunk::<4>() else { return };
    let (core, file) = rest.split_at(rest.len().min(u32::from_le_bytes(*size) as usize));
    let core = core.to_vec();
    let Ok(said) = overview(&core) else { return };
    let files = vec![ModuleFiles::all(file); said.modules.len()];
    let mut asked = BTreeSet::new();
    let options = VariableOptions { frames: 8, contents: true, hide: vec!["p*".into()] };
    for _ in 0..2 {
        let mut wanted = Vec::new();
        let _ = stacks(&core, &files, &asked, Some(&options), &mut |part| {
            if let PartialResult::Needed(all) = part {
                wanted.extend(all);
            }
            Ok(())
        });
        asked.extend(wanted);
    }
}

/// A file with names: an executable, debug information, split DWARF.
fn symbols(file: &[u8]) {
    corefile::read_names(file);
}

/// An executable with debug information of variables, whose own bytes are the memory too.
fn variables(file: &[u8]) {
    corefile::read_variables(file);
}

/// An executable or library that is to be kept with a core.
fn identity(file: &[u8]) {
    let file = file.to_vec();
    if let Some(name) = corefile::name(&file, elf::build_id(&file).as_deref(), 1 << 20) {
        assert!(corefile::is_name(&name), "{name:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Replays every seed and every input that once broke something.
    #[test]
    fn replay() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in TARGETS {
            let files = std::fs::read_dir(seeds.join(name))
                .unwrap_or_else(|e| panic!("fuzz/seeds/{name}: {e}"));
            let mut count = 0;
            for file in files {
                let path = file.unwrap().path();
                println!("{}", path.display());
                target(&std::fs::read(path).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no seed");
        }
    }
}
