//! The core on its way to the disk: the kernel's accounts of what counts against RLIMIT_CORE and where the file ends, over a file with holes or a
//! compressed one.

use super::stream::{CHUNK, Stop};
use crate::sys::{Errno, OwnedFd, process};
use std::io::Write;

/// What takes the bytes of a core, in ascending order of their offsets.
pub trait Sink {
    /// Writes `bytes` at `offset`; what was left out before them are zeros.
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop>;
    /// No more comes: the core has this size.
    fn end(&mut self, size: u64) -> Result<(), Stop>;
}

/// A file in which zeros that were left out are holes.
pub struct Sparse<'a>(pub &'a OwnedFd);

impl Sink for Sparse<'_> {
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop> {
        write_all(self.0, bytes, offset)
    }

    fn end(&mut self, size: u64) -> Result<(), Stop> {
        process::set_size(self.0, size).map_err(Stop::Write)
    }
}

/// A zstd frame, compressed by as many threads as there are CPUs, in one pass.
pub struct Zstd<'a> {
    encoder: Option<zstd::Encoder<'static, Appending<'a>>>,
    at: u64,
    /// RLIMIT_FSIZE of the process, which counts what goes in.
    room: u64,
}

/// The fastest level: the crashed process is waiting.
const LEVEL: i32 = 1;

impl<'a> Zstd<'a> {
    /// An empty frame. `room`: most bytes of the core.
    pub fn new(file: &'a OwnedFd, room: Option<u64>) -> Result<Self, Stop> {
        let new = || {
            let mut encoder = zstd::Encoder::new(Appending(file), LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.multithread(process::cpus() as u32)?;
            Ok(encoder)
        };
        Ok(Zstd { encoder: Some(new().map_err(stop)?), at: 0, room: room.unwrap_or(u64::MAX) })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.at += bytes.len() as u64;
        if self.at > self.room {
            return Err(Stop::Write(Errno::FBIG));
        }
        self.encoder.as_mut().map_or(Ok(()), |e| e.write_all(bytes)).map_err(stop)
    }

    fn zeros_to(&mut self, offset: u64) -> Result<(), Stop> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while self.at < offset {
            self.add(&ZEROS[..ZEROS.len().min((offset - self.at) as usize)])?;
        }
        Ok(())
    }
}

impl Sink for Zstd<'_> {
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop> {
        self.zeros_to(offset)?;
        self.add(bytes)
    }

    fn end(&mut self, size: u64) -> Result<(), Stop> {
        self.zeros_to(size)?;
        self.encoder.take().map_or(Ok(()), |e| e.finish().map(drop)).map_err(stop)
    }
}

fn stop(e: std::io::Error) -> Stop {
    Stop::Write(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// A file that is written from its start to its end.
struct Appending<'a>(&'a OwnedFd);

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(process::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The file being written, with the kernel's accounts.
pub struct Output<S> {
    /// Where it goes.
    pub sink: S,
    /// Where the next byte goes.
    pub position: u64,
    /// Bytes that count against the limit so far.
    emitted: u64,
    /// Where the last byte that the kernel would have emitted ends: the size of a file that is cut there.
    pub reach: u64,
    limit: u64,
    /// Small units on their way to the file, ending at `position`.
    pending: Vec<u8>,
}

impl<S: Sink> Output<S> {
    /// A new file, empty. `limit`: most bytes emitted.
    pub fn new(sink: S, limit: Option<u64>) -> Self {
        Output { sink, position: 0, emitted: 0, reach: 0, limit: limit.unwrap_or(u64::MAX), pending: Vec::new() }
    }

    /// Accounts for one unit of the kernel's, `n` bytes at `offset`.
    pub fn account(&mut self, offset: u64, n: u64) -> Result<(), Stop> {
        self.emitted = self.emitted.checked_add(n).filter(|e| *e <= self.limit).ok_or(Stop::Limit)?;
        self.reach = offset + n;
        Ok(())
    }

    /// Writes bytes that are accounted for, small ones later.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.position += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes what is on its way.
    pub fn flush(&mut self) -> Result<(), Stop> {
        let at = self.position - self.pending.len() as u64;
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() { Ok(()) } else { self.sink.write(&pending, at) }
    }

    /// Leaves a hole.
    pub fn skip(&mut self, n: u64) -> Result<(), Stop> {
        self.flush()?;
        self.position += n;
        Ok(())
    }

    /// Writes whole pages straight from the input; they are accounted for.
    pub fn pages(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.flush()?;
        if !bytes.is_empty() {
            self.sink.write(bytes, self.position)?;
        }
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// A core that ends in a hole has its full size all the same. The kernel emits the last byte for that, so it counts.
    pub fn finish(&mut self) -> Result<(), Stop> {
        self.flush()?;
        if self.position > self.reach {
            self.account(self.position - 1, 1)?;
        }
        self.sink.end(self.position)
    }

    /// The file ends here, whatever others have written.
    pub fn end_at(&mut self, end: u64) -> Result<(), Stop> {
        self.sink.end(end)
    }

    /// After a stop: the file ends where the kernel's would, behind the last byte emitted. Zeros at the very end may be a hole here.
    pub fn cut(&mut self) -> Result<(), Stop> {
        self.flush()?;
        self.sink.end(self.reach)
    }
}

/// Writes all of `bytes` at an offset.
pub fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Stop> {
    while !bytes.is_empty() {
        match process::write_at(file, bytes, at) {
            Ok(0) => return Err(Stop::Write(Errno::NOSPC)),
            Ok(n) => (bytes, at) = (&bytes[n..], at + n as u64),
            Err(e) => return Err(Stop::Write(e)),
        }
    }
    Ok(())
}
