//! `metrics --listen`: answers GET and HEAD of `/metrics` over HTTP/1.1.
//!
//! Connections are a child's, which has no privileges and nothing open but its socket and two
//! pipes. It asks this process for the text, which is made anew at most every [`FRESH`]. At most
//! [`THREADS`] connections are served at a time, each for [`TIME`] at most; others wait in the
//! kernel's queue.

use crate::sys::cred::{self, Credentials};
use crate::sys::{AsFd, OwnedFd, child, descriptor, process, user};
use anyhow::{Context, Result, bail};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Connections that are served at a time.
const THREADS: usize = 8;

/// How long one connection may take.
const TIME: Duration = Duration::from_secs(10);

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(5);

/// Longest head of a request, in bytes, and most of its headers.
const MAX_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// Listens on `address` until the process is ended. `text` makes the metrics.
///
/// # Errors
/// The address cannot be listened on, or the child has ended.
pub(super) fn run(address: SocketAddr, text: impl Fn() -> Result<String>) -> Result<Infallible> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let (asked, ask) = descriptor::pipe()?;
    let (reply, answer) = descriptor::pipe()?;
    let _child = child::fork(move || match serve(&listener, ask, reply) {
        Ok(never) => match never {},
        Err(e) => {
            log::error!("metrics: {e:#}");
            1
        }
    })?;
    let mut answer = File::from(answer);
    let mut made: Option<(Instant, String)> = None;
    loop {
        if descriptor::read(&asked, &mut [0]).context("wait for a request")? == 0 {
            bail!("the process that serves the connections has ended");
        }
        if made.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            let text = text().unwrap_or_else(|e| {
                log::error!("metrics: {e:#}");
                String::new()
            });
            made = Some((Instant::now(), text));
        }
        let text = made.as_ref().map_or("", |(_, text)| text);
        answer.write_all(&(text.len() as u64).to_ne_bytes()).context("answer")?;
        answer.write_all(text.as_bytes()).context("answer")?;
    }
}

/// The pipes to the process that makes the text.
struct Maker {
    ask: File,
    reply: File,
}

impl Maker {
    fn text(&mut self) -> io::Result<Vec<u8>> {
        self.ask.write_all(&[1])?;
        let mut length = [0; 8];
        self.reply.read_exact(&mut length)?;
        let mut text = Vec::new();
        (&mut self.reply).take(u64::from_ne_bytes(length)).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// In the child: gives up all rights and serves.
fn serve(listener: &TcpListener, ask: OwnedFd, reply: OwnedFd) -> Result<Infallible> {
    descriptor::close_all_but(&[listener.as_fd(), ask.as_fd(), reply.as_fd()])?;
    if user::effective_uid() == 0 {
        let (uid, gid) = ([NOBODY; 4], [NOBODY; 4]);
        cred::assume(&Credentials { uid, gid, ..Credentials::default() }, None)?;
    }
    process::end_with_parent();
    let maker = Mutex::new(Maker { ask: ask.into(), reply: reply.into() });
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(|| one_by_one(listener, &maker));
        }
        one_by_one(listener, &maker)
    })
}

fn one_by_one(listener: &TcpListener, maker: &Mutex<Maker>) -> ! {
    loop {
        match listener.accept() {
            // What goes wrong with a connection is its client's to see.
            Ok((stream, _)) => drop(connection(&stream, maker)),
            // Out of descriptors or memory, for example.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The metrics; of a HEAD without the body.
    Metrics { body: bool },
    /// Nothing but this status.
    Status(&'static str),
}

/// Decides by the head of a request as far as it has come. `None`: it is not whole.
fn decide(head: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => return None,
        Ok(httparse::Status::Partial) => {
            return Some(Answer::Status("431 Request Header Fields Too Large"));
        }
        Err(_) => return Some(Answer::Status("400 Bad Request")),
        Ok(httparse::Status::Complete(_)) => {}
    }
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    Some(match (request.method, path) {
        (Some("GET"), "/metrics") => Answer::Metrics { body: true },
        (Some("HEAD"), "/metrics") => Answer::Metrics { body: false },
        (Some("GET" | "HEAD"), _) => Answer::Status("404 Not Found"),
        _ => Answer::Status("405 Method Not Allowed"),
    })
}

fn connection(stream: &TcpStream, maker: &Mutex<Maker>) -> io::Result<()> {
    let end = Instant::now() + TIME;
    let mut stream = Timed { stream, end };
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    let answer = loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..got]);
        if let Some(answer) = decide(&head) {
            break answer;
        }
    };
    let (status, text, has_body) = match answer {
        Answer::Status(status) => (status, Vec::new(), false),
        Answer::Metrics { body } => {
            let made = maker.lock().map_err(|_| io::ErrorKind::Other)?.text()?;
            let status = if made.is_empty() { "500 Internal Server Error" } else { "200 OK" };
            (status, made, body)
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes())?;
    if has_body { stream.write_all(&text) } else { Ok(()) }
}

/// A connection that is given up at `end`, however slowly its other side goes.
struct Timed<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let metrics = |body| Some(Answer::Metrics { body });
        let status = |text| Some(Answer::Status(text));
        let long = [b"GET /metrics HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; MAX_HEAD]].concat();
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(MAX_HEADERS + 1));
        let table: [(&[u8], Option<Answer>); 10] = [
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", metrics(true)),
            (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", metrics(true)),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", metrics(false)),
            (b"GET / HTTP/1.1\r\n\r\n", status("404 Not Found")),
            (b"POST /metrics HTTP/1.1\r\n\r\n", status("405 Method Not Allowed")),
            (b"GET /metrics HTTP/1.1\r\nHost", None),
            (b"", None),
            (b"\x16\x03\x01\x02\x00\x01", status("400 Bad Request")),
            (&long, status("431 Request Header Fields Too Large")),
            (many.as_bytes(), status("400 Bad Request")),
        ];
        for (head, answer) in table {
            assert_eq!(decide(head), answer, "{}", head.escape_ascii());
        }
    }
}
