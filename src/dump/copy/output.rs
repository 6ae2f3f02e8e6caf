//! A core on its way to its sink, with the kernel's accounts of what counts against RLIMIT_CORE and
//! where the file ends.

use super::pages::CHUNK;
use super::sink::Sink;
use super::stop::Stop;

/// The file being written, with the kernel's accounts.
pub(crate) struct CoreOutput<S> {
    /// Where it goes.
    pub sink: S,
    /// Where the next byte goes.
    pub position: u64,
    /// Bytes that count against the limit so far.
    emitted: u64,
    /// Where the last byte that the kernel would have emitted ends: the size of a file that is cut
    /// there.
    pub reach: u64,
    limit: u64,
    /// Small units on their way to the file, ending at `position`.
    pending: Vec<u8>,
}

impl<S: Sink> CoreOutput<S> {
    /// A new file, empty. `limit`: most bytes emitted.
    pub(crate) fn new(sink: S, limit: Option<u64>) -> Self {
        CoreOutput {
            sink,
            position: 0,
            emitted: 0,
            reach: 0,
            limit: limit.unwrap_or(u64::MAX),
            pending: Vec::new(),
        }
    }

    /// Accounts for one unit of the kernel's, `n` bytes at `offset`.
    pub(crate) fn account(&mut self, offset: u64, n: u64) -> Result<(), Stop> {
        self.emitted =
            self.emitted.checked_add(n).filter(|e| *e <= self.limit).ok_or(Stop::Limit)?;
        self.reach = offset + n;
        Ok(())
    }

    /// Writes bytes that are accounted for, small ones later.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.position += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes the small units that were collected.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        let at = self.position - self.pending.len() as u64;
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() { Ok(()) } else { self.sink.write(&pending, at) }
    }

    /// Leaves a hole of `n` bytes.
    pub(crate) fn skip(&mut self, n: u64) -> Result<(), Stop> {
        self.flush()?;
        self.position += n;
        Ok(())
    }

    /// Writes whole pages straight from the input; they are accounted for.
    pub(crate) fn pages(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.flush()?;
        if !bytes.is_empty() {
            self.sink.write(bytes, self.position)?;
        }
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// A core that ends in a hole has its full size all the same. The kernel emits the last byte
    /// for that, so it counts.
    pub(crate) fn finish(&mut self) -> Result<(), Stop> {
        self.flush()?;
        if self.position > self.reach {
            self.account(self.position - 1, 1)?;
        }
        self.sink.end(self.position)
    }

    /// Ends the file here, whatever the other lanes have written.
    pub(crate) fn end_at(&mut self, end: u64) -> Result<(), Stop> {
        self.sink.end(end)
    }

    /// After a stop: the file ends where the kernel's would, behind the last byte emitted. Zeros at
    /// the very end may be a hole here.
    pub(crate) fn cut(&mut self) -> Result<(), Stop> {
        self.flush()?;
        self.sink.end(self.reach)
    }
}
