//! What the helper says of a crash: it reads the core in its sandboxes, and this program only takes
//! what comes out of it.

use crate::memory::{BLOCK, Memory, Room, Text};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// Longest time without a byte from the helper: unwinding a large core takes minutes.
const SILENCE: Duration = Duration::from_secs(900);
/// Most blocks of a text that is taken as a whole: 16 MiB.
const TEXT: usize = 2;
/// Most bytes of its messages.
const WORDS: u64 = 4096;

/// The helper, and the store that it reads.
#[derive(Clone, Debug)]
pub(crate) struct Helper {
    pub program: PathBuf,
    pub store: PathBuf,
}

impl Helper {
    /// The helper beside this program, else at its usual path.
    pub(crate) fn find(store: &Path) -> Self {
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|path| Some(path.parent()?.join("oci-coredump")));
        let program = beside
            .filter(|path| path.is_file())
            .unwrap_or_else(|| "/usr/libexec/oci/hooks.d/oci-coredump".into());
        Helper { program, store: store.to_owned() }
    }

    /// Starts a verb on one crash. The environment, which may hold credentials, is not for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&self, verb: &str, id: &str, args: &[&str]) -> Result<Source> {
        let mut child = Command::new(&self.program)
            .arg(verb)
            .arg("--store")
            .arg(&self.store)
            .arg(format!("record={id}"))
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let out = child.stdout.take().context("its output")?;
        let words = child.stderr.take().context("its messages")?;
        let words = tokio::spawn(async move {
            let mut text = Vec::new();
            let mut words = words.take(WORDS);
            let _ = words.read_to_end(&mut text).await;
            let _ = tokio::io::copy(words.get_mut(), &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Source { verb: verb.to_owned(), child, out, words })
    }

    /// Everything that a verb prints of one crash.
    ///
    /// # Errors
    /// It fails, or prints more than 16 MiB.
    pub(crate) async fn text(
        &self,
        memory: &Memory,
        verb: &str,
        id: &str,
        args: &[&str],
    ) -> Result<Text> {
        let room = memory.room(TEXT).await;
        let mut source = self.start(verb, id, args)?;
        let text = source.next(room).await?;
        let is_all = source.read(&mut Vec::with_capacity(1), 1).await? == 0;
        ensure!(is_all, "{verb}: more than 16 MiB");
        match source.end().await {
            // It has said what it knows: the core cannot be read.
            Err(e) if verb == "info" && !text.is_empty() && e.is::<HelperFailed>() => {
                log::debug!("{id}: {e:#}");
                Ok(text)
            }
            ended => ended.map(|()| text),
        }
    }
}

/// The helper could not do what it was started for.
#[derive(Debug)]
pub(crate) struct HelperFailed {
    verb: String,
    why: String,
}

impl std::fmt::Display for HelperFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed: {}", self.verb, self.why)
    }
}

impl std::error::Error for HelperFailed {}

/// What a verb prints.
pub(crate) struct Source {
    verb: String,
    child: Child,
    out: ChildStdout,
    words: JoinHandle<String>,
}

impl Source {
    /// The next bytes, as many as there is room for; fewer only at the end.
    pub(crate) async fn next(&mut self, mut room: Room) -> Result<Text> {
        let mut text = Text::default();
        while let Some(mut block) = room.block() {
            while block.bytes.len() < BLOCK {
                let left = BLOCK - block.bytes.len();
                if self.read(&mut block.bytes, left).await? == 0 {
                    text.push(Bytes::from_owner(block));
                    return Ok(text);
                }
            }
            text.push(Bytes::from_owner(block));
        }
        Ok(text)
    }

    /// Appends some bytes, `most` at most: none at the end.
    async fn read(&mut self, to: &mut Vec<u8>, most: usize) -> Result<usize> {
        let mut rest = (&mut self.out).take(most as u64);
        let read = tokio::time::timeout(SILENCE, rest.read_buf(to)).await;
        let read = read.context("nothing came for 15 minutes").map(|n| n.context("read"));
        read.flatten().with_context(|| format!("{} of the helper", self.verb))
    }

    /// Waits for the helper after its last byte.
    ///
    /// # Errors
    /// It failed: what came is not all.
    pub(crate) async fn end(mut self) -> Result<()> {
        let status = tokio::time::timeout(SILENCE, self.child.wait()).await;
        let status = status.context("the helper does not end")?.context("wait")?;
        let words = self.words.await.unwrap_or_default();
        if !status.success() {
            let why = words.lines().last().unwrap_or("it says nothing").to_owned();
            bail!(HelperFailed { verb: self.verb, why });
        }
        for line in words.lines() {
            log::debug!("{line}");
        }
        Ok(())
    }
}
