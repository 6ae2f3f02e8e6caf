//! A debuginfod server that does what it should not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// These bytes, as a file of that length.
    File(Vec<u8>),
    /// A status, and a body that is no file.
    Status(u16),
    /// Bytes that never end.
    Endless,
    /// A byte now and then, of a file that is said to be large.
    Drip,
    /// Silence after the request.
    Silence,
    /// It is elsewhere.
    Redirect(&'static str),
    /// It is where it was asked for.
    Circle,
    /// A header without an end.
    Header,
    /// A file that is said to have this size.
    Announced(u64),
    /// Half of a file.
    BreaksOff,
    /// What is no HTTP.
    Noise,
}

/// A server, for as long as the test runs.
pub struct Hostile {
    pub port: u16,
    /// Requests so far.
    pub requests: Arc<AtomicUsize>,
}

impl Hostile {
    /// `act`: what becomes of the nth request, of this path.
    pub fn new(act: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let (counter, act) = (requests.clone(), Arc::new(act));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counter, act) = (counter.clone(), act.clone());
                std::thread::spawn(move || {
                    let Some(path) = request(&stream) else { return };
                    let act = act(counter.fetch_add(1, Ordering::SeqCst), &path);
                    // The client may go at any moment.
                    let _ = answer(stream, act, &path);
                });
            }
        });
        Hostile { port, requests }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The path of a request.
fn request(mut stream: &TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&text).split(' ').nth(1)?.to_owned())
}

fn answer(mut to: TcpStream, act: Act, path: &str) -> std::io::Result<()> {
    let ok = |size: u64| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n")
    };
    match act {
        Act::File(bytes) => {
            to.write_all(ok(bytes.len() as u64).as_bytes())?;
            to.write_all(&bytes)?;
        }
        Act::Status(status) => write!(
            to,
            "HTTP/1.1 {status} Sorry\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry"
        )?,
        Act::Endless => {
            to.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                to.write_all(&[0x7f; 64 << 10])?;
            }
        }
        Act::Drip => {
            to.write_all(ok(500 << 10).as_bytes())?;
            loop {
                to.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Act::Silence => std::thread::sleep(Duration::from_secs(3600)),
        Act::Redirect(place) => redirect(&mut to, place)?,
        Act::Circle => redirect(&mut to, path)?,
        Act::Header => {
            to.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
            loop {
                to.write_all(&[b'x'; 64 << 10])?;
            }
        }
        Act::Announced(size) => to.write_all(ok(size).as_bytes())?,
        Act::BreaksOff => {
            to.write_all(ok(1 << 20).as_bytes())?;
            to.write_all(&[0x7f; 1000])?;
        }
        Act::Noise => to.write_all(b"\0\x01\x02 220 smtp\r\n\r\n")?,
    }
    Ok(())
}

fn redirect(to: &mut impl Write, place: &str) -> std::io::Result<()> {
    let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
    write!(to, "HTTP/1.1 302 Found\r\nLocation: {place}\r\n{end}")
}
