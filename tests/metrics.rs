//! `metrics --listen`: what a scrape gets, and with which rights it is served.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The server, ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that nobody listens on at this moment.
fn address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn connect(address: SocketAddr, server: &mut Server) -> TcpStream {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(stream) = TcpStream::connect(address) {
            return stream;
        }
        assert!(
            server.0.try_wait().unwrap().is_none() && Instant::now() < end,
            "it does not listen"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answer(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A value of /proc/PID/status.
fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

#[test]
fn a_scrape_is_served_without_privileges() {
    let store = tempfile::tempdir().unwrap();
    fs::create_dir(store.path().join("records")).unwrap();
    let address = address();
    let program = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["metrics", "--listen", &address.to_string(), "--store"])
        .arg(store.path())
        .spawn()
        .unwrap();
    let mut server = Server(program);
    let stream = connect(address, &mut server);
    let text = answer(stream, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(body.contains("# TYPE oci_coredump_crashes_total counter\n"), "{body}");

    // Connections that say nothing, fewer than there are threads, hold up nobody.
    let idle: Vec<TcpStream> = (0..7).map(|_| TcpStream::connect(address).unwrap()).collect();
    let other = answer(connect(address, &mut server), "GET / HTTP/1.1\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    drop(idle);

    let pid = server.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child: u32 = children.trim().parse().unwrap();
    assert_eq!(status(child, "NoNewPrivs:"), if is_root() { "1" } else { "0" });
    if is_root() {
        assert_eq!(status(child, "Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(status(child, "CapPrm:"), "0000000000000000");
    }
    // It ends with the process that has the text.
    drop(server);
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "it is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_root() -> bool {
    status(std::process::id(), "Uid:").starts_with("0\t")
}
