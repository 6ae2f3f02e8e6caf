//! `[upload]` of /etc/oci-coredump/config.toml, and `store`. All other keys are the helper's.
//!
//! As there, a key that cannot be read is left out, and the others hold; but where that key says
//! what may leave the node (`url`, `what`, `select`, `key`), or where a line of `[upload]` or of a
//! table in it is not TOML, nothing is uploaded.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Path of the configuration file, which may be absent.
pub(crate) const PATH: &str = "/etc/oci-coredump/config.toml";
/// Largest configuration that is read, in bytes.
const MAX: u64 = 1 << 20;
/// Most lines that are left out because they are not TOML.
const MOST_LINES: usize = 64;
/// The keys that decide what leaves the node.
const DECISIVE: [&str; 4] = ["url", "what", "select", "key"];

/// What of a crash is uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// The archive of `oci-coredump export`: core, record, executable and libraries.
    #[default]
    Bundle,
    /// The core alone, decompressed.
    Core,
    /// The archive with a small core, which has nothing of the heap.
    Stacks,
    /// No memory of the process: the record with the stacks, and the report.
    Record,
}

/// Where a message about each crash is sent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// It gets a POST with JSON.
    pub url: String,
    /// The file with the key of the HMAC.
    pub secret_file: Option<PathBuf>,
    /// Most messages in a minute; further crashes are only counted.
    #[serde(default = "ten")]
    pub per_minute: u32,
}

fn ten() -> u32 {
    10
}

/// `[upload]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Upload {
    /// `s3://BUCKET/PREFIX`, `oss://`, `obs://`, `gs://`, `az://CONTAINER/PREFIX`, or
    /// `file:///DIRECTORY`.
    pub url: Option<String>,
    /// What is uploaded.
    pub what: What,
    /// The directory of a crash below the URL; `{record}` is appended where it is missing.
    pub key: String,
    /// Field of the record = glob. All must match.
    pub select: BTreeMap<String, String>,
    /// Whether `report.html` goes with it.
    pub report: bool,
    /// The server of an S3-compatible storage, or another one than the region's.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// The storage account of `az://`.
    pub account: Option<String>,
    /// Whether the bucket is part of the server's name; without it as the scheme has it.
    pub virtual_hosted: Option<bool>,
    /// Whether an endpoint may be `http://`.
    pub allow_http: bool,
    /// Further certificates that the server's may be signed by, in PEM.
    pub ca_file: Option<PathBuf>,
    /// An AWS shared credentials file, for `s3://` and `oss://`.
    pub credentials_file: Option<PathBuf>,
    /// The section of that file.
    pub profile: String,
    /// `AES256`, `aws:kms`, `aws:kms:dsse`.
    pub encryption: Option<String>,
    /// The key of `aws:kms`.
    pub kms_key: Option<String>,
    /// The storage class in the words of the storage.
    pub storage_class: Option<String>,
    /// Most bytes in a second, on average.
    #[serde(deserialize_with = "size")]
    pub rate: Option<u64>,
    /// Uploads at the same time, 1 to 2.
    pub concurrent: usize,
    /// Where is remembered what has been uploaded.
    pub state: PathBuf,
    /// Who is told of each crash.
    pub webhook: Option<Webhook>,
    /// Whether the crash becomes an event of its pod.
    pub event: bool,
    /// The helper's: how long vacuum waits for an upload.
    pub keep_until_uploaded: Option<String>,
    /// The helper's: vacuum removes what has been uploaded.
    pub delete_after_upload: bool,
}

impl Default for Upload {
    fn default() -> Self {
        Upload {
            url: None,
            what: What::Bundle,
            key: "{namespace}/{pod}/{container}".into(),
            select: BTreeMap::new(),
            report: true,
            endpoint: None,
            region: None,
            account: None,
            virtual_hosted: None,
            allow_http: false,
            ca_file: None,
            credentials_file: None,
            profile: "default".into(),
            encryption: None,
            kms_key: None,
            storage_class: None,
            rate: None,
            concurrent: 1,
            state: "/var/lib/oci-coredump-ship".into(),
            webhook: None,
            event: false,
            keep_until_uploaded: None,
            delete_after_upload: false,
        }
    }
}

impl Upload {
    fn rules(&self) -> Result<()> {
        ensure!((1..=2).contains(&self.concurrent), "expected 1 or 2");
        ensure!(self.state.is_absolute(), "the path must be absolute");
        ensure!(self.rate != Some(0), "0 would never upload anything");
        if let Some(name) =
            self.select.keys().find(|k| !crate::record::FIELDS.contains(&k.as_str()))
        {
            bail!("no field {name:?}; there are {}", crate::record::FIELDS.join(", "));
        }
        crate::key::check(&self.key)
    }
}

/// What this program needs of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The host's store.
    pub store: PathBuf,
    /// `[upload]`.
    pub upload: Upload,
    /// What was left out and why, one line each.
    pub problems: Vec<String>,
    /// Whether a key was left out that says what may leave the node.
    pub unsure: bool,
}

impl Config {
    /// Reads as much of the text as possible.
    pub(crate) fn read(text: &str) -> Self {
        let mut problems = Vec::new();
        let (table, lost) = table(text, &mut problems);
        let mut unsure = lost.iter().any(|key| key == "upload" || DECISIVE.contains(&key.as_str()));
        let store = match table.get("store").map(|v| v.as_str().map(PathBuf::from)) {
            Some(Some(path)) if path.is_absolute() => path,
            _ => "/var/lib/oci-coredump".into(),
        };
        let mut good = toml::Table::new();
        match table.get("upload") {
            Some(toml::Value::Table(upload)) => {
                for (key, value) in upload {
                    let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
                    let parsed = alone
                        .try_into::<Upload>()
                        .map_err(|e| anyhow::anyhow!("{}", e.message().trim()));
                    match parsed.and_then(|upload| upload.rules()) {
                        Ok(()) => drop(good.insert(key.clone(), value.clone())),
                        Err(e) => {
                            problems.push(format!("[upload] {key}: {e:#}"));
                            unsure |= DECISIVE.contains(&key.as_str());
                        }
                    }
                }
            }
            Some(_) => {
                problems.push("upload: expected a table".into());
                unsure = true;
            }
            None => {}
        }
        let upload = good.try_into().unwrap_or_default();
        Config { store, upload, problems, unsure }
    }

    /// Reads the file; an absent one means the defaults. What was left out is logged.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let shown = || format!("read {}", path.display());
        let text = match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            found => {
                ensure!(found.with_context(shown)?.len() <= MAX, "{}: over 1 MiB", shown());
                std::fs::read_to_string(path).with_context(shown)?
            }
        };
        let config = Self::read(&text);
        for problem in &config.problems {
            log::error!("{}: {problem}, leaving it out", path.display());
        }
        Ok(config)
    }
}

/// Parses the text without the lines that are not TOML. Returns also the keys and tables that those
/// lines began with, and "upload" for a line of that table or of one in it: it may have been a part
/// of `select`.
fn table(text: &str, problems: &mut Vec<String>) -> (toml::Table, Vec<String>) {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut lost = Vec::new();
    for _ in 0..MOST_LINES {
        let now = lines.join("\n");
        let error = match now.parse::<toml::Table>() {
            Ok(table) => return (table, lost),
            Err(error) => error,
        };
        let start = error.span().map_or(0, |span| span.start.min(now.len()));
        let at = now.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        let at = at.min(lines.len().saturating_sub(1));
        if lines.is_empty() || lines[at].is_empty() {
            break;
        }
        let key = |line: &str| {
            let name = line.trim_start().trim_start_matches('[');
            name.split(['=', ']', '.']).next().unwrap_or(name).trim().trim_matches('"').to_owned()
        };
        lost.push(key(lines[at]));
        lost.extend(lines[..at].iter().rev().find_map(|line| table_of(line)));
        problems.push(format!("line {}, `{}`: {}", at + 1, lines[at], error.message()));
        lines[at] = "";
    }
    problems.push("the rest is no TOML".into());
    (toml::Table::new(), vec!["upload".into()])
}

/// The table that begins at a line, by the first component of its name: a header, or `upload` as a
/// key, whose value may go on for lines.
fn table_of(line: &str) -> Option<String> {
    let name = |text: &str| text.trim_matches([' ', '\t', '[', '"', '\'']).to_owned();
    match line.trim_start().strip_prefix('[') {
        Some(header) => header.split([']', '.']).next().map(name),
        None => line.split(['=', '.']).next().map(name).filter(|name| name == "upload"),
    }
}

/// A number of bytes, or text such as `200K`, `512Mi`, `1.5GiB`, as elsewhere in the file.
fn size<'d, D: Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    let parse = |text: &str| -> Option<Option<u64>> {
        let text = text.trim();
        if text == "unlimited" {
            return Some(None);
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim().to_ascii_lowercase();
        let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return None,
        };
        let bytes = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
        (bytes < 9e18).then_some(Some(bytes as u64))
    };
    match Either::deserialize(from)? {
        Either::Number(n) => Ok(Some(n)),
        Either::Text(text) => parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?}: expected a size, such as \"10M\""))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_key_is_left_out() {
        let config = Config::read(
            "store = \"/s\"\nmode = 7\n[upload]\nurl = \"s3://b\"\nrate = \"10M\"\nconcurrent = 9\nnope = 1\n[limits]\nx = 1\n",
        );
        assert_eq!(config.store, Path::new("/s"));
        assert_eq!(config.upload.url.as_deref(), Some("s3://b"));
        assert_eq!((config.upload.rate, config.upload.concurrent), (Some(10 << 20), 1));
        assert_eq!(config.problems.len(), 2, "{:?}", config.problems);
        assert!(!config.unsure);
    }

    #[test]
    fn what_leaves_the_node_is_never_guessed() {
        for text in [
            "[upload]\nurl = \"s3://b\"\nwhat = \"records\"\n",
            "[upload]\nurl = \"s3://b\"\nwhat = record\n",
            "[upload]\nurl = \"s3://b\"\n[upload.select]\npodd = \"x\"\n",
            "[upload]\nurl = \"s3://b\"\n[upload.select\npod = \"x\"\n",
            "[upload]\nurl = \"s3://b\"\n[upload.select]\npod = = \"x\"\n",
            "[upload]\nurl = \"s3://b\"\n[ \"upload\" . select ]\n\"pod\" \"x\"\n",
            "[upload]\nurl = \"s3://b\"\n[upload.select]\npod = \"x\"\npod = \"y\"\n",
            "[upload]\nurl = \"s3://b\"\nselect.pod = = \"x\"\n",
            "[upload]\nurl = \"s3://b\"\nselect = {\nexe = \"y\",\npod = = \"x\",\n}\n",
            "upload = {\nurl = \"s3://b\",\nselect = {\npod = = \"x\",\n}\n}\n",
            "upload.url = \"s3://b\"\nupload.select.pod = = \"x\"\n",
            "[upload]\nurl = \"s3://b\"\nkey = \"{podd}\"\n",
        ] {
            assert!(Config::read(text).unsure, "{text}");
        }
        // A text that does not end takes with it what comes after, or nothing.
        let open = Config::read("[upload]\nurl = \"s3://b\"\nx = \"\"\"\nwhat = \"record\"\n");
        assert!(open.unsure || open.upload.what == What::Record);
        let good = "[upload]\nurl = \"s3://b\"\nwhat = \"record\"\n";
        for text in [format!("x = = 1\n{good}"), format!("{good}[limits]\nx = = 1\n")] {
            let good = Config::read(&text);
            assert!(!good.unsure && good.upload.what == What::Record, "{text}");
        }
    }
}
