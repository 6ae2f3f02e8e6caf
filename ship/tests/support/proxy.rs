//! A connection between the program and a server that fails as told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is cut after so many bytes from the client.
    Cut(u64),
    /// It is cut when the server answers; the server has had all.
    Deaf,
    /// The first request gets this status, and never reaches the server.
    Status(u16),
    /// So many milliseconds for each 64 KiB.
    Slow(u64),
}

/// The proxy, for as long as the test runs.
pub struct Proxy {
    pub port: u16,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
    /// Bytes from the client that have reached the server.
    pub sent: Arc<AtomicU64>,
    /// The heads of requests, and what else is text.
    texts: Arc<Mutex<String>>,
}

impl Proxy {
    /// `fault` says it of each connection, by its number from 0.
    pub fn new(server: u16, fault: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            sent: Arc::default(),
            texts: Arc::default(),
        };
        let (connections, sent) = (proxy.connections.clone(), proxy.sent.clone());
        let texts = proxy.texts.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let fault = fault(connections.fetch_add(1, Ordering::SeqCst));
                let (sent, texts) = (sent.clone(), texts.clone());
                std::thread::spawn(move || serve(client, server, fault, (&sent, &texts)));
            }
        });
        proxy
    }

    /// What clients have said as text: heads of requests above all.
    pub fn heads(&self) -> String {
        self.texts.lock().unwrap().clone()
    }
}

fn serve(
    mut client: TcpStream,
    port: u16,
    fault: Fault,
    (sent, texts): (&AtomicU64, &Mutex<String>),
) {
    if let Fault::Status(status) = fault {
        let mut head = [0; 65536];
        let _ = client.read(&mut head);
        let text = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let _ = client.write_all(text.as_bytes());
        // What else it sends is read, so that the answer is not lost by a reset.
        let _ = client.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut client, &mut std::io::sink());
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (mut back, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        if let Fault::Deaf = fault {
            let _ = from.read(&mut [0; 1]);
        } else {
            let _ = std::io::copy(&mut from, &mut back);
        }
        let _ = back.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    while let Ok(n) = client.read(&mut buffer) {
        if n == 0 {
            break;
        }
        match fault {
            Fault::Cut(at) if count + n as u64 > at => break,
            Fault::Slow(time) => std::thread::sleep(Duration::from_millis(time)),
            _ => {}
        }
        count += n as u64;
        let line = |line: &&[u8]| !line.is_empty() && line.iter().all(|b| matches!(b, b' '..=b'~'));
        for line in buffer[..n].split(|b| matches!(b, b'\r' | b'\n')).filter(line) {
            let mut texts = texts.lock().unwrap();
            texts.push_str(&String::from_utf8_lossy(line));
            texts.push('\n');
        }
        if server.write_all(&buffer[..n]).is_err() {
            break;
        }
        sent.fetch_add(n as u64, Ordering::SeqCst);
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
