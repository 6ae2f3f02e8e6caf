//! `[upload]` of /etc/oci-coredump/config.toml, and `store`. All other keys are the helper's.
//!
//! What leaves the node is never guessed: with a key of `[upload]` that cannot be read, or a file
//! that is not TOML, nothing is uploaded.

use crate::near;
use crate::regular_file::open_regular;
use crate::size::Limit;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::OFlags;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Path of the configuration file, which may be absent.
pub(crate) const PATH: &str = "/etc/oci-coredump/config.toml";
/// Largest configuration that is read, in bytes.
const MAX: u64 = 1 << 20;
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
    /// An AWS shared credentials file, for `s3://`.
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
    /// The directory that remembers what has been uploaded.
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

/// What this program needs of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// The host's store.
    pub store: PathBuf,
    /// `[upload]`.
    pub upload: Upload,
}

impl Default for Config {
    fn default() -> Self {
        Config { store: "/var/lib/oci-coredump".into(), upload: Upload::default() }
    }
}

impl Config {
    /// Parses the text.
    ///
    /// # Errors
    /// In one line: the line of the file, the rule that it breaks, the nearest key that there is.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let shown = |number: usize| {
            let line = text.lines().nth(number).unwrap_or_default().trim();
            format!("line {}, `{}`", number + 1, without_secrets(line))
        };
        let said = |e: toml::de::Error| {
            let at = e.span().map_or(0, |span| span.start.min(text.len()));
            let number = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            anyhow!("{}: {}", shown(number), near::plain(e.message()))
        };
        let of_key = |key: &str| {
            let is = |line: &str| {
                let words = line.split_once('=').map(|(words, _)| words.trim());
                words.and_then(|words| words.rsplit('.').next()) == Some(key)
            };
            text.lines().position(is).map_or_else(|| format!("[upload] {key}"), shown)
        };
        let all: toml::Table = toml::from_str(text).map_err(said)?;
        if let Some(name) = all.keys().find(|name| near::is_misspelt(name, "upload")) {
            bail!("`{name}`: there is no such table; did you mean `upload`?");
        }
        let config: Config = toml::from_str(text).map_err(said)?;
        ensure!(config.store.is_absolute(), "store: the path must be absolute");
        let broken = config.upload.rules().and_then(|()| config.upload.is_outside(&config.store));
        broken.map_err(|(key, why)| anyhow!("{}: {why}", of_key(key)))?;
        Ok(config)
    }

    /// Reads the file; an absent one means the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or not all that it says of uploads: then nothing is uploaded.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let shown = || format!("read {}", path.display());
        let mut text = String::new();
        // It may be a link: a ConfigMap's is.
        match open_regular(path, OFlags::empty()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            file => {
                let file = file.with_context(shown)?;
                file.take(MAX + 1).read_to_string(&mut text).with_context(shown)?;
                ensure!(text.len() as u64 <= MAX, "{}: over 1 MiB", shown());
            }
        }
        let why = "nothing is uploaded until it is mended";
        Self::read(&text).map_err(|e| anyhow!("{}: {e:#}; {why}", path.display()))
    }
}

/// A line as it may be shown: not the value of one that may hold a secret.
fn without_secrets(line: &str) -> String {
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    let is_secret = ["secret", "password", "passwd", "token", "key_id", "access_key"];
    let name_is = name.to_ascii_lowercase();
    let hides = value.contains(['@', '?']) || is_secret.iter().any(|word| name_is.contains(word));
    match hides && !name.trim().ends_with("file") {
        true => format!("{} = ...", name.trim()),
        false => line.to_owned(),
    }
}

/// A number of bytes, or text such as `200K`, `512Mi`, `1.5GiB`, as elsewhere in the file.
fn size<'d, D: Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
    Limit::deserialize(from).map(Limit::finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_tables_are_the_helpers() {
        let config = Config::read(
            "store = \"/s\"\nmode = 7\n[upload]\nurl = \"s3://b\"\nrate = \"10M\"\n\
             [limits]\nx = 1\n",
        )
        .unwrap();
        assert_eq!(config.store, Path::new("/s"));
        assert_eq!(config.upload.url.as_deref(), Some("s3://b"));
        assert_eq!(config.upload.rate, Some(10 << 20));
        assert_eq!(Config::read("").unwrap(), Config::default());
        // The times that the helper takes.
        for time in ["7d", "2 weeks", "1d12h"] {
            let text = format!("[upload]\nurl = \"s3://b\"\nkeep_until_uploaded = \"{time}\"\n");
            assert_eq!(Config::read(&text).unwrap().upload.keep_until_uploaded.unwrap(), time);
        }
    }

    /// Values that no upload could work with.
    #[test]
    fn what_cannot_work_is_refused() {
        for (bad, key) in [
            ("endpoint = \"127.0.0.1:9\"", "endpoint"),
            ("endpoint = \"ftp://x\"", "endpoint"),
            ("endpoint = \"http://x\"", "endpoint"),
            ("allow_http = true\nendpoint = \"http://user:tops3cret@x\"", "endpoint"),
            ("endpoint = \"https://x/?a=tops3cret\"", "endpoint"),
            ("region = \"not a region\\n\"", "region"),
            ("encryption = \"AES512\"", "encryption"),
            ("kms_key = \"k\"", "kms_key"),
            ("account = \"a\"", "account"),
            ("select.signal = \"SIGSEGVV\"", "select.signal"),
            ("select.outcome = \"writen\"", "select.outcome"),
            ("keep_until_uploaded = \"forever\"", "keep_until_uploaded"),
            ("keep_until_uploaded = \"-7d\"", "keep_until_uploaded"),
            ("state = \"/var/lib/oci-coredump/records\"", "state"),
            ("[upload.webhook]\nurl = \"ftp://x\"", "webhook"),
            ("[upload.webhook]\nurl = \"no url\"", "webhook"),
        ] {
            let text = format!("[upload]\nurl = \"s3://b\"\n{bad}\n");
            let said = Config::read(&text).unwrap_err().to_string();
            assert!(said.contains(key) && !said.contains('\n'), "{bad}: {said}");
            assert!(!said.contains("tops3cret"), "{said}");
        }
        let inside = "[upload]\nurl = \"file:///var/lib/oci-coredump/x\"\n";
        assert!(Config::read(inside).unwrap_err().to_string().contains("store"));
        let secret = "[upload]\nurl = \"s3://b\"\naws_secret_access_key = \"tops3cret\"\n";
        let said = Config::read(secret).unwrap_err().to_string();
        assert!(
            said.contains("aws_secret_access_key = ...") && !said.contains("tops3cret"),
            "{said}"
        );
    }

    /// What leaves the node is never guessed, and the message says what to mend.
    #[test]
    fn whatever_is_misspelt_is_refused() {
        let good = "[upload]\nurl = \"s3://b\"\n";
        for (bad, says) in [
            (
                "urll = \"s3://c\"",
                "line 3, `urll = \"s3://c\"`: there is no such key; did you mean `url`?",
            ),
            (
                "slect.pod = \"x\"",
                "line 3, `slect.pod = \"x\"`: there is no such key; did you mean `select`?",
            ),
            ("[upload.selekt]\npod = \"x\"", "did you mean `select`?"),
            (
                "[upload.webhook]\nurl = \"http://x\"\nsecretfile = \"x\"",
                "line 5, `secretfile = \"x\"`: there is no such key; did you mean `secret_file`?",
            ),
            ("wibble = 1", "there is no such key; there are url, what, key,"),
            (
                "what = \"record s\"",
                "line 3, `what = \"record s\"`: there is no such value; did you mean `record`?",
            ),
            ("what = record", "line 3, `what = record`: "),
            (
                "select.podd = \"x\"",
                "line 3, `select.podd = \"x\"`: there is no field \"podd\"; did you mean `pod`?",
            ),
            (
                "key = \"{podd}\"",
                "line 3, `key = \"{podd}\"`: there is no field \"podd\"; did you mean `pod`?",
            ),
            ("concurrent = 9", "line 3, `concurrent = 9`: expected 1 or 2"),
            ("report = 7", "line 3, `report = 7`: "),
            ("rate = \"fast\"", "line 3, `rate = \"fast\"`: expected a size"),
            ("[upload.select\npod = \"x\"", "line 3"),
            ("x = \"\"\"\nwhat = \"record\"", "line "),
            (
                "[uplaod.select]\npod = \"x\"",
                "`uplaod`: there is no such table; did you mean `upload`?",
            ),
            ("[limits]\nx = = 1", "line 4, `x = = 1`: "),
        ] {
            let said = Config::read(&format!("{good}{bad}\n")).unwrap_err().to_string();
            assert!(said.contains(says) && !said.contains('\n'), "{bad}: {said}");
        }
        for url in [
            "s4://b",
            "s3://",
            "s3:b",
            "s3://user:word@b",
            "file://host/x",
            "b",
            "s3://b?x=y",
            "s3://b/x#y",
            "s3://b:9000/x",
            "s3://b/../x",
            "s3://b/%2e%2e/x",
            "s3://b//x",
            "file:x",
            "s3://b/\u{1b}x",
        ] {
            let said = Config::read(&format!("[upload]\nurl = {url:?}\n")).unwrap_err().to_string();
            assert!(said.starts_with("line 2, `url = "), "{url}: {said}");
            assert!(!said.contains("word") && !said.contains('\u{1b}'), "{said}");
        }
    }
}
