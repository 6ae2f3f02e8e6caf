//! `fetch-debuginfo`: writes to stdout what a debuginfod server has of a build-id, for the helper's
//! `info`, `report`, `debug` and `export`.
//!
//! Nothing of the answer is trusted: its size, its rate and its time are bounded, a redirect leads
//! to http and https only, and the helper looks at the bytes in a sandbox.

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Response, StatusCode, redirect};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use url::Url;

/// What a server must send within `--timeout`, in bytes, as elfutils has it.
const AT_LEAST: u64 = 100 << 10;
/// Most redirects in a row.
const REDIRECTS: usize = 5;
/// Pause before a server is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Time between two looks of the progress.
const SHOWN: Duration = Duration::from_millis(200);
/// Largest file with headers, in bytes.
const HEADERS: u64 = 64 << 10;
/// The header with the size of what follows, where the length is not known.
const SIZE: &str = "x-debuginfod-size";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Debug information.
    Debuginfo,
    /// The executable or library itself.
    Executable,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Debuginfo => "debuginfo",
            Kind::Executable => "executable",
        }
    }
}

/// One file of one server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server: http:// or https://.
    server: Url,
    /// What is asked for.
    kind: Kind,
    /// The build-id in hexadecimal.
    #[arg(value_parser = build_id)]
    build_id: String,
    /// Most bytes of the file.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    max_size: u64,
    /// Seconds in which the server must have sent 100 KiB more, or all.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    timeout: u64,
    /// Most seconds for all of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    max_time: u64,
    /// How often a server is tried again that fails before it has sent anything.
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
    /// A file with further headers of the request, one a line: `Name: value`.
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
}

fn build_id(text: &str) -> Result<String> {
    let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let fits = (4..=128).contains(&text.len()) && text.len().is_multiple_of(2);
    ensure!(is_hex && fits, "expected 2 to 64 bytes in lower-case hexadecimal");
    Ok(text.to_owned())
}

/// Writes the file to `out`. Returns whether the server has it.
///
/// # Errors
/// It cannot be fetched within the bounds. Some of it may have been written.
pub(crate) async fn fetch(args: &Args, out: &mut impl Write) -> Result<bool> {
    give_up_rights()?;
    let limit = Duration::from_secs(args.max_time);
    let shown = format!("{} of {} from {}", args.kind.name(), args.build_id, without_user(args));
    match timeout(limit, attempts(args, out)).await {
        Ok(result) => result.with_context(|| shown),
        Err(_) => bail!("{shown}: not complete after {} seconds", args.max_time),
    }
}

/// The server without a password that its URL may have.
fn without_user(args: &Args) -> String {
    let mut url = args.server.clone();
    let _ = (url.set_username(""), url.set_password(None));
    url.as_str().trim_end_matches('/').to_owned()
}

/// What reads a stranger's answers needs no more than it has.
fn give_up_rights() -> Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, setrlimit};
    rustix::thread::set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("setrlimit")?;
    // Ends with the helper that waits for it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("prctl")
}

async fn attempts(args: &Args, out: &mut impl Write) -> Result<bool> {
    ensure!(matches!(args.server.scheme(), "http" | "https"), "expected http:// or https://");
    let url = format!(
        "{}/buildid/{}/{}",
        args.server.as_str().trim_end_matches('/'),
        args.build_id,
        args.kind.name()
    );
    let client = client(args)?;
    let mut left = args.retries;
    loop {
        let why = match timeout(Duration::from_secs(args.timeout), client.get(&url).send()).await {
            Ok(Ok(answer)) if answer.status() == StatusCode::NOT_FOUND => return Ok(false),
            Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
                return copy(args, answer, out).await.map(|()| true);
            }
            Ok(Ok(answer)) => {
                let status = answer.status();
                let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                (format!("the server says {status}"), again)
            }
            Ok(Err(e)) => (causes(&e), e.is_connect() || e.is_request() && !e.is_redirect()),
            Err(_) => (format!("no answer in {} seconds", args.timeout), false),
        };
        ensure!(left > 0 && why.1, "{}", why.0);
        left -= 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The innermost causes, without the URL, which the caller says.
fn causes(e: &reqwest::Error) -> String {
    let mut all = Vec::new();
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    all.dedup();
    if all.is_empty() { e.to_string() } else { all.join(": ") }
}

fn client(args: &Args) -> Result<Client> {
    let policy = redirect::Policy::custom(|attempt| {
        let came_by = attempt.previous().last().map(Url::scheme);
        match attempt.url().scheme() {
            _ if attempt.previous().len() > REDIRECTS => attempt.error("too many redirects"),
            "http" if came_by == Some("https") => attempt.error("it redirects from https to http"),
            "http" | "https" => attempt.follow(),
            _ => attempt.error("it redirects to neither http nor https"),
        }
    });
    let client = Client::builder()
        .user_agent(concat!("oci-coredump-ship/", env!("CARGO_PKG_VERSION")))
        .redirect(policy)
        .referer(false)
        .connect_timeout(Duration::from_secs(args.timeout.clamp(1, 20)))
        .default_headers(headers(args)?);
    client.build().context("make a client")
}

fn headers(args: &Args) -> Result<reqwest::header::HeaderMap> {
    let mut all = reqwest::header::HeaderMap::new();
    let Some(path) = &args.headers else { return Ok(all) };
    let shown = || format!("headers of {}", path.display());
    ensure!(std::fs::metadata(path).with_context(shown)?.len() <= HEADERS, "{}: too long", shown());
    let text = std::fs::read_to_string(path).with_context(shown)?;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let name: reqwest::header::HeaderName = name.trim().parse().ok()?;
            Some((name, value.trim().parse().ok()?))
        });
        let (name, value) = parsed.with_context(|| format!("{}: no `Name: value`", shown()))?;
        all.append(name, value);
    }
    Ok(all)
}

/// Copies the body, as long as it comes fast enough and is not too long.
async fn copy(args: &Args, mut answer: Response, out: &mut impl Write) -> Result<()> {
    let said = answer.headers().get(SIZE).and_then(|v| v.to_str().ok()?.parse().ok());
    let size: Option<u64> = answer.content_length().or(said);
    let most = args.max_size;
    ensure!(size.is_none_or(|size| size <= most), "it has {} bytes, and {most} are the most", {
        size.unwrap_or(0)
    });
    let window = Duration::from_secs(args.timeout);
    let mut progress = Progress::new(args, size);
    let (mut done, mut since) = (0u64, (Instant::now(), 0u64));
    loop {
        let left = window.saturating_sub(since.0.elapsed());
        let slow = || format!("less than 100 KiB came in {} seconds", args.timeout);
        let Ok(chunk) = timeout(left, answer.chunk()).await else { bail!(slow()) };
        let chunk = chunk.map_err(|e| anyhow::anyhow!("it breaks off: {}", causes(&e)))?;
        let Some(bytes) = chunk else { break };
        done += bytes.len() as u64;
        ensure!(done <= most, "it has more than {most} bytes, which are the most");
        out.write_all(&bytes).context("write")?;
        if done - since.1 >= AT_LEAST {
            since = (Instant::now(), done);
        }
        ensure!(since.0.elapsed() < window, slow());
        progress.show(done);
    }
    ensure!(done > 0, "the answer is empty");
    out.flush().context("write")
}

/// How much has come, on a terminal.
struct Progress {
    what: String,
    size: Option<u64>,
    last: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    fn new(args: &Args, size: Option<u64>) -> Self {
        let host = args.server.host_str().unwrap_or_default();
        let what = format!("{} of {:.12} from {host}", args.kind.name(), args.build_id);
        let last = std::io::stderr().is_terminal().then(Instant::now);
        Progress { what, size, last, is_shown: false }
    }

    fn show(&mut self, done: u64) {
        if self.last.is_some_and(|last| last.elapsed() > SHOWN) {
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            let of = self.size.map(|size| format!(" of {}", mib(size))).unwrap_or_default();
            eprint!("\r{}: {}{of} MiB\x1b[K", self.what, mib(done));
            (self.last, self.is_shown) = (Some(Instant::now()), true);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids() {
        for (text, good) in [
            ("0123abcdef", true),
            ("ab", false),
            ("abc", false),
            ("ABCD", false),
            ("../..", false),
            ("", false),
            (&"ab".repeat(64), true),
            (&"ab".repeat(65), false),
        ] {
            assert_eq!(build_id(text).is_ok(), good, "{text}");
        }
    }
}
