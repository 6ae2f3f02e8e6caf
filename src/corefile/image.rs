//! The structure of a core: segments, notes, memory.

use super::head::CoreHead;
use super::memory::Memory;
use super::notes::Notes;
use super::segments::{Machine, Segment};
use crate::elf::{Load, Source};
use anyhow::{Result, ensure};

/// Most mapped files of which a small core has the page with the ELF header.
pub(super) const MOST_HEADS: usize = 1024;

pub(crate) struct CoreImage<'s> {
    /// Its architecture.
    pub machine: Machine,
    /// Segments, sorted by address.
    pub segments: Vec<Segment>,
    /// The contents of its notes.
    pub notes: Notes,
    /// The memory that was dumped.
    pub memory: Memory<'s>,
    size: u64,
}

impl<'s> CoreImage<'s> {
    /// Parses a core.
    ///
    /// # Errors
    /// What the file is instead, or what is wrong with it.
    pub(crate) fn parse(source: &'s dyn Source) -> Result<Self> {
        Self::of(&CoreHead::read(source)?, source)
    }

    /// The core with this head.
    ///
    /// # Errors
    /// It has no thread.
    pub(crate) fn of(head: &CoreHead, source: &'s dyn Source) -> Result<Self> {
        Self::with_memory(head, source, |load| load)
    }

    /// The same, where `source` has the memory by its addresses.
    ///
    /// # Errors
    /// It has no thread.
    pub(crate) fn by_address(head: &CoreHead, source: &'s dyn Source) -> Result<Self> {
        Self::with_memory(head, source, |load| Load { offset: load.address, ..load })
    }

    fn with_memory(
        head: &CoreHead,
        source: &'s dyn Source,
        place: impl Fn(Load) -> Load,
    ) -> Result<Self> {
        let machine = head.machine;
        let segments = head.segments();
        let memory = Memory::new(source, segments.iter().map(|s| place(s.dumped)).collect());
        let mut notes = Notes::default();
        for bytes in &head.notes {
            notes.add(machine, bytes)?;
        }
        ensure!(!notes.threads.is_empty(), "it ends before its first thread: no NT_PRSTATUS");
        Ok(CoreImage { machine, segments, notes, memory, size: source.size() })
    }

    /// Bytes that the segments announce but the file does not have.
    pub(crate) fn missing(&self) -> u64 {
        let ends = self.segments.iter().map(|s| s.dumped.offset.saturating_add(s.dumped.size));
        ends.max().unwrap_or(0).saturating_sub(self.size)
    }

    /// Whether the memory at an address is executable.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        let after = self.segments.partition_point(|s| s.start() <= address);
        let before = self.segments[..after].last();
        before.is_some_and(|s| s.is_code && address - s.start() < s.size)
    }
}
