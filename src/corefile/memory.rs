//! The process's memory, as far as the core contains it. Read in blocks, of which a bounded number
//! is cached, since a stack is read word by word.

use crate::elf::{Load, Source};
use std::cell::RefCell;
use std::collections::BTreeMap;

const BLOCK: u64 = 4096;
/// Most cached blocks: 16 MiB.
const MAX_BLOCKS: usize = 4096;

/// Memory by address.
pub(crate) struct Memory<'s> {
    source: &'s dyn Source,
    loads: Vec<Load>,
    /// Cached blocks by their number in the file; the last one may be short.
    blocks: RefCell<BTreeMap<u64, Vec<u8>>>,
}

impl<'s> Memory<'s> {
    /// `loads` are sorted by address.
    pub(crate) fn new(source: &'s dyn Source, loads: Vec<Load>) -> Self {
        Memory { source, loads, blocks: RefCell::default() }
    }

    /// Fills the whole buffer, or returns `None`: memory that the core does
    /// not contain is not zeros.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
        let (mut address, mut rest) = (address, buffer);
        while !rest.is_empty() {
            let load = self.find(address)?;
            let skip = address - load.address;
            let n = usize::try_from(load.size - skip).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            self.read_file(load.offset.checked_add(skip)?, now)?;
            rest = later;
            address = address.checked_add(n as u64)?;
        }
        Some(())
    }

    /// A little-endian number of 8 bytes.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// At most `max` bytes from an address, up to the first gap.
    pub(crate) fn up_to(&self, address: u64, max: usize) -> Vec<u8> {
        let there = self.find(address).map_or(0, |l| l.size - (address - l.address));
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(usize::MAX).min(max)];
        match self.read(address, &mut bytes) {
            Some(()) => bytes,
            None => Vec::new(),
        }
    }

    fn find(&self, address: u64) -> Option<&Load> {
        let i = self.loads.partition_point(|l| l.address <= address);
        let load = self.loads.get(i.checked_sub(1)?)?;
        (address - load.address < load.size).then_some(load)
    }

    fn read_file(&self, mut offset: u64, mut buffer: &mut [u8]) -> Option<()> {
        let mut blocks = self.blocks.borrow_mut();
        while !buffer.is_empty() {
            let number = offset / BLOCK;
            if blocks.len() >= MAX_BLOCKS && !blocks.contains_key(&number) {
                blocks.clear();
            }
            let block = blocks.entry(number).or_insert_with(|| {
                let mut block = vec![0; BLOCK as usize];
                let got = self.source.read_at(number * BLOCK, &mut block);
                block.truncate(got);
                block
            });
            let from = block.get((offset % BLOCK) as usize..).filter(|b| !b.is_empty())?;
            let n = from.len().min(buffer.len());
            buffer[..n].copy_from_slice(&from[..n]);
            buffer = &mut buffer[n..];
            offset = offset.checked_add(n as u64)?;
        }
        Some(())
    }
}
