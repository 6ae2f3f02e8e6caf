//! Listening to the writer: its lines, its end, and whether anything moves at all. No thread and no clock: the wait for the next line has an end.

use crate::sys::counter::Counter;
use crate::sys::{OwnedFd, process};
use std::time::Duration;

/// Most bytes that the writer is listened to: its last word may name all cores that are remembered
/// (`quota::MOST`) as gone, and its first one all that have to go, of some 120 bytes each.
const MOST: usize = 1 << 20;

/// A wait is made of so many parts: the writer is given up after the first whole round of them in which nothing moved.
const PARTS: u32 = 4;

/// Where nothing may move for ever, somebody looks after this time whether the writer still runs.
const LOOK: Duration = Duration::from_secs(10);

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The writer has closed its end.
    End,
    /// Nothing came, and nothing moved, for as long as that may be.
    Nothing,
    /// The same for a while ([`LOOK`]), where it may be for ever.
    Silence,
}

/// The ear.
pub struct Ear<'a> {
    pipe: &'a OwnedFd,
    moved: Counter,
    /// How long nothing may move; `None` is for ever.
    patience: Option<Duration>,
    buffer: Vec<u8>,
    heard: usize,
}

impl<'a> Ear<'a> {
    /// `moved`: what the writer counts while it reads and writes.
    pub fn new(pipe: &'a OwnedFd, moved: Counter, patience: Option<Duration>) -> Self {
        Ear { pipe, moved, patience, buffer: Vec::new(), heard: 0 }
    }

    /// The next thing.
    pub fn next(&mut self) -> Heard {
        let (mut last, mut still) = (self.moved.value(), 0);
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Heard::Line(line);
            }
            if self.heard > MOST {
                return Heard::End;
            }
            if matches!(
                process::wait_readable(self.pipe, Some(self.patience.unwrap_or(LOOK) / PARTS)),
                Ok(false)
            ) {
                let now = self.moved.value();
                still = if now == last { still + 1 } else { 0 };
                last = now;
                if still >= PARTS {
                    return if self.patience.is_some() { Heard::Nothing } else { Heard::Silence };
                }
                continue;
            }
            let start = self.buffer.len();
            self.buffer.resize(start + 4096, 0);
            let got = process::read(self.pipe, &mut self.buffer[start..]).unwrap_or(0);
            self.buffer.truncate(start + got);
            self.heard += got;
            if got == 0 {
                return Heard::End;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_end() {
        let (read, write) = process::pipe().unwrap();
        let mut ear = Ear::new(&read, Counter::shared().unwrap(), None);
        process::write(&write, b"one\ntwo\nthr").unwrap();
        assert_eq!(
            (ear.next(), ear.next()),
            (Heard::Line(b"one".to_vec()), Heard::Line(b"two".to_vec()))
        );
        drop(write);
        assert_eq!(ear.next(), Heard::End);
    }

    #[test]
    fn patience_ends_only_where_nothing_moves() {
        let (read, write) = process::pipe().unwrap();
        let moved = Counter::shared().unwrap();
        let patience = Duration::from_millis(200);
        let mover = std::thread::spawn(move || {
            for _ in 0..20 {
                std::thread::sleep(patience / 8); // what is tested is time
                moved.add(1);
            }
            std::time::Instant::now()
        });
        let mut ear = Ear::new(&read, moved, Some(patience));
        assert_eq!(ear.next(), Heard::Nothing);
        let given_up = std::time::Instant::now();
        assert!(
            given_up.duration_since(mover.join().unwrap()) >= patience * 3 / 4,
            "given up while it moved"
        );
        drop(write);
    }
}
