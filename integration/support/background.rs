//! A program of the product that runs beside a test.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

/// A process whose standard error is read; killed on drop.
pub struct Background {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Background {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines, seen: String::new() }
    }

    /// Reads on until `text` has been said so many times.
    pub fn wait_for(&mut self, text: &str, times: usize) {
        while self.seen.matches(text).count() < times {
            assert_ne!(
                self.lines.read_line(&mut self.seen).unwrap(),
                0,
                "it has ended: {}",
                self.seen
            );
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
