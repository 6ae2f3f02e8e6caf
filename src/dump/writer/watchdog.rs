//! The watchdog reads what the writer reports, and notices its end and whether any bytes move. It
//! needs no thread and no timer: each wait for the next line ends by itself.

use crate::sys::counter::Counter;
use crate::sys::{OwnedFd, descriptor};
use std::time::Duration;

/// Most bytes that the writer is listened to: its last word may name all cores that are remembered
/// (`quota::MOST`) as gone, and its first one all that have to go, of some 120 bytes each.
const MOST: usize = 1 << 20;

/// A wait is made of so many parts. The writer is given up when nothing moved in that many of them
/// in a row.
const PARTS: u32 = 4;

/// Without a limit on stalls, the caller is told after this time to check whether the writer runs.
const LOOK: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The writer has closed its end.
    End,
    /// Nothing came, and nothing moved, for as long as that may be.
    Stalled,
    /// Nothing came, and nothing moved for [`LOOK`], where no limit on stalls is set.
    Quiet,
}

pub(crate) struct Watchdog<'a> {
    pipe: &'a OwnedFd,
    moved: Counter,
    /// How long nothing may move; `None` is for ever.
    patience: Option<Duration>,
    buffer: Vec<u8>,
    heard: usize,
}

impl<'a> Watchdog<'a> {
    /// `moved`: what the writer counts while it reads and writes.
    pub(crate) fn new(pipe: &'a OwnedFd, moved: Counter, patience: Option<Duration>) -> Self {
        Watchdog { pipe, moved, patience, buffer: Vec::new(), heard: 0 }
    }

    /// Whether the next line, or the end, is there within this time.
    pub(crate) fn hears_within(&self, time: Duration) -> bool {
        self.buffer.contains(&b'\n')
            || !matches!(descriptor::wait_readable(self.pipe, Some(time)), Ok(false))
    }

    /// Waits for the next line, the end, or a stall.
    pub(crate) fn next(&mut self) -> Notice {
        let (mut last, mut still) = (self.moved.value(), 0);
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Notice::Line(line);
            }
            if self.heard > MOST {
                return Notice::End;
            }
            if matches!(
                descriptor::wait_readable(self.pipe, Some(self.patience.unwrap_or(LOOK) / PARTS)),
                Ok(false)
            ) {
                let now = self.moved.value();
                still = if now == last { still + 1 } else { 0 };
                last = now;
                if still >= PARTS {
                    return if self.patience.is_some() { Notice::Stalled } else { Notice::Quiet };
                }
                continue;
            }
            let start = self.buffer.len();
            self.buffer.resize(start + 4096, 0);
            let got = descriptor::read(self.pipe, &mut self.buffer[start..]).unwrap_or(0);
            self.buffer.truncate(start + got);
            self.heard += got;
            if got == 0 {
                return Notice::End;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_end() {
        let (read, write) = descriptor::pipe().unwrap();
        let mut watchdog = Watchdog::new(&read, Counter::shared().unwrap(), None);
        descriptor::write(&write, b"one\ntwo\nthr").unwrap();
        assert_eq!(
            (watchdog.next(), watchdog.next()),
            (Notice::Line(b"one".to_vec()), Notice::Line(b"two".to_vec()))
        );
        drop(write);
        assert_eq!(watchdog.next(), Notice::End);
    }

    #[test]
    fn patience_ends_only_where_nothing_moves() {
        let (read, write) = descriptor::pipe().unwrap();
        let moved = Counter::shared().unwrap();
        let patience = Duration::from_millis(200);
        let mover = std::thread::spawn(move || {
            for _ in 0..20 {
                std::thread::sleep(patience / 8); // what is tested is time
                moved.add(1);
            }
            std::time::Instant::now()
        });
        let mut watchdog = Watchdog::new(&read, moved, Some(patience));
        assert_eq!(watchdog.next(), Notice::Stalled);
        let given_up = std::time::Instant::now();
        assert!(
            given_up.duration_since(mover.join().unwrap()) >= patience * 3 / 4,
            "given up while it moved"
        );
        drop(write);
    }
}
