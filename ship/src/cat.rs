//! `cat`: writes an uploaded file to stdout, for the helper's `info`, `debug` and `export`.

use crate::config::{Config, Upload};
use crate::memory::Hash;
use crate::state::Uploaded;
use crate::target::Target;
use crate::upload::is_there;
use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use object_store::ObjectStoreExt;
use std::io::Write;

/// Largest record that is read, in bytes.
const RECORD: u64 = 64 << 20;

/// What the directory of a crash has whose hash its record says.
const BUNDLES: [&str; 2] = ["coredump.tar.zst", "core"];
/// All that it may have.
const FILES: [&str; 4] = [BUNDLES[0], BUNDLES[1], "report.html", "record.json"];

/// The settings of `[upload]`, where the URL is in the configured bucket; the environment's else.
fn settings(config: &Config, url: &str) -> Upload {
    let own = config.upload.url.as_deref().unwrap_or_default();
    let bucket = |url: &str| url.split('/').take(3).collect::<Vec<_>>().join("/");
    match bucket(own) == bucket(url) {
        true => config.upload.clone(),
        false => Upload::default(),
    }
}

/// Writes the object at `url` to `out`; of the directory of a crash, its bundle. Its hash is
/// compared with the one that the record beside it has.
///
/// # Errors
/// It cannot be read, or is not what was uploaded.
pub(crate) async fn cat(config: &Config, url: &str, out: &mut impl Write) -> Result<()> {
    let upload = settings(config, url);
    let (dir, file) = match url.rsplit_once('/') {
        Some((dir, file)) if FILES.contains(&file) => (dir.to_owned(), file),
        _ => (url.trim_end_matches('/').to_owned(), "coredump.tar.zst"),
    };
    let target = Target::open(&dir, &upload, true)?;
    let store = target.store();
    let path = target.path(file);
    let said = match is_there(store, &target.path("record.json")).await {
        Ok(false) if BUNDLES.contains(&file) => bail!(
            "{dir} has no record.json, which is written last: it is not all there, or was changed"
        ),
        Ok(true) if BUNDLES.contains(&file) => {
            let found = store.get(&target.path("record.json")).await.context("record.json")?;
            ensure!(found.meta.size <= RECORD, "record.json has over 64 MiB");
            let record: serde_json::Value = serde_json::from_slice(&found.bytes().await?)?;
            let said = record.get("uploaded").cloned();
            let said = said.and_then(|said| serde_json::from_value::<Uploaded>(said).ok());
            let of_it = said.filter(|said| said.url.rsplit('/').next() == Some(file));
            Some(of_it.with_context(|| format!("{dir}: record.json has no hash of {file}"))?)
        }
        _ => None,
    };
    let mut stream =
        store.get(&path).await.with_context(|| format!("get {dir}/{file}"))?.into_stream();
    let mut hash = Hash::default();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.context("read")?;
        hash.add(&bytes);
        out.write_all(&bytes).context("write")?;
    }
    out.flush().context("write")?;
    if let Some(said) = said {
        let found = hash.end();
        ensure!(
            (found.size, &found.sha256) == (said.size, &said.sha256),
            "{dir}/{file} is not what was uploaded: its SHA-256 is another one"
        );
    }
    Ok(())
}
