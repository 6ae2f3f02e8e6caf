//! A compressed core, read where it is: its frames are found by their headers, and each is
//! decompressed when something in it is read. Nothing is written.

use crate::elf::Source;
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

/// Most bytes of one frame, decompressed: one of unknown size is decompressed as a whole.
const LARGEST: u64 = 256 << 20;
/// Most bytes of decompressed frames that are kept, before another is.
const CACHED: u64 = 256 << 20;
/// Most frames: those of this program have a mebibyte or more.
const MOST: usize = 1 << 20;
/// Largest header of a frame (RFC 8878, 3.1.1).
const HEADER: usize = 18;
const MAGIC: u32 = 0xfd2f_b528;
/// Those of skippable frames, without the last four bits.
const SKIPPABLE: u32 = 0x184d_2a50;

/// A core in zstd frames.
pub(crate) struct Compressed<'s> {
    source: &'s dyn Source,
    frames: Vec<Frame>,
    size: u64,
    cache: RefCell<Cache>,
}

#[derive(Default)]
struct Cache {
    frames: HashMap<usize, Rc<[u8]>>,
    bytes: u64,
}

/// A frame: where it is in the core, and where in the file.
struct Frame {
    start: u64,
    size: u64,
    at: u64,
    packed: u64,
}

impl<'s> Compressed<'s> {
    /// Finds the frames of a compressed core.
    ///
    /// # Errors
    /// It is not whole zstd frames, or has a larger one of unknown size than 256 MiB.
    pub(crate) fn of(source: &'s dyn Source) -> Result<Self> {
        let mut all = Compressed { source, frames: Vec::new(), size: 0, cache: RefCell::default() };
        let mut at = 0;
        while at < source.size() {
            ensure!(all.frames.len() < MOST, "it has more than {MOST} frames");
            let (packed, said) = measure(source, at).with_context(|| format!("frame at {at}"))?;
            let mut frame = Frame { start: all.size, size: said.unwrap_or(0), at, packed };
            if said.is_none() {
                let plain = all.decompress(&frame, LARGEST + 1);
                frame.size = plain.len() as u64;
                ensure!(frame.size <= LARGEST, "its frame at {at} has more than 256 MiB");
                all.keep(all.frames.len(), plain.into());
            }
            ensure!(frame.size <= LARGEST, "its frame at {at} has more than 256 MiB");
            at += packed;
            all.size = all.size.checked_add(frame.size).context("its size")?;
            if frame.size > 0 {
                all.frames.push(frame);
            }
        }
        Ok(all)
    }

    /// As much of a frame as can be decompressed, and not more than `most` bytes.
    fn decompress(&self, frame: &Frame, most: u64) -> Vec<u8> {
        let mut packed = vec![0; usize::try_from(frame.packed).unwrap_or(0)];
        let there = self.source.read_at(frame.at, &mut packed);
        let mut plain = Vec::new();
        if let Ok(decoder) = zstd::stream::read::Decoder::with_buffer(&packed[..there]) {
            // What came before damage is still useful.
            let _ = decoder.single_frame().take(most).read_to_end(&mut plain);
        }
        plain
    }

    fn keep(&self, number: usize, plain: Rc<[u8]>) {
        let mut cache = self.cache.borrow_mut();
        if cache.bytes + plain.len() as u64 > CACHED {
            *cache = Cache::default();
        }
        cache.bytes += plain.len() as u64;
        cache.frames.insert(number, plain);
    }

    fn plain(&self, number: usize) -> Rc<[u8]> {
        if let Some(plain) = self.cache.borrow().frames.get(&number) {
            return plain.clone();
        }
        let frame = &self.frames[number];
        let plain: Rc<[u8]> = self.decompress(frame, frame.size).into();
        self.keep(number, plain.clone());
        plain
    }
}

impl Source for Compressed<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        let mut number = self.frames.partition_point(|f| f.start + f.size <= offset);
        while done < buffer.len() && number < self.frames.len() {
            let plain = self.plain(number);
            let skip = (offset + done as u64 - self.frames[number].start) as usize;
            let rest = plain.get(skip..).unwrap_or_default();
            let n = rest.len().min(buffer.len() - done);
            buffer[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
            if skip as u64 + n as u64 != self.frames[number].size {
                break;
            }
            number += 1;
        }
        done
    }
}

/// The size of the frame at an offset in the file, and of what is in it if the frame says so.
///
/// # References
/// RFC 8878, section 3.1.
fn measure(source: &dyn Source, at: u64) -> Result<(u64, Option<u64>)> {
    let mut header = [0; HEADER];
    let there = source.read_at(at, &mut header);
    let number = |from: usize, size: usize| -> Result<u64> {
        ensure!(from + size <= there, "it ends in its header");
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&header[from..from + size]);
        Ok(u64::from_le_bytes(bytes))
    };
    let magic = number(0, 4)? as u32;
    if magic & !0xf == SKIPPABLE {
        let size = 8 + number(4, 4)?;
        ensure!(source.size() - at >= size, "it is not whole");
        return Ok((size, Some(0)));
    }
    ensure!(magic == MAGIC, "it is no zstd frame");
    let flags = number(4, 1)?;
    let is_single = flags & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][(flags & 3) as usize];
    let field = match (flags >> 6, is_single) {
        (0, false) => 0,
        (0, true) => 1,
        (n, _) => 1 << n,
    };
    let before = 5 + usize::from(!is_single) + dictionary;
    let said = match field {
        0 => None,
        2 => Some(number(before, 2)? + 256),
        n => Some(number(before, n)?),
    };
    let mut end = at + (before + field) as u64;
    loop {
        let mut block = [0; 3];
        ensure!(source.read_at(end, &mut block) == 3, "it is not whole");
        let block = u64::from(block[0]) | u64::from(block[1]) << 8 | u64::from(block[2]) << 16;
        end += 3 + match block >> 1 & 3 {
            0 | 2 => block >> 3,
            1 => 1,
            _ => bail!("it has a block of a reserved kind"),
        };
        if block & 1 == 1 {
            break;
        }
    }
    end += if flags & 4 != 0 { 4 } else { 0 };
    ensure!(end <= source.size(), "it is not whole");
    Ok((end - at, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i / 7 * 31) as u8).collect()
    }

    /// Frames that say their size and one that does not, with a skippable one between them.
    fn packed(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            if i % 2 == 0 {
                let mut all = zstd::bulk::Compressor::new(1).unwrap();
                all.include_checksum(i % 4 == 0).unwrap();
                out.extend(all.compress(part).unwrap());
            } else {
                let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
                encoder.write_all(part).unwrap();
                out.extend(encoder.finish().unwrap());
                out.extend([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
            }
        }
        out
    }

    #[test]
    fn any_part_is_read() {
        let parts = [bytes(10), bytes(300_000), bytes(300), vec![0; 1 << 20], bytes(1 << 20)];
        let (whole, file) = (parts.concat(), packed(&parts));
        let core = Compressed::of(&file).unwrap();
        assert_eq!(core.size(), whole.len() as u64);
        for (offset, size) in [(0, 5), (5, 20), (0, whole.len()), (299_000, 5000), (whole.len(), 1)]
        {
            let mut got = vec![0xee; size];
            let n = core.read_at(offset as u64, &mut got);
            let expected = &whole[offset..whole.len().min(offset + size)];
            assert!(got[..n] == *expected, "{offset} {size}: {n}");
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let file = packed(&[bytes(1000), bytes(100_000)]);
        for cut in [1, 4, 5, 10, 100, file.len() - 12] {
            assert!(Compressed::of(&file[..cut].to_vec()).is_err(), "{cut}");
        }
        let no_frame = b"hello, world".to_vec();
        assert!(Compressed::of(&no_frame).is_err());
        assert_eq!(Compressed::of(&Vec::new()).unwrap().size(), 0);
    }
}
