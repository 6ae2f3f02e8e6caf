//! One crash: its bundle, its report, its record, in this order. The record is last: where it is,
//! the rest is.

use crate::config::{Upload, What};
use crate::memory::Memory;
use crate::record::Record;
use crate::source::{Helper, HelperFailed};
use crate::state::{Content, State, States, Uploaded};
use crate::target::Target;
use crate::upload::{self, Pace, Uploader};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// What all uploads share.
pub(crate) struct Shop {
    pub upload: Upload,
    pub target: Target,
    pub states: States,
    pub helper: Helper,
    pub pace: Pace,
    pub memory: Memory,
    /// The name of this node.
    pub node: String,
}

impl Shop {
    /// What uploads a crash.
    pub(crate) fn uploader<'a>(&'a self, id: &'a str) -> Uploader<'a> {
        let Shop { target, states, pace, memory, .. } = self;
        Uploader { target, states, pace, memory, id }
    }
}

/// What is needed of what the helper says of a crash.
#[derive(Deserialize)]
struct Told {
    corefile: Option<String>,
    uploaded: Option<IgnoredAny>,
}

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// After how many failures a core counts as one that cannot be read.
const PATIENCE: u32 = 3;

/// Uploads a crash, or what of it is not there yet. Returns where it is, and whether that is new.
/// `failures`: how often that has failed before. Of a core that the helper cannot read, time and
/// again, only what is known without it is uploaded.
///
/// # Errors
/// It is to be tried again.
pub(crate) async fn ship(
    shop: &Shop,
    id: &str,
    record: &Record,
    failures: u32,
) -> Result<(Uploaded, bool)> {
    let mut state = shop.states.load(id).unwrap_or_default();
    if let Some(uploaded) = state.uploaded {
        return Ok((uploaded, false));
    }
    if state.key.is_empty() {
        state.key = crate::key::expand(&shop.upload.key, record, id, &shop.node);
        shop.states.save(id, &state)?;
    }
    let uploader = shop.uploader(id);
    let name = |file: &str| format!("{}/{file}", state.key);
    let (file, verb) = match shop.upload.what {
        What::Bundle | What::Stacks => ("coredump.tar.zst", "export"),
        What::Core => ("core", "export"),
        What::Record => ("record.json", "info"),
    };
    let path = name(file);
    let whole = match has_core(shop, id).await? && verb == "export" {
        true => match core(shop, &uploader, &path, id, &state).await {
            Err(e) if failures >= PATIENCE && e.is::<HelperFailed>() => {
                log::warn!("{id}: without its core, which cannot be read: {}", upload::told(&e));
                None
            }
            content => Some(content?),
        },
        false => None,
    };
    match &whole {
        Some(_) => shop.states.forget_parts(id)?,
        None => uploader.drop_parts(&shop.target.path(&path)).await,
    }
    if shop.upload.report {
        let report = shop.helper.text(&shop.memory, "report", id, &["-o", "-"]).await?;
        uploader.put(&name("report.html"), report, HTML).await?;
    }
    let time = now();
    let uploaded = |file: &str, content: Content| Uploaded {
        url: format!("{}/{}", shop.target.url, name(file)),
        time: time.clone(),
        size: content.size,
        sha256: content.sha256,
    };
    let bundle = whole.map(|content| uploaded(file, content));
    let said = put_record(shop, &uploader, &name("record.json"), id, bundle.as_ref()).await?;
    let uploaded = bundle.unwrap_or_else(|| uploaded("record.json", said));
    state.content = None;
    state.uploaded = Some(uploaded.clone());
    shop.states.save(id, &state)?;
    Ok((uploaded, true))
}

/// Whether the crash has a core that can be read.
async fn has_core(shop: &Shop, id: &str) -> Result<bool> {
    let listed = shop.helper.text(&shop.memory, "list", id, &["--json"]).await?;
    let listed: Told = listed.json().context("list --json")?;
    match listed.corefile.as_deref() {
        Some("present" | "truncated") => Ok(true),
        Some(state @ ("unreachable" | "leased" | "inaccessible")) => bail!("its core is {state}"),
        _ => Ok(false),
    }
}

/// Uploads the record, with where its core was uploaded to.
async fn put_record(
    shop: &Shop,
    uploader: &Uploader<'_>,
    name: &str,
    id: &str,
    bundle: Option<&Uploaded>,
) -> Result<Content> {
    let mut record = shop.helper.text(&shop.memory, "info", id, &["--json"]).await?;
    let told: Told = record.json().context("info --json")?;
    if let Some(bundle) = bundle {
        let bundle = serde_json::to_value(bundle)?;
        if told.uploaded.is_none() {
            record.add_member("uploaded", &bundle);
        } else {
            // By another state, which the helper's configuration names.
            let mut all: Value = record.json()?;
            all["uploaded"] = bundle;
            record = Bytes::from(format!("{all}\n")).into();
        }
    }
    let said = record.content();
    uploader.put(name, record, JSON).await?;
    Ok(said)
}

/// Uploads the bundle, or the core alone.
async fn core(
    shop: &Shop,
    uploader: &Uploader<'_>,
    path: &str,
    id: &str,
    state: &State,
) -> Result<Content> {
    if let Some(content) = &state.content
        && uploader.has_come(path, content).await?
    {
        return Ok(content.clone());
    }
    let (args, kind): (&[&str], _) = match shop.upload.what {
        What::Core => (&["--core-only", "-o", "-"], "application/x-core"),
        What::Stacks => (&["--small=stacks-only", "-o", "-"], "application/zstd"),
        _ => (&["-o", "-"], "application/zstd"),
    };
    let source = shop.helper.start("export", id, args)?;
    uploader.stream(path, source, kind, &mut state.clone()).await
}

/// The time now, as in records.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
