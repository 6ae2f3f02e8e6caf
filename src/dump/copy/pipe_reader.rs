//! The stream that the kernel writes, read in pieces.

use super::pages::CHUNK;
use super::stop::Stop;
use super::target::CopyTarget;
use crate::sys::{AsFd, descriptor};
use std::sync::Arc;

/// Most bytes of a read, and of a peek: few enough that the buffer's pages, which the kernel clears
/// at their first use, do not cost more than a small core itself.
pub(crate) const READ: usize = 128 << 10;

/// Most bytes of a read of the head: what comes behind it is often not read at all.
const HEAD: usize = 8 << 10;

/// The kernel's stream, read in pieces.
pub(crate) struct PipeReader<I> {
    pipe: I,
    target: Arc<CopyTarget>,
    buffer: Vec<u8>,
    /// Most bytes of a read, unless more are asked for.
    step: usize,
    start: usize,
    end: usize,
}

impl<I: AsFd> PipeReader<I> {
    /// Takes the read end of a pipe. What comes in moves `target` too.
    pub(crate) fn new(pipe: I, target: &Arc<CopyTarget>) -> Self {
        PipeReader {
            pipe,
            target: target.clone(),
            buffer: vec![0; READ],
            step: HEAD,
            start: 0,
            end: 0,
        }
    }

    /// Prepares for reading all of it, in large pieces.
    pub(crate) fn expect_all(&mut self) {
        self.step = READ;
        descriptor::enlarge_pipe(&self.pipe, CHUNK);
    }

    /// The next `n` bytes (at most `READ`), or as many as there are before the end.
    pub(crate) fn peek(&mut self, n: usize) -> Result<&[u8], Stop> {
        if self.buffer.len() - self.start < n {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < n {
            let most = self.buffer.len().min(self.end + self.step.max(n));
            match descriptor::read(&self.pipe, &mut self.buffer[self.end..most]) {
                Ok(0) => break,
                Ok(got) => {
                    self.end += got;
                    self.target.moved(got);
                }
                Err(e) => return Err(Stop::Read(e)),
            }
        }
        Ok(&self.buffer[self.start..self.end.min(self.start + n)])
    }

    /// Takes `n` bytes that were seen.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// Exactly the next `n` bytes, taken.
    pub(crate) fn take(&mut self, n: usize) -> Result<&[u8], Stop> {
        if self.peek(n)?.len() < n {
            return Err(Stop::Ended);
        }
        self.consume(n);
        Ok(&self.buffer[self.start - n..self.start])
    }
}
