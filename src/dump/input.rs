//! The kernel's end of the pipe.

use super::stream::{CHUNK, Stop};
use crate::sys::{AsFd, process};

/// The kernel's stream, read in large pieces.
pub struct Input<I> {
    pipe: I,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<I: AsFd> Input<I> {
    /// Takes the read end of a pipe.
    pub fn new(pipe: I) -> Self {
        Input { pipe, buffer: vec![0; CHUNK], start: 0, end: 0 }
    }

    /// The next `n` bytes (at most a chunk), or as many as there are before the end.
    pub fn peek(&mut self, n: usize) -> Result<&[u8], Stop> {
        if self.buffer.len() - self.start < n {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < n {
            match process::read(&self.pipe, &mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(got) => self.end += got,
                Err(e) => return Err(Stop::Read(e)),
            }
        }
        Ok(&self.buffer[self.start..self.end.min(self.start + n)])
    }

    /// Takes `n` bytes that were seen.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// Exactly the next `n` bytes, taken.
    pub fn take(&mut self, n: usize) -> Result<&[u8], Stop> {
        if self.peek(n)?.len() < n {
            return Err(Stop::Ended);
        }
        self.consume(n);
        Ok(&self.buffer[self.start - n..self.start])
    }
}
