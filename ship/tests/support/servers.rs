//! Servers of object storage, each on a port of its own, with files in a temporary directory.

use super::proxy::{Fault, Proxy};
use super::{Fixture, require, wait};
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// The account of Azure's emulator, which is in its documentation.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server.
pub struct Server {
    child: Child,
    pub port: u16,
    /// Where it keeps its files, if it does.
    pub files: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port for a server that takes it later: each once, and none that the kernel gives to others.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id() * 61 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (turn % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn wait_for(port: u16) {
    let is_there = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait::wait_for(&format!("a server on port {port}"), Duration::from_secs(60), is_there);
}

/// Where a program is that a test needs, also in the directory of the tests' tools. Without it the
/// test is skipped; fails where CI is set.
pub fn require(program: &str) -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let tool = home.join(".cache/oci-coredump-test/bin").join(program);
    let found = require::find(program).or_else(|| tool.is_file().then_some(tool));
    if found.is_none() {
        require::skip(&format!("{program} is not installed"));
    }
    found
}

/// s3s-fs, which checks signatures. It has one bucket, `cores`.
pub fn s3s(fixture: &Fixture) -> Option<Server> {
    let program = require("s3s-fs")?;
    let files = fixture.path("s3");
    std::fs::create_dir_all(files.join("cores")).unwrap();
    Some(s3s_at(program, files, free_port()))
}

/// The same, with the bucket in the name of the server, cores.localhost, and somebody who listens
/// in between.
pub fn s3s_by_name(fixture: &Fixture) -> Option<(Server, Proxy)> {
    let program = require("s3s-fs")?;
    let (port, files) = (free_port(), fixture.path("s3"));
    std::fs::create_dir_all(files.join("cores")).unwrap();
    let witness = Proxy::new(port, |_| Fault::None);
    let domain = format!("localhost:{}", witness.port);
    Some((s3s_with(Command::new(program), files, port, &["--domain", &domain]), witness))
}

fn s3s_at(program: PathBuf, files: PathBuf, port: u16) -> Server {
    s3s_with(Command::new(program), files, port, &[])
}

/// The library of faketime(1), which itself would be a process in between.
fn libfaketime() -> Option<PathBuf> {
    require("faketime")?;
    let dirs = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    dirs.map(|dir| dir.join("faketime/libfaketime.so.1")).find(|path| path.is_file())
}

/// The same, whose clock goes an hour before the others: `None` without libfaketime.
pub fn s3s_of_tomorrow(fixture: &Fixture) -> Option<Server> {
    let (program, faketime) = (require("s3s-fs")?, libfaketime()?);
    let (port, files) = (free_port(), fixture.path("s3"));
    std::fs::create_dir_all(files.join("cores")).unwrap();
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", faketime).env("FAKETIME", "+1h");
    Some(s3s_with(command, files, port, &[]))
}

fn s3s_with(mut program: Command, files: PathBuf, port: u16, more: &[&str]) -> Server {
    let child = program
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(more)
        .args(["--access-key", KEY, "--secret-key", SECRET])
        .arg(&files)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(port);
    Server { child, port, files }
}

/// Debian's debuginfod, with the files below a directory.
pub fn debuginfod(files: PathBuf) -> Option<Server> {
    let program = require("debuginfod")?;
    let port = free_port();
    let child = Command::new(program)
        .args(["-d", ":memory:", "-t", "2", "-F", "-p", &port.to_string()])
        .arg(&files)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(port);
    Some(Server { child, port, files })
}

/// moto, Python's. Its bucket is `cores`.
pub fn moto(fixture: &Fixture) -> Option<Server> {
    let program = require("moto_server")?;
    let port = free_port();
    let child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(port);
    let server = Server { child, port, files: fixture.path("none") };
    let key = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request";
    ask(port, "PUT /cores", &format!("authorization: {key}\r\n"), "");
    Some(server)
}

/// Starts a server whose output is nobody's.
fn start(program: PathBuf, args: &[&std::ffi::OsStr]) -> Child {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Microsoft's emulator of Azure's storage. Its container is `cores`.
pub fn azurite(fixture: &Fixture) -> Option<Server> {
    let program = require("azurite-blob")?;
    let (port, files) = (free_port(), fixture.path("azure"));
    std::fs::create_dir_all(&files).unwrap();
    let number = port.to_string();
    let child = start(
        program,
        &[
            "--blobHost".as_ref(),
            "127.0.0.1".as_ref(),
            "--blobPort".as_ref(),
            number.as_ref(),
            "--location".as_ref(),
            files.as_ref(),
            "--silent".as_ref(),
            "--skipApiVersionCheck".as_ref(),
            "--disableTelemetry".as_ref(),
        ],
    );
    wait_for(port);
    let server = Server { child, port, files };
    // "Authorize with Shared Key": the container is made.
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = format!("x-ms-date:{date}\nx-ms-version:2021-08-06");
    let said =
        format!("PUT{}{headers}\n/{ACCOUNT}/{ACCOUNT}/cores\nrestype:container", "\n".repeat(12));
    let key = BASE64_STANDARD.decode(ACCOUNT_KEY).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(said.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let (date, rest) = headers.split_once('\n').unwrap();
    ask(
        port,
        &format!("PUT /{ACCOUNT}/cores?restype=container"),
        &format!("{date}\r\n{rest}\r\nauthorization: SharedKey {ACCOUNT}:{signature}\r\n"),
        "",
    );
    Some(server)
}

/// tinyproxy, which writes each request to `proxy.log`.
pub fn tinyproxy(fixture: &Fixture) -> Option<Server> {
    let program = require("tinyproxy")?;
    let (port, file) = (free_port(), fixture.path("proxy.conf"));
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nMaxClients 20\nTimeout 600\n\
         LogFile \"{}\"\nLogLevel Connect\n",
        fixture.path("proxy.log").display()
    );
    std::fs::write(&file, text).unwrap();
    let child = start(program, &["-d".as_ref(), "-c".as_ref(), file.as_ref()]);
    wait_for(port);
    Some(Server { child, port, files: fixture.path("none") })
}

/// One request, which must succeed. Returns the answer, with its head.
pub fn ask(port: u16, request: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {}\r\n{headers}\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
    answer
}

impl Server {
    /// The settings for its bucket, by way of another port where something is in between.
    pub fn settings(&self, port: u16) -> String {
        format!(
            "url = \"s3://cores/node\"\nendpoint = \"http://127.0.0.1:{port}\"\nallow_http = true\n"
        )
    }

    /// An object of the bucket, as a file.
    pub fn object(&self, name: &str) -> PathBuf {
        self.files.join("cores/node").join(name)
    }

    /// The names of all objects of the bucket.
    pub fn objects(&self) -> Vec<String> {
        fn walk(dir: PathBuf, top: &std::path::Path, out: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(path, top, out),
                    false => out.push(path.strip_prefix(top).unwrap().display().to_string()),
                }
            }
        }
        let mut out = Vec::new();
        let top = self.files.join("cores");
        walk(top.clone(), &top, &mut out);
        // The server's own notes.
        out.retain(|name| !name.rsplit('/').next().unwrap().starts_with('.'));
        out.sort();
        out
    }

    /// Ends it, and starts it again on the same port: the network was away.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn start_again(&mut self) {
        let program = require("s3s-fs").unwrap();
        let again = s3s_at(program, self.files.clone(), self.port);
        *self = again;
    }
}
