//! What takes a core: a file with holes, or a zstd frame.

use super::stop::Stop;
use super::target::CopyTarget;
use crate::sys::{Errno, descriptor};
use std::io::Write;
use std::sync::Arc;

/// What takes the bytes of a core, in ascending order of their offsets.
pub(crate) trait Sink {
    /// Writes `bytes` at `offset`; what was left out before them are zeros.
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop>;
    /// Ends the file: the core has this size.
    fn end(&mut self, size: u64) -> Result<(), Stop>;
}

/// A file in which zeros that were left out are holes.
pub(crate) struct Sparse(pub Arc<CopyTarget>);

impl Sink for Sparse {
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop> {
        self.0.write_at(bytes, offset)
    }

    fn end(&mut self, size: u64) -> Result<(), Stop> {
        descriptor::set_size(&*self.0, size).map_err(Stop::Write)
    }
}

/// A zstd frame, compressed in one pass.
pub(crate) struct Zstd {
    encoder: Option<zstd::Encoder<'static, Appending>>,
    target: Arc<CopyTarget>,
    at: u64,
    /// RLIMIT_FSIZE of the process, which counts what goes in.
    room: u64,
}

/// A fast level, since the crashed process waits. Levels below 0 are no faster on text, and
/// programs become a seventh larger with them.
pub(crate) const LEVEL: i32 = 1;

impl Zstd {
    /// A frame for what comes after the first `at` bytes of a core. `room`: most bytes of the core.
    pub(crate) fn new(target: &Arc<CopyTarget>, at: u64, room: Option<u64>) -> Result<Self, Stop> {
        let new = || {
            let mut encoder = zstd::Encoder::new(Appending(target.clone()), LEVEL)?;
            encoder.include_checksum(true)?;
            Ok(encoder)
        };
        Ok(Zstd {
            encoder: Some(new().map_err(|e| stop(e, target))?),
            target: target.clone(),
            at,
            room: room.unwrap_or(u64::MAX),
        })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.at += bytes.len() as u64;
        if self.at > self.room {
            return Err(Stop::Write(Errno::FBIG));
        }
        self.encoder
            .as_mut()
            .map_or(Ok(()), |e| e.write_all(bytes))
            .map_err(|e| stop(e, &self.target))
    }

    fn zeros_to(&mut self, offset: u64) -> Result<(), Stop> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while self.at < offset {
            self.add(&ZEROS[..ZEROS.len().min((offset - self.at) as usize)])?;
        }
        Ok(())
    }

    /// Ends the frame, which holds the first `size` bytes of the core.
    pub(crate) fn close(&mut self, size: u64) -> Result<(), Stop> {
        self.zeros_to(size)?;
        self.encoder
            .take()
            .map_or(Ok(()), |e| e.finish().map(drop))
            .map_err(|e| stop(e, &self.target))
    }
}

impl Sink for Zstd {
    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Stop> {
        self.zeros_to(offset)?;
        self.add(bytes)
    }

    fn end(&mut self, size: u64) -> Result<(), Stop> {
        self.close(size)
    }
}

fn stop(e: std::io::Error, target: &CopyTarget) -> Stop {
    if target.is_full() {
        return Stop::Full;
    }
    Stop::Write(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// A file that is written from its start to its end.
struct Appending(Arc<CopyTarget>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes).map_err(|stop| match stop {
            Stop::Write(e) => e.into(),
            _ => Errno::NOSPC.into(),
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
