//! The configuration file, /etc/oci-coredump/config.toml.
//!
//! In: its text. Out: a [`Config`]. A key that cannot be read is left out, with a line in
//! [`Config::problems`]; the other keys hold.

use crate::limits::{Limits, Size};
use crate::pattern::Template;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Path of the configuration file, which may be absent.
pub const PATH: &str = "/etc/oci-coredump/config.toml";

/// The state that the hook and the dispatcher share. On tmpfs: it is gone after a
/// reboot, as the containers are.
pub const RUN_DIR: &str = "/run/oci-coredump";

/// Largest configuration that is read, in bytes.
const MAX: usize = 1 << 20;

/// How the kernel's one `core_pattern` is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The kernel pipes every crash to `oci-coredump handle`: a pattern for each container.
    #[default]
    Dispatch,
    /// The kernel writes the file itself, by the pattern of the container. One pattern for the
    /// whole kernel: for VMs that run one pod, and Kata guests.
    Kernel,
}

/// How a container's own directory of the store is mounted into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreView {
    /// Read-only: the container can read its cores.
    #[default]
    Ro,
    /// Writable: it can also remove them, and create files of any size.
    Rw,
}

/// Which process's core is reported in the container's /dev/termination-log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TerminationLog {
    /// No process's.
    Off,
    /// The init process's, with which the container ends.
    #[default]
    Init,
    /// Any process's.
    Any,
}

/// The administrator's settings. docs/configuration.md describes each key with its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `dispatch` or `kernel`.
    pub mode: Mode,
    /// Append `.PID` to a pattern that has no `%p`, as `kernel.core_uses_pid=1`
    /// does, and as Alibaba ECI does.
    pub core_uses_pid: bool,
    /// Refuse to start a container whose request cannot be honoured.
    pub strict: bool,
    /// The pattern of containers that request none.
    pub default_pattern: Option<String>,
    /// The containers that `default_pattern` applies to: annotation key, and a glob (`*`, `?`) that
    /// its value must match. Empty: all containers.
    pub select: BTreeMap<String, String>,
    /// Whether a container may request, with `oci-coredump/release: early`, that a crashed process
    /// is released before its core is complete. Its memory then stays in use until the core is
    /// complete, although the process is no longer visible.
    pub allow_early_release: bool,
    /// Limits for the cores of one container. Absent keys have their own defaults.
    pub limits: Limits,
    /// The host's store of cores and records.
    pub store: PathBuf,
    /// Whether a container may write to its own directory of the store other than by
    /// dumping core: `ro` or `rw`. With `rw` it can fill the disk that the store is on.
    /// `mode = "kernel"` implies `rw`.
    pub store_view: StoreView,
    /// Which core is reported in the container's `/dev/termination-log`, if it has that file and
    /// the file is empty: `init`, `any` or `off`.
    pub termination_log: TerminationLog,
    /// The executables and libraries that are kept with their cores.
    pub binaries: Binaries,
    /// What may stay in the store. The rules are applied from time to time.
    pub vacuum: Vacuum,
    /// Whether and how `oci-coredump-ship` uploads crashes. Its other keys are that program's.
    pub upload: Upload,
    /// The OCI runtime that the wrapper executes. Not set: runc, else crun, from /usr/bin,
    /// /usr/sbin, /usr/local/bin or /usr/local/sbin.
    pub runtime: Option<PathBuf>,
    /// What was left out of the file and why, one line each.
    #[serde(skip)]
    pub problems: Vec<String>,
}

/// `[binaries]`: the executable and libraries of a crash, kept in the store for use
/// after the container is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Binaries {
    /// Whether they are kept.
    pub keep: bool,
    /// Most bytes of one file; a larger file is not kept.
    #[serde(deserialize_with = "size")]
    pub max_file: u64,
    /// Most bytes of all of them. One account may have a quarter. To make room for a newer file,
    /// the oldest file of the account that has most is removed.
    #[serde(deserialize_with = "size")]
    pub max_total: u64,
}

impl Default for Binaries {
    fn default() -> Self {
        Binaries { keep: true, max_file: 1 << 30, max_total: 4 << 30 }
    }
}

/// `[vacuum]`: the rules of `oci-coredump vacuum`, which the program also applies by itself after
/// crashes and when containers end. Without a rule, only binaries that no core needs are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vacuum {
    /// Most bytes on disk of the store, cores and binaries together.
    #[serde(deserialize_with = "some_size")]
    pub max_size: Option<u64>,
    /// Greatest age of a crash, in seconds.
    #[serde(deserialize_with = "some_age")]
    pub max_age: Option<u64>,
    /// Most crashes that are kept.
    pub keep: Option<usize>,
}

/// `[upload]`, as far as this program needs it: `oci-coredump-ship` reads the rest of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upload {
    /// Where crashes are uploaded to. Not set: they are not.
    pub url: Option<String>,
    /// The directory in which `oci-coredump-ship` keeps what it has uploaded.
    pub state: PathBuf,
    /// How long, in seconds, vacuum keeps a crash that is not uploaded yet.
    #[serde(deserialize_with = "some_age")]
    pub keep_until_uploaded: Option<u64>,
    /// Whether vacuum removes what has been uploaded.
    pub delete_after_upload: bool,
}

impl Default for Upload {
    fn default() -> Self {
        Upload {
            url: None,
            state: PathBuf::from("/var/lib/oci-coredump-ship"),
            keep_until_uploaded: None,
            delete_after_upload: false,
        }
    }
}

fn some_size<'d, D: serde::Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
    size(from).map(Some)
}

/// A time such as "30d" or "2 weeks", in seconds. A day has 24 hours.
fn some_age<'d, D: serde::Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    let span = text
        .parse::<jiff::Span>()
        .ok()
        .and_then(|s| s.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let seconds = span.and_then(|d| u64::try_from(d.as_secs()).ok());
    seconds.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?}: expected a time in weeks, days or hours, such as \"30d\""
        ))
    })
}

/// A size in bytes, in any form of [`Size`].
fn size<'d, D: serde::Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
    Size::deserialize(from).map(|size| size.0)
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::Dispatch,
            core_uses_pid: true,
            strict: false,
            default_pattern: None,
            select: BTreeMap::new(),
            allow_early_release: false,
            limits: Limits::defaults(),
            store: PathBuf::from("/var/lib/oci-coredump"),
            store_view: StoreView::Ro,
            termination_log: TerminationLog::Init,
            binaries: Binaries::default(),
            vacuum: Vacuum::default(),
            upload: Upload::default(),
            runtime: None,
            problems: Vec::new(),
        }
    }
}

impl Config {
    /// Parses the text strictly.
    ///
    /// # Errors
    /// The first problem: names the key, the value and the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let config = Self::read(text);
        match config.problems.first() {
            None => Ok(config),
            Some(problem) => bail!("{problem}"),
        }
    }

    /// Reads as much as possible: a bad key is left out and reported in `problems`, and the others
    /// hold. A `strict` that is neither true nor false counts as true. If `[select]` cannot be
    /// read, `default_pattern` applies to no container.
    pub fn read(text: &str) -> Self {
        let mut problems = Vec::new();
        let (table, lost) = table(text, &mut problems);
        let mut good = toml::Table::new();
        // A `default_pattern` that was to be narrowed by a lost key must
        // not apply to all containers.
        let mut selects_nothing = lost.contains("select");
        if lost.contains("strict") {
            problems.push(format!("strict is in a line that cannot be read{STRICT}"));
            good.insert("strict".into(), true.into());
        }
        for (key, value) in table {
            match value {
                // The keys of `select` are annotation names, which the administrator chooses.
                toml::Value::Table(inner) if key != "select" => {
                    let mut part = toml::Table::new();
                    for (name, value) in inner {
                        let path = format!("[{key}] {name}");
                        let alone = toml::Table::from_iter([(name.clone(), value.clone())]);
                        let wrapped = toml::Table::from_iter([(key.clone(), alone.into())]);
                        if check(&path, wrapped, text, &mut problems) {
                            part.insert(name, value);
                        }
                    }
                    good.insert(key, part.into());
                }
                value => {
                    let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
                    if check(&key, alone, text, &mut problems) {
                        good.insert(key, value);
                    } else if key == "strict" {
                        if let Some(problem) = problems.last_mut() {
                            problem.push_str(STRICT);
                        }
                        good.insert(key, true.into());
                    } else if key == "select" {
                        selects_nothing = true;
                    }
                }
            }
        }
        // Remove unknown tables, which are empty by now.
        good.retain(|key, value| {
            let alone = toml::Table::from_iter([(key.to_string(), value.clone())]);
            alone.try_into::<Config>().is_ok()
        });
        let mut config: Config = good.try_into().unwrap_or_default();
        config.limits = std::mem::take(&mut config.limits).or(Limits::defaults());
        if selects_nothing && config.default_pattern.take().is_some() {
            problems.push("[select] cannot be read, so default_pattern is for nobody".into());
        }
        config.problems = problems;
        config
    }

    fn rules(&self) -> Result<()> {
        if let Some(p) = &self.default_pattern {
            Template::of_container(p.as_bytes())?;
        }
        ensure!(self.store.is_absolute(), "the path must be absolute");
        ensure!(self.upload.state.is_absolute(), "the path must be absolute");
        ensure!(self.runtime.as_ref().is_none_or(|p| p.is_absolute()), "the path must be absolute");
        Ok(())
    }

    /// Whether containers may write to their directories of the store. With `mode = "kernel"` they
    /// must, since the kernel creates the core as the crashed process.
    pub fn container_writes_store(&self) -> bool {
        self.store_view == StoreView::Rw || self.mode == Mode::Kernel
    }

    /// Reads the configuration; an absent file means the defaults. What was left out is logged.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn load() -> Result<Self> {
        Self::load_from(Path::new(PATH))
    }

    /// Reads the configuration of another path; an absent file means the defaults.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn load_from(path: &Path) -> Result<Self> {
        let file = match std::fs::File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            other => other.with_context(|| format!("open {}", path.display()))?,
        };
        let text = crate::sys::file::read_bounded(file, MAX, &path.display().to_string())?;
        let text =
            String::from_utf8(text).with_context(|| format!("{} is not UTF-8", path.display()))?;
        let config = Self::read(&text);
        for problem in config.problems.iter().filter(|problem| is_new(problem)) {
            let end = if problem.ends_with(STRICT) { "" } else { ", leaving it out" };
            log::error!("{}: {problem}{end}", path.display());
        }
        Ok(config)
    }

    /// The default pattern, if it applies to a container with these annotations.
    pub fn default_for(&self, annotations: &BTreeMap<String, String>) -> Option<&str> {
        let selected = self
            .select
            .iter()
            .all(|(key, glob)| annotations.get(key).is_some_and(|v| matches(glob, v)));
        self.default_pattern.as_deref().filter(|_| selected)
    }
}

/// What becomes of a `strict` that cannot be read.
const STRICT: &str =
    "; it counts as true: containers whose requests cannot be honoured do not start";

/// Whether this process has not reported a problem before: a verb may read the file more than once.
fn is_new(problem: &str) -> bool {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    SAID.lock().map_or(true, |mut said| said.insert(problem.to_owned()))
}

/// Most lines that are left out because they are not TOML.
const MOST_LINES: usize = 64;

/// Parses the text as TOML without the lines that are not TOML, and returns the keys and tables
/// that those lines began with.
fn table(text: &str, problems: &mut Vec<String>) -> (toml::Table, BTreeSet<String>) {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut lost = BTreeSet::new();
    for _ in 0..MOST_LINES {
        let now = lines.join("\n");
        let error = match now.parse::<toml::Table>() {
            Ok(table) => return (table, lost),
            Err(error) => error,
        };
        let start = error.span().map_or(0, |span| span.start.min(now.len()));
        let at = now.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        let at = at.min(lines.len().saturating_sub(1));
        if lines.is_empty() {
            break;
        }
        lost.extend(key_of(lines[at]));
        lost.extend(lines[..at].iter().rev().find_map(|line| table_of(line)));
        if lines[at].is_empty() {
            problems.push(format!("line {}: {}", at + 1, error.message()));
            // The mistake may have begun earlier, so every key after it is in doubt.
            lost.extend(text.lines().skip(at.saturating_sub(1)).filter_map(key_of));
            lines.truncate(at.saturating_sub(1));
            continue;
        }
        problems.push(format!("line {}, `{}`: {}", at + 1, lines[at], error.message()));
        lines[at] = "";
    }
    lost.extend(text.lines().filter_map(key_of));
    (toml::Table::new(), lost)
}

/// The name of the table, or the key, that a line begins with.
fn key_of(line: &str) -> Option<String> {
    let key = line.split_once('=').map(|(key, _)| key.trim().trim_matches('"').to_owned());
    table_of(line).or(key)
}

fn table_of(line: &str) -> Option<String> {
    let name = line.trim_start().strip_prefix('[')?;
    Some(name.split([']', '.']).next().unwrap_or(name).trim().to_owned())
}

/// Whether a key is valid by itself.
fn check(path: &str, alone: toml::Table, text: &str, problems: &mut Vec<String>) -> bool {
    let parsed = alone.try_into::<Config>().map_err(|e| anyhow::anyhow!("{}", plain(e.message())));
    let Err(why) = parsed.and_then(|config| config.rules()) else { return true };
    let name = path.rsplit(' ').next().unwrap_or(path);
    let is_it = |line: &str| {
        line.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let line = text.lines().enumerate().find(|(_, line)| is_it(line));
    let shown =
        line.map_or(path.to_owned(), |(n, line)| format!("line {}, `{}`", n + 1, line.trim()));
    problems.push(format!("{shown}: {why:#}"));
    false
}

/// A message of the parser without the words of the programming language.
fn plain(message: &str) -> String {
    let mut text = message.trim().to_owned();
    for (theirs, ours) in [
        ("expected u64", "expected a whole number that is not negative"),
        ("expected usize", "expected a whole number that is not negative"),
        ("expected u32", "expected a whole number that is not negative"),
        ("expected a boolean", "expected true or false"),
        ("expected a string", "expected text in quotes"),
        ("expected path string", "expected a path in quotes"),
        ("expected a map", "expected a table"),
    ] {
        text = text.replace(theirs, ours);
    }
    match text.find("expected struct ") {
        Some(at) => format!("{}expected a table", &text[..at]),
        None => text,
    }
}

/// Whether `glob` (`*` any run, `?` any one character) matches all of `text`.
pub fn matches(glob: &str, text: &str) -> bool {
    let (g, t): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    // Linear memory, quadratic time at worst: `reach[i]` says whether the glob so far
    // matches the first i characters.
    let mut reach = vec![false; t.len() + 1];
    reach[0] = true;
    for c in g {
        if c == '*' {
            let first = reach.iter().position(|r| *r).unwrap_or(t.len() + 1);
            reach.iter_mut().skip(first).for_each(|r| *r = true);
        } else {
            for i in (0..t.len()).rev() {
                reach[i + 1] = reach[i] && (c == '?' || c == t[i]);
            }
            reach[0] = false;
        }
    }
    reach[t.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_eci() {
        let c = Config::parse("").unwrap();
        assert_eq!(c, Config::default());
        assert!(c.core_uses_pid && !c.strict && c.mode == Mode::Dispatch);
    }

    #[test]
    fn limits_that_are_absent_have_their_defaults() {
        let c = Config::parse("[limits]\ncores = 5\nkeep = \"first-and-newest\"\nconcurrent = 0")
            .unwrap();
        assert_eq!(
            (c.limits.cores, c.limits.concurrent, c.limits.stall),
            (Some(5), Some(0), Limits::defaults().stall)
        );
    }

    #[test]
    fn messages_are_plain() {
        for (text, says) in [
            ("[limits]\ncores = \"x\"", "expected a whole number that is not negative"),
            ("[vacuum]\nkeep = true", "expected a whole number that is not negative"),
            ("limits = 3", "expected a table"),
            ("core_uses_pid = 3", "expected true or false"),
        ] {
            let problems = Config::read(text).problems.join("; ");
            assert!(problems.contains(says), "{text}: {problems}");
        }
    }

    /// The other keys of [upload] are another program's.
    #[test]
    fn what_is_uploaded_is_read_elsewhere() {
        let text = "[upload]\nurl = \"s3://b\"\nwhat = 7\nkeep_until_uploaded = \"7d\"\n\
                    delete_after_upload = 3\n[upload.select]\npod = \"x\"";
        let config = Config::read(text);
        assert_eq!(config.upload.url.as_deref(), Some("s3://b"));
        assert_eq!(config.upload.keep_until_uploaded, Some(7 * 86400));
        assert!(!config.upload.delete_after_upload);
        assert_eq!(config.problems.len(), 1, "{:?}", config.problems);
    }

    #[test]
    fn bad_values_are_named() {
        for (text, names) in [
            ("mode = \"both\"", "mode"),
            ("default_pattern = \"|sh\"", "default_pattern"),
            ("store = \"var\"", "store"),
            ("runtime = \"runc\"", "runtime"),
            ("termination_log = \"all\"", "termination_log"),
            ("stricter = true", "stricter"),
            ("[limits]\nrate = \"10\"", "10/min"),
            ("[limits]\nmin_free = \"200%\"", "200%"),
            ("\nstrict = 1", "line 2"),
            ("[binaries]\nmax_file = \"much\"", "line 2"),
            ("[binaries]\nmax_total = -1", "line 2"),
            ("[vacuum]\nmax_age = \"soon\"", "line 2"),
            ("[vacuum]\nmax_age = 7", "line 2"),
        ] {
            let e = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(e.contains(names), "{text}: {e}");
        }
    }

    #[test]
    fn one_bad_key_takes_no_other_with_it() {
        let good = "strict = true\nmode = \"kernel\"\nstore = \"/srv/c\"\n";
        let rest = "[limits]\ncores = 3\n[select]\n\"team\" = \"a*\"\n";
        for bad in [
            "stricter = true",
            "core_uses_pid = 7",
            "default_pattern = \"|sh\"",
            "runtime = \"runc\"",
            "this is no TOML",
            "termination_log = \"all\"",
        ] {
            let c = Config::read(&format!("{good}{bad}\n{rest}"));
            assert_eq!(c.problems.len(), 1, "{bad}: {:?}", c.problems);
            assert_eq!((c.strict, c.mode, c.store.to_str()), (true, Mode::Kernel, Some("/srv/c")));
            assert_eq!((c.limits.cores, c.select.len()), (Some(3), 1), "{bad}");
        }
        for bad in ["rat = \"1/s\"", "rate = \"often\"", "keep = \"all\"", "cores = -1"] {
            let with = Config::read(&format!("{good}[limits]\ncores = 3\n{bad}\n"));
            assert_eq!(with.problems.len(), 1, "{bad}: {:?}", with.problems);
            assert_eq!((with.strict, with.limits.cores), (true, Some(3)), "{bad}");
        }
        // That a container insists must not get lost: an invalid value counts as true.
        for text in ["strict = \"yes\"", "strict = yes", "strict", "x = \"\"\"\nstrict = true"] {
            assert!(Config::read(text).strict || text == "strict", "{text}");
        }
        // A pattern for some containers must not become one for all.
        for select in
            ["[select]\nteam = a", "[select\nteam = \"a\"", "[select]\nteam = 7", "select = 7"]
        {
            for text in [
                format!("default_pattern = \"core\"\n{select}\n"),
                format!("default_pattern = \"core\"\n{select}\n[limits]\ncores = 3\n"),
            ] {
                assert_eq!(Config::read(&text).default_pattern, None, "{text}");
            }
        }
        let text = "default_pattern = \"core\"\n[limits]\ncores = x\n[select]\nteam = \"a\"\n";
        let c = Config::read(text);
        assert_eq!((c.default_pattern.as_deref(), c.select.len()), (Some("core"), 1));
        assert!(Config::read("[unknown]\na = 1\n").problems.len() == 1);
    }

    #[test]
    fn sizes() {
        let c = Config::parse("[binaries]\nmax_file = \"512Mi\"\nmax_total = \"unlimited\"")
            .unwrap()
            .binaries;
        assert_eq!((c.keep, c.max_file, c.max_total), (true, 512 << 20, u64::MAX));
        let v = Config::parse("[vacuum]\nmax_size = \"10G\"\nmax_age = \"2 weeks\"\nkeep = 100")
            .unwrap()
            .vacuum;
        assert_eq!(
            v,
            Vacuum { max_size: Some(10 << 30), max_age: Some(14 * 86400), keep: Some(100) }
        );
        assert_eq!(
            Config::parse("[binaries]\nkeep = false\nmax_file = 7").unwrap().binaries,
            Binaries { keep: false, max_file: 7, ..Binaries::default() }
        );
    }

    #[test]
    fn absent_is_default_and_unreadable_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Config::load_from(&dir.path().join("none.toml")).unwrap(), Config::default());
        assert!(Config::load_from(dir.path()).is_err());
        let bad = dir.path().join("config.toml");
        std::fs::write(&bad, b"\xff").unwrap();
        assert!(format!("{:#}", Config::load_from(&bad).unwrap_err()).contains("config.toml"));
    }

    #[test]
    fn selection() {
        let c = Config::parse(
            "default_pattern = \"core\"\n[select]\n\
             \"io.kubernetes.cri.sandbox-namespace\" = \"prod-*\"",
        )
        .unwrap();
        let with = |v: &str| {
            BTreeMap::from([("io.kubernetes.cri.sandbox-namespace".to_owned(), v.to_owned())])
        };
        assert_eq!(c.default_for(&with("prod-eu")), Some("core"));
        assert_eq!(c.default_for(&with("test")), None);
        assert_eq!(c.default_for(&BTreeMap::new()), None);
        assert_eq!(
            Config::parse("default_pattern = \"core\"").unwrap().default_for(&BTreeMap::new()),
            Some("core")
        );
    }

    #[test]
    fn globs() {
        for (g, t, yes) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("?*", "", false),
            ("a?c", "abc", true),
            ("*a*b*", "xxaxxbxx", true),
        ] {
            assert_eq!(matches(g, t), yes, "{g:?} {t:?}");
        }
    }
}
