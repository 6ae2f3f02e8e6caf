//! Bytes at offsets, and the numbers in them.

/// Bytes at offsets, of an open file or of memory.
pub(crate) trait Source {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`, as far as there are bytes, and returns their number.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize;
}

impl Source for std::fs::File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|o| self.get(o..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        n
    }
}

/// `size` bytes from `offset`; `None` if the source ends before. The caller bounds `size`.
pub(super) fn read_exactly(source: &dyn Source, offset: u64, size: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size];
    (source.read_at(offset, &mut bytes) == size).then_some(bytes)
}

/// A little-endian number of 8 bytes.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A little-endian number of 4 bytes.
pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
