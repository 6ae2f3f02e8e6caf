//! A server of a few lines, for services of clouds that no emulator has.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

/// A request: its first line and headers in lower case, and its body.
pub struct Request {
    pub head: Vec<String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn has(&self, header: &str) -> bool {
        self.head.iter().any(|line| line.eq_ignore_ascii_case(header))
    }

    pub fn is(&self, line: &str) -> bool {
        self.head.first().is_some_and(|first| first == &format!("{line} HTTP/1.1"))
    }
}

/// Answers the requests that come by what `answer` says: a status and a text.
pub fn serve(listener: TcpListener, answer: impl Fn(&Request) -> (u16, String) + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut from = BufReader::new(stream.try_clone().unwrap());
            let head: Vec<String> = from
                .by_ref()
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let length = head.iter().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok())
            });
            let mut body = vec![0; length.unwrap_or(0)];
            if from.read_exact(&mut body).is_err() {
                continue;
            }
            let (status, text) = answer(&Request { head, body });
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                text.len()
            );
            let _ = (&stream).write_all(head.as_bytes());
            let _ = (&stream).write_all(text.as_bytes());
        }
    });
}
