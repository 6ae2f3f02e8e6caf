//! Which regions of the memory are read, in the order of the file, in batches: the whole list is
//! never held.
//!
//! Of memory that belongs to no file only the pages that exist are read: the kernel leaves the
//! others as holes. Of a mapped file everything is: a page that is not mapped yet has contents all
//! the same.

use super::pages::page_size;
use crate::elf::Load;
use crate::sys::Errno;
use crate::sys::memory::Span;
use crate::sys::pagemap::Pagemap;

/// Most bytes of a batch: one read.
pub(crate) const BATCH: usize = 256 << 10;

/// Most parts of a batch.
const PARTS: usize = 256;

/// Ranges of up to this many bytes are cheaper read than asked about.
const SMALL: u64 = 64 << 10;

/// A part of the memory, and where it goes in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionPart {
    /// Where in the file.
    pub offset: u64,
    /// Where in the process.
    pub span: Span,
}

/// What is read at once, in ascending order of the file.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// How many batches there were before it.
    pub number: u64,
    /// Where in the file the one before it ends.
    pub from: u64,
    /// Its parts; none at the end of the walk.
    pub pieces: Vec<RegionPart>,
}

impl Batch {
    /// Where in the file it ends.
    pub(crate) fn end(&self) -> u64 {
        self.pieces.last().map_or(self.from, |p| p.offset + p.span.size as u64)
    }
}

/// The walk over the memory of a core.
pub(crate) struct Walk {
    loads: Vec<Load>,
    /// Starts of the mapped files, sorted.
    files: Vec<u64>,
    /// The next load, and how far into it.
    next: (usize, u64),
    /// Batches so far, and where in the file the last one ends.
    past: (u64, u64),
    runs: Vec<(u64, u64)>,
}

impl Walk {
    /// `files`: the starts of all mappings that NT_FILE names.
    pub(crate) fn new(loads: Vec<Load>, mut files: Vec<u64>) -> Self {
        files.sort_unstable();
        Walk { loads, files, next: (0, 0), past: (0, 0), runs: Vec::new() }
    }

    /// Where in the file the next batch starts, or before.
    pub(crate) fn reached(&self) -> u64 {
        let (index, done) = self.next;
        self.loads.get(index).map_or(u64::MAX, |load| load.offset + done.min(load.size))
    }

    /// Fills the next batch.
    ///
    /// # Errors
    /// The page map cannot be read.
    pub(crate) fn batch(&mut self, pagemap: &Pagemap, batch: &mut Batch) -> Result<(), Errno> {
        (batch.number, batch.from) = self.past;
        let out = &mut batch.pieces;
        out.clear();
        let mut room = BATCH as u64;
        while room > 0 && out.len() < PARTS {
            let (index, done) = self.next;
            let Some(&load) = self.loads.get(index) else { break };
            if done >= load.size {
                self.next = (index + 1, 0);
                continue;
            }
            let looked = if load.size <= SMALL || self.files.binary_search(&load.address).is_ok() {
                let n = room.min(load.size - done);
                out.push(piece(&load, (load.address + done, load.address + done + n)));
                room -= n;
                done + n
            } else {
                self.runs.clear();
                let looked = pagemap.runs(
                    load.address + done,
                    load.address + load.size,
                    (room / page_size()).max(1),
                    &mut self.runs,
                )?;
                for run in &self.runs {
                    room = room.saturating_sub(run.1 - run.0);
                    out.push(piece(&load, *run));
                }
                looked.saturating_sub(load.address).max(done + page_size())
            };
            self.next = (index, looked);
        }
        self.past = (batch.number + 1, batch.end());
        Ok(())
    }
}

fn piece(load: &Load, run: (u64, u64)) -> RegionPart {
    RegionPart {
        offset: load.offset + (run.0 - load.address),
        span: Span { address: run.0, size: (run.1 - run.0) as usize },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a transparent huge page, which comes to be where one byte of it is touched.
    fn huge_page() -> u64 {
        let said = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
        said.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(2 << 20)
    }

    /// Of our own process: touched and untouched pages of one mapping, and the same again as if it
    /// were a file.
    #[test]
    fn walks_what_exists() {
        let huge = huge_page();
        let size = (8 * huge).max(32 << 20);
        // Too large for memory that somebody has touched before, and given back.
        let memory = vec![0u8; 2 * size as usize];
        let first = (memory.as_ptr() as u64 + 1).next_multiple_of(huge);
        let load = Load { offset: 8192, address: first, size };
        let pagemap = Pagemap::new(std::fs::File::open("/proc/self/pagemap").unwrap().into());
        let walk = |files: Vec<u64>| {
            let mut walk = Walk::new(vec![load], files);
            let (mut batch, mut all) = (Batch::default(), Vec::new());
            loop {
                walk.batch(&pagemap, &mut batch).unwrap();
                assert!(batch.pieces.iter().map(|p| p.span.size).sum::<usize>() <= BATCH);
                if batch.pieces.is_empty() {
                    return all;
                }
                all.append(&mut batch.pieces);
            }
        };
        let total = |pieces: &[RegionPart]| pieces.iter().map(|p| p.span.size as u64).sum::<u64>();
        assert_eq!(total(&walk(vec![first])), load.size);
        let mut memory = memory;
        let at = |a: u64| (a - memory.as_ptr() as u64) as usize;
        let (low, high) = (at(first), at(first + size / 8 * 5));
        memory[low] = 1;
        memory[high] = 1;
        let pieces = walk(vec![]);
        assert!(
            pieces.windows(2).all(|w| w[0].offset + w[0].span.size as u64 <= w[1].offset),
            "not ascending"
        );
        for touched in [first, first + size / 8 * 5] {
            let holds = |p: &&RegionPart| {
                p.span.address <= touched && touched < p.span.address + p.span.size as u64
            };
            let piece = pieces.iter().find(holds).expect("a touched page is not walked");
            assert_eq!(piece.offset - 8192, piece.span.address - first);
        }
        assert!(total(&pieces) < load.size, "untouched pages are walked");
    }
}
