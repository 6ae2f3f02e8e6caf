//! One object: in parts that outlive this process, visible only as a whole.

use crate::config::Upload;
use crate::memory::{BLOCK, BLOCKS, Hash, Memory, Text};
use crate::source::Source;
use crate::state::{Content, Part, Parts, State, States};
use crate::target::{Cloud, Kind, Target};
use anyhow::{Context, Result, bail, ensure};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Size of a part in blocks of 8 MiB. All 10,000 that S3 takes are 218 GiB.
fn blocks_of_part(index: usize) -> usize {
    if index < 4_000 { 1 } else { BLOCKS }
}

/// Most parts of an object.
const MOST: usize = 10_000;

/// After how many parts the state is written: after each of the first, later after every 16th. A
/// part that is not in the state is uploaded again, in its own place.
fn is_noted(parts: usize) -> bool {
    parts <= 64 || parts.is_multiple_of(16)
}

/// Bounds the bytes in a second of all uploads together.
#[derive(Clone)]
pub(crate) struct Pace {
    rate: Option<u64>,
    free: Arc<Mutex<Instant>>,
}

impl Pace {
    pub(crate) fn new(upload: &Upload) -> Self {
        let free = Arc::new(Mutex::new(Instant::now()));
        Pace { rate: upload.rate, free }
    }

    /// Waits until `bytes` more may be sent.
    async fn wait(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let mut free = self.free.lock().await;
        let from = (*free).max(Instant::now());
        *free = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        drop(free);
        tokio::time::sleep_until(from.into()).await;
    }
}

/// What an upload works with.
pub(crate) struct Uploader<'a> {
    pub target: &'a Target,
    pub states: &'a States,
    pub pace: &'a Pace,
    pub memory: &'a Memory,
    /// The crash.
    pub id: &'a str,
}

impl Uploader<'_> {
    /// Uploads a text, over one that is there.
    pub(crate) async fn put(&self, name: &str, text: Text, kind: &'static str) -> Result<()> {
        self.pace.wait(text.len()).await;
        let options =
            PutOptions { attributes: self.target.attributes(kind), ..PutOptions::default() };
        let path = self.target.path(name);
        self.forget_staged(&path);
        self.target.store().put_opts(&path, text.into(), options).await.context("upload")?;
        Ok(())
    }

    /// Uploads what `source` gives, and returns its size and hash. A process that was killed before
    /// goes on where it was: parts that are there are compared by their hashes, not sent again.
    ///
    /// # Errors
    /// It is not there, or it is not known whether it is. The next call finds out.
    pub(crate) async fn stream(
        &self,
        name: &str,
        mut source: Source,
        kind: &'static str,
        state: &mut State,
    ) -> Result<Content> {
        let path = self.target.path(name);
        let first = source.next(self.memory.room(1).await).await?;
        if first.len() < BLOCK {
            source.end().await?;
            let content = first.content();
            self.drop_parts(&path).await;
            self.put(name, first, kind).await?;
            return self.check(&path, content).await;
        }
        match &self.target.kind {
            Kind::Cloud(cloud) => {
                self.parts(cloud.as_ref(), &path, first, source, kind, state).await
            }
            Kind::Whole(_) | Kind::Local(..) => {
                self.forget_staged(&path);
                let attributes = self.target.attributes(kind);
                let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
                let store = self.target.store();
                let mut upload = store.put_multipart_opts(&path, options).await.context("begin")?;
                let done = self.whole(upload.as_mut(), first, source).await;
                match done {
                    Ok(content) => self.check(&path, content).await,
                    Err(e) => {
                        let _ = upload.abort().await;
                        Err(e)
                    }
                }
            }
        }
    }

    /// Files of a process that was killed: the library writes beside the file, as `NAME#1`.
    fn forget_staged(&self, path: &Path) {
        if let Kind::Local(_, dir) = &self.target.kind {
            for number in 1..4 {
                let _ = std::fs::remove_file(dir.join(format!("{path}#{number}")));
            }
        }
    }

    async fn whole(
        &self,
        upload: &mut dyn MultipartUpload,
        first: Text,
        mut source: Source,
    ) -> Result<Content> {
        let mut hash = Hash::default();
        let mut part = first;
        while !part.is_empty() {
            part.pieces().for_each(|piece| hash.add(piece));
            self.pace.wait(part.len()).await;
            upload.put_part(part.into()).await.context("write")?;
            part = source.next(self.memory.room(1).await).await?;
        }
        source.end().await?;
        upload.complete().await.context("complete")?;
        Ok(hash.end())
    }

    async fn parts(
        &self,
        cloud: &dyn Cloud,
        path: &Path,
        first: Text,
        mut source: Source,
        kind: &'static str,
        state: &mut State,
    ) -> Result<Content> {
        let (mut parts, resumed) = match self.states.parts(self.id) {
            Some(parts) => (parts, true),
            None => {
                let attributes = self.target.attributes_of_parts(kind);
                let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
                let id = cloud.create_multipart_opts(path, options).await.context("begin")?;
                let parts = Parts { id, parts: Vec::new() };
                self.states.save_parts(self.id, &parts)?;
                (parts, false)
            }
        };
        let sent = self.send(cloud, path, first, &mut source, &mut parts).await;
        let content = match sent {
            Ok(content) => content,
            Err(e) => {
                // An upload that the storage has forgotten, or that has other bytes, cannot go on.
                if resumed && is_hopeless(&e) {
                    self.drop_parts(path).await;
                }
                return Err(e);
            }
        };
        // Before anything is visible: the helper has given all, and what is to be there is noted.
        source.end().await?;
        self.states.save_parts(self.id, &parts)?;
        state.content = Some(content.clone());
        self.states.save(self.id, state)?;
        let ids = parts.parts.iter().map(|part| PartId { content_id: part.id.clone() }).collect();
        if let Err(e) = cloud.complete_multipart(path, &parts.id, ids).await {
            let e = anyhow::Error::from(e).context("complete");
            // The answer to an earlier attempt may have been lost; else its parts have gone.
            if !is_hopeless(&e) {
                return Err(e);
            }
            if !self.is_whole(path, &content).await? {
                self.drop_parts(path).await;
                return Err(e);
            }
        }
        self.states.forget_parts(self.id)?;
        self.check(path, content).await
    }

    /// Sends the parts; the next is read meanwhile, where there is room for both.
    async fn send(
        &self,
        cloud: &dyn Cloud,
        path: &Path,
        first: Text,
        source: &mut Source,
        parts: &mut Parts,
    ) -> Result<Content> {
        let mut hash = Hash::default();
        let mut part = first;
        let mut index = 0;
        while !part.is_empty() {
            ensure!(index < MOST, "it has more than {MOST} parts");
            part.pieces().for_each(|piece| hash.add(piece));
            let Content { size, sha256 } = part.content();
            let more = blocks_of_part(index + 1);
            let mut ahead = None;
            match parts.parts.get(index) {
                Some(there) if (there.size, &there.sha256) == (size, &sha256) => drop(part),
                Some(_) => bail!(Changed),
                None => {
                    self.pace.wait(part.len()).await;
                    let put = cloud.put_part(path, &parts.id, index, part.into());
                    let put = match self.memory.room_now(more) {
                        Some(room) => {
                            let (put, next) = tokio::join!(put, source.next(room));
                            ahead = Some(next);
                            put
                        }
                        None => put.await,
                    };
                    let id = put.with_context(|| format!("part {}", index + 1))?.content_id;
                    parts.parts.push(Part { id, size, sha256 });
                    if is_noted(parts.parts.len()) {
                        self.states.save_parts(self.id, parts)?;
                    }
                }
            }
            part = match ahead {
                Some(next) => next?,
                None => source.next(self.memory.room(more).await).await?,
            };
            index += 1;
        }
        ensure!(index == parts.parts.len(), Changed);
        Ok(hash.end())
    }

    /// Gives up an upload in parts, if one has begun. A storage that cannot be asked keeps its
    /// parts, until its rule for incomplete uploads removes them.
    pub(crate) async fn drop_parts(&self, path: &Path) {
        let (Some(parts), Kind::Cloud(cloud)) = (self.states.parts(self.id), &self.target.kind)
        else {
            return;
        };
        if let Err(e) = cloud.abort_multipart(path, &parts.id).await {
            log::warn!("the parts of {path} that are there stay, ignoring: {}", short(&e));
        }
        if let Err(e) = self.states.forget_parts(self.id) {
            log::warn!("{e:#}, ignoring");
        }
    }

    /// Whether the object that an earlier process was about to complete is there.
    pub(crate) async fn has_come(&self, name: &str, content: &Content) -> Result<bool> {
        self.is_whole(&self.target.path(name), content).await
    }

    async fn is_whole(&self, path: &Path, content: &Content) -> Result<bool> {
        match self.target.store().head(path).await {
            Ok(meta) => Ok(meta.size == content.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e).context("ask for the object"),
        }
    }

    async fn check(&self, path: &Path, content: Content) -> Result<Content> {
        let meta = self.target.store().head(path).await.context("ask for the object")?;
        ensure!(meta.size == content.size, "{} bytes are there, not {}", meta.size, content.size);
        Ok(content)
    }
}

/// The helper gives other bytes than before: files of the container have gone.
#[derive(Debug)]
struct Changed;

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bundle is another one than before, beginning again")
    }
}

impl std::error::Error for Changed {}

fn is_hopeless(error: &anyhow::Error) -> bool {
    error.is::<Changed>()
        || error.chain().filter_map(|e| e.downcast_ref()).any(|e| {
            use object_store::Error::{Generic, NotFound};
            matches!(e, NotFound { .. })
                || matches!(e, Generic { source, .. } if has_forgotten(&source.to_string()))
        })
}

/// Whether a storage does not know the upload or its parts any more: S3 and Google, Azure.
fn has_forgotten(answer: &str) -> bool {
    ["NoSuchUpload", "InvalidBlockList"].iter().any(|code| answer.contains(code))
}

/// An error of the library in one line: it repeats whole answers of the server.
pub(crate) fn short(error: &dyn std::fmt::Display) -> String {
    let text: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut text: String = plain.take(700).collect();
    if text.chars().count() == 700 {
        text.push_str(" ...");
    }
    text
}

/// The same of an error with its causes; the last of them always, such as what a certificate lacks.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let (all, last) = (short(&format!("{error:#}")), short(&error.root_cause()));
    if all.contains(&last) { all } else { format!("{all}: {last}") }
}

/// Whether the storage has an object.
pub(crate) async fn is_there(store: &dyn ObjectStore, path: &Path) -> Result<bool> {
    match store.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
