//! Servers of object storage, each on a port of its own, with files in a temporary directory.

use super::Fixture;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

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

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "no server on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where a program is: on PATH, in cargo's directory, or in the one of the tests' tools.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    all.extend([home.join(".cargo/bin"), home.join(".cache/oci-coredump-test/bin")]);
    all.into_iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn require(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI is set and {program} is not installed");
        let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed");
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

fn s3s_at(program: PathBuf, files: PathBuf, port: u16) -> Server {
    let child = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
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
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = "PUT /cores HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request\r\n\
         connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Some(server)
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
        let program = find("s3s-fs").unwrap();
        let again = s3s_at(program, self.files.clone(), self.port);
        *self = again;
    }
}
