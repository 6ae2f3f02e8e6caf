//! Reads the configuration file. A key that cannot be read is left out, with a line in
//! [`Config::problems`]; the other keys hold.

use super::{Config, PATH};
use crate::limits::Limits;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

/// Largest configuration that is read, in bytes.
const MAX: usize = 1 << 20;

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

    /// Reads the configuration; an absent file means the defaults. What was left out is logged.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn load() -> Result<Self> {
        Self::load_from(Path::new(PATH))
    }

    /// Reads the configuration, for work that goes on without one: the defaults where it cannot be
    /// read, which is logged.
    pub fn load_or_default() -> Self {
        Self::load().unwrap_or_else(|e| {
            log::error!("{e:#}, using the defaults");
            Self::default()
        })
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
}

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

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

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
        assert_eq!((c.default_pattern, c.select.len()), (Some("core".parse().unwrap()), 1));
        assert!(Config::read("[unknown]\na = 1\n").problems.len() == 1);
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
}
