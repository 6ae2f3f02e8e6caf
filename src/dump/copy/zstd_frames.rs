//! A compressed core made by several threads. Each compresses what it has read as frames of its
//! own, and they are written in the order of the core. Frames that follow one another are one file
//! to every reader of zstd.
//!
//! The file always ends where a frame does, so that a core that is cut can be read up to there.

use super::regions::{BATCH, Batch};
use super::sink::LEVEL;
use super::stop::Stop;
use super::target::CopyTarget;
use crate::sys::file;
use crate::sys::{Errno, descriptor};
use std::io::Result;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// As many zeros as one frame of zeros holds. Fewer between two pieces are compressed with them.
const ZEROS: u64 = 1 << 20;

/// Most bytes of the core in one frame.
const MOST: usize = ZEROS as usize + BATCH;

/// How often a thread that waits for its turn to write checks whether the copy was stopped.
const LOOK: Duration = Duration::from_millis(200);

/// The file, and whose turn it is.
pub(crate) struct Frames {
    target: Arc<CopyTarget>,
    /// Where in the core the first frame starts.
    start: u64,
    /// Where in the file.
    base: u64,
    /// A frame of ZEROS zeros, as often as is written at once.
    zeros: Vec<u8>,
    order: Mutex<Order>,
    turn: Condvar,
}

struct Order {
    /// The batch that is written next.
    next: u64,
    /// Where in the core the last frame ends.
    core: u64,
    /// Where in the file.
    file: u64,
}

/// How many frames of zeros are written at once.
const AT_ONCE: u64 = 256;

impl Frames {
    /// After `start` bytes of a core, whose frame is whole and in the file.
    pub(crate) fn new(target: &Arc<CopyTarget>, start: u64) -> Result<Self> {
        let zeros = compressor()?.compress(&vec![0; ZEROS as usize])?.repeat(AT_ONCE as usize);
        let base = file::stat(&**target).map_err(std::io::Error::other)?.size;
        let order = Mutex::new(Order { next: 0, core: start, file: base });
        Ok(Frames { target: target.clone(), start, base, zeros, order, turn: Condvar::new() })
    }

    /// Compresses a batch and writes it when those before it are written. `bytes`: those of its
    /// pieces, one after the other. `stop`: the copy was stopped.
    pub(crate) fn put(
        &self,
        packer: &mut Packer,
        batch: &Batch,
        bytes: &[u8],
        stop: &AtomicBool,
    ) -> std::result::Result<(), Stop> {
        packer.pack(batch, self.start, bytes).map_err(|_| Stop::Write(Errno::NOMEM))?;
        let mut order = self.order.lock().map_err(|_| Stop::Write(Errno::IO))?;
        while order.next != batch.number {
            if stop.load(Ordering::SeqCst) {
                return Err(Stop::Memory(Errno::CANCELED));
            }
            order = self.turn.wait_timeout(order, LOOK).map_err(|_| Stop::Write(Errno::IO))?.0;
        }
        for part in &packer.parts {
            match part {
                Part::Zeros(n) => self.zeros(&mut order, *n)?,
                Part::Frames(range) => self.append(&mut order, &packer.out[range.clone()])?,
            }
        }
        order.core = batch.end();
        order.next += 1;
        drop(order);
        self.turn.notify_all();
        Ok(())
    }

    /// Ends the file: the core has this size.
    pub(crate) fn end(&self, size: u64) -> std::result::Result<(), Stop> {
        let mut order = self.order.lock().map_err(|_| Stop::Write(Errno::IO))?;
        let zeros = size.saturating_sub(order.core);
        self.zeros(&mut order, zeros / ZEROS)?;
        let rest = compressor()
            .and_then(|mut c| c.compress(&vec![0; (zeros % ZEROS) as usize]))
            .map_err(|_| Stop::Write(Errno::NOMEM))?;
        if zeros % ZEROS > 0 { self.append(&mut order, &rest) } else { Ok(()) }
    }

    /// Takes away what is not a whole frame.
    pub(crate) fn cut(&self) -> std::result::Result<(), Stop> {
        let end = self.order.lock().map_err(|_| Stop::Write(Errno::IO))?.file;
        descriptor::set_size(&*self.target, end).map_err(Stop::Write)
    }

    /// Takes away all frames of these threads, and returns where in the file they began: another
    /// way begins there, at the end of the file, which is where write(2) still stands.
    pub(crate) fn back(&self) -> std::result::Result<u64, Stop> {
        descriptor::set_size(&*self.target, self.base).map_err(Stop::Write)?;
        Ok(self.base)
    }

    fn zeros(&self, order: &mut Order, mut frames: u64) -> std::result::Result<(), Stop> {
        let size = self.zeros.len() / AT_ONCE as usize;
        while frames > 0 {
            let n = frames.min(AT_ONCE);
            self.append(order, &self.zeros[..n as usize * size])?;
            frames -= n;
        }
        Ok(())
    }

    /// Writes whole frames, or nothing if there is no room for them.
    fn append(&self, order: &mut Order, frames: &[u8]) -> std::result::Result<(), Stop> {
        if !self.target.fits(frames.len()) {
            return Err(Stop::Full);
        }
        self.target.write_at(frames, order.file)?;
        order.file += frames.len() as u64;
        Ok(())
    }
}

fn compressor() -> Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    // What this level uses for whole files. For data as small as a batch the library would look for
    // shorter matches, which is a third slower on text and compresses less.
    compressor.set_parameter(CParameter::MinMatch(7))?;
    Ok(compressor)
}

/// What one thread makes frames with. Its memory is bounded by MOST.
pub(crate) struct Packer {
    compressor: Compressor<'static>,
    /// Pieces with zeros between them.
    plain: Vec<u8>,
    frame: Vec<u8>,
    out: Vec<u8>,
    parts: Vec<Part>,
}

enum Part {
    /// Frames of zeros.
    Zeros(u64),
    /// What was compressed.
    Frames(Range<usize>),
}

impl Packer {
    pub(crate) fn new() -> Result<Self> {
        let frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(MOST));
        Ok(Packer {
            compressor: compressor()?,
            plain: Vec::new(),
            frame,
            out: Vec::new(),
            parts: Vec::new(),
        })
    }

    /// Makes the parts of a batch, from where the one before ended, or from `start`.
    fn pack(&mut self, batch: &Batch, start: u64, bytes: &[u8]) -> Result<()> {
        self.out.clear();
        self.parts.clear();
        self.plain.clear();
        // A batch of one piece, which is what large memory comes in, is compressed where it is.
        if let ([piece], true) =
            (&batch.pieces[..], batch.from.max(start) == batch.pieces[0].offset)
        {
            return self.compress(Some(&bytes[..piece.span.size]));
        }
        let mut at = batch.from.max(start);
        let mut bytes = bytes;
        for piece in &batch.pieces {
            let zeros = piece.offset - at;
            let (now, later) = bytes.split_at(piece.span.size);
            if zeros >= ZEROS || self.plain.len() + zeros as usize + now.len() > MOST {
                self.compress(None)?;
            }
            if zeros >= ZEROS {
                self.parts.push(Part::Zeros(zeros / ZEROS));
            }
            self.plain.resize(self.plain.len() + (zeros % ZEROS) as usize, 0);
            self.plain.extend_from_slice(now);
            (at, bytes) = (piece.offset + now.len() as u64, later);
        }
        self.compress(None)
    }

    /// Makes a frame of `bytes`, or of what was put together.
    fn compress(&mut self, bytes: Option<&[u8]>) -> Result<()> {
        let bytes = bytes.unwrap_or(&self.plain);
        if !bytes.is_empty() {
            self.compressor.compress_to_buffer(bytes, &mut self.frame)?;
            let start = self.out.len();
            self.out.extend_from_slice(&self.frame);
            match self.parts.last_mut() {
                Some(Part::Frames(range)) => range.end = self.out.len(),
                _ => self.parts.push(Part::Frames(start..self.out.len())),
            }
        }
        self.plain.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::copy::regions::RegionPart;
    use crate::sys::counter::Counter;
    use crate::sys::filesystem::FsType;
    use crate::sys::memory::Span;
    use std::io::{Read, Seek};

    fn target(room: Option<u64>) -> (std::fs::File, Arc<CopyTarget>) {
        let file = tempfile::tempfile().unwrap();
        (
            file.try_clone().unwrap(),
            Arc::new(CopyTarget::new(
                file.into(),
                Counter::shared().unwrap(),
                crate::dump::copy::target::Capacity { room, floor: None },
                FsType::Other,
            )),
        )
    }

    fn batch(number: u64, from: u64, pieces: &[(u64, usize)]) -> Batch {
        let piece =
            |&(offset, size): &(u64, usize)| RegionPart { offset, span: Span { address: 0, size } };
        Batch { number, from, pieces: pieces.iter().map(piece).collect() }
    }

    fn unpacked(mut file: std::fs::File) -> Vec<u8> {
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        zstd::stream::read::Decoder::new(file).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Small gaps and large ones, in and between batches, before the first and behind the last.
    #[test]
    fn what_is_between_the_pieces_is_zeros() {
        let (file, target) = target(None);
        let frames = Frames::new(&target, 4096).unwrap();
        let batches = [
            batch(0, 0, &[(4096, 8192)]),
            batch(
                1,
                12288,
                &[(20480, 4096), (40960, 4096), ((5 << 20) + 4096, 4096), (6 << 20, 8192)],
            ),
            batch(2, (6 << 20) + 8192, &[((40 << 20) + 4096, 4096)]),
        ];
        let bytes = [7u8; 32768];
        let mut expected = vec![0u8; (300 << 20) - 4096];
        let (stop, mut packer) = (AtomicBool::new(false), Packer::new().unwrap());
        // The second comes first, and waits.
        std::thread::scope(|scope| {
            let early =
                scope.spawn(|| frames.put(&mut Packer::new().unwrap(), &batches[1], &bytes, &stop));
            frames.put(&mut packer, &batches[0], &bytes, &stop).unwrap();
            early.join().unwrap().unwrap();
        });
        frames.put(&mut packer, &batches[2], &bytes, &stop).unwrap();
        frames.end(300 << 20).unwrap();
        for piece in batches.iter().flat_map(|b| &b.pieces) {
            expected[piece.offset as usize - 4096..][..piece.span.size].fill(7);
        }
        assert!(unpacked(file) == expected);
    }

    #[test]
    fn ends_where_a_frame_does() {
        let noise: Vec<u8> = (0..BATCH as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        let (file, target) = target(Some(3 * BATCH as u64));
        let frames = Frames::new(&target, 0).unwrap();
        let (stop, mut packer) = (AtomicBool::new(false), Packer::new().unwrap());
        let size = BATCH as u64;
        let put = |n: u64, packer: &mut Packer| {
            frames.put(packer, &batch(n, n * size, &[(n * size, BATCH)]), &noise, &stop)
        };
        let stopped = (0..1000).find(|n| put(*n, &mut packer).is_err()).unwrap();
        assert!(target.is_full() && file.metadata().unwrap().len() <= 3 * size);
        frames.cut().unwrap();
        assert_eq!(unpacked(file).len() as u64, stopped * size);
        // One that waits for a batch which never comes.
        stop.store(true, Ordering::SeqCst);
        assert_eq!(put(stopped + 7, &mut packer), Err(Stop::Memory(Errno::CANCELED)));
    }
}
