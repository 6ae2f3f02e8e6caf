//! The lane for a small process: the pages that exist, in few reads, by one thread.
//!
//! A small process has touched a fraction of what it maps; through the pipe the rest comes as
//! zeros, page by page. Nothing watches these reads as in the parallel lane, so none may be able to
//! hang. Of memory that belongs to no file only pages that exist are read. Where a page of a mapped
//! file does not exist, it would have to come from its file system or from whoever handles its
//! faults: then the core comes through the pipe. That is so in forked processes: the kernel dumps
//! the first page of each program and library, which they have often never touched.

use super::crashed_memory::{CrashedMemory, Failed};
use super::pages::{page_size, runs};
use super::parallel::WORTH;
use super::regions::{BATCH, RegionPart};
use super::stop::Stop;
use super::target::CopyTarget;
use crate::elf::{Head, Load, starts_of_files};
use crate::sys::memory::Span;
use crate::sys::pagemap::Run;

/// Below this many bytes the pipe costs no more than looking.
const LEAST: u64 = 64 << 10;

/// Most bytes of pages that are looked at: memory that is not dumped is seen too, and there can be
/// much of it.
const LOOKED: u64 = 4 * WORTH;

/// Most spans of one read; the kernel takes 1,024.
const SPANS: usize = 256;

/// What is read, in the order of the file; `None` where this lane is not for this core. `room`: how
/// many bytes may be emitted; a limit that could act is exact only on the stream.
pub(crate) fn pieces(
    head: &Head,
    files: Option<&[u8]>,
    room: u64,
    source: &CrashedMemory,
) -> Option<Vec<RegionPart>> {
    let plain = head.is_wide()
        && !head.has_more
        && (LEAST..WORTH).contains(&head.end)
        && head.end <= room
        && source.pidfd.is_some();
    let files = files.filter(|_| plain).and_then(starts_of_files)?;
    let low = head.loads.iter().map(|load| load.address).min()?;
    let high = head
        .loads
        .iter()
        .filter(|load| !load.is_legacy())
        .map(|load| load.address.saturating_add(load.size))
        .max()?;
    let exist = source.pagemap.all(low, high, LOOKED / page_size())?;
    let pieces = choose(&head.loads, &files, source.vdso, &exist)?;
    // Of a process that was killed the stream has what the kernel has written.
    (source.can_read(&head.barred, &files) && source.is_mapped()).then_some(pieces)
}

/// Selects the parts of the loads to read, given the runs of pages that exist. The vDSO is always
/// read: the kernel gives it even where its pages do not exist.
fn choose(
    loads: &[Load],
    files: &[u64],
    vdso: Option<u64>,
    exist: &[Run],
) -> Option<Vec<RegionPart>> {
    let mut out = Vec::new();
    for load in loads {
        let piece = |(from, to): Run| RegionPart {
            offset: load.offset + (from - load.address),
            span: Span { address: from, size: (to - from) as usize },
        };
        let whole = (load.address, load.address.checked_add(load.size)?);
        if load.is_legacy() || vdso == Some(load.address) {
            out.push(piece(whole));
            continue;
        }
        let start = out.len();
        out.extend(
            exist
                .iter()
                .map(|run| (run.0.max(whole.0), run.1.min(whole.1)))
                .filter(|(from, to)| from < to)
                .map(piece),
        );
        let found: u64 = out[start..].iter().map(|p| p.span.size as u64).sum();
        if files.contains(&load.address) && found != load.size {
            return None;
        }
    }
    Some(out)
}

/// Copies them to their places in the file, whose size the caller sets.
///
/// # Errors
/// [`Failed::Stream`]: the stream, of which nothing behind the head was used, can still give the
/// file.
pub(crate) fn copy_memory(
    source: &CrashedMemory,
    pieces: &[RegionPart],
    target: &CopyTarget,
) -> Result<(), Failed> {
    let mut buffer = vec![0u8; BATCH.min(pieces.iter().map(|p| p.span.size).sum())];
    let mut left = pieces.iter().flat_map(parts).peekable();
    let (mut batch, mut spans) = (Vec::new(), Vec::new());
    while let Some(first) = left.peek().map(|p: &RegionPart| p.offset) {
        batch.clear();
        let mut size = 0;
        while let Some(piece) =
            left.next_if(|p| batch.len() < SPANS && size + p.span.size <= buffer.len())
        {
            size += piece.span.size;
            batch.push(piece);
        }
        spans.clear();
        spans.extend(batch.iter().map(|p| p.span));
        let failed = |stop| {
            if stop == Stop::Ended { Failed::Ended(first) } else { Failed::Stream(stop, first) }
        };
        source.read(&spans, &mut buffer[..size], false).map_err(failed)?;
        target.moved(size);
        let mut at = 0;
        for piece in &batch {
            let bytes = &buffer[at..at + piece.span.size];
            at += piece.span.size;
            for run in runs(bytes) {
                target
                    .write_at(&bytes[run.clone()], piece.offset + run.start as u64)
                    .map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// A piece in parts that fit into the buffer.
fn parts(piece: &RegionPart) -> impl Iterator<Item = RegionPart> + use<> {
    let RegionPart { offset, span } = *piece;
    (0..span.size).step_by(BATCH).map(move |at| RegionPart {
        offset: offset + at as u64,
        span: Span { address: span.address + at as u64, size: BATCH.min(span.size - at) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(offset: u64, address: u64, pages: u64) -> Load {
        Load { offset, address, size: pages * 0x1000 }
    }

    fn chosen(
        loads: &[Load],
        files: &[u64],
        vdso: Option<u64>,
        exist: &[Run],
    ) -> Option<Vec<(u64, u64, usize)>> {
        choose(loads, files, vdso, exist)
            .map(|all| all.iter().map(|p| (p.offset, p.span.address, p.span.size)).collect())
    }

    #[test]
    fn what_exists_is_read() {
        let loads = [load(0x1000, 0x10000, 4), load(0x5000, 0x20000, 2), load(0x7000, 0x30000, 2)];
        // One run reaches over the first load's end, as where the mapping behind it is not dumped.
        let exist = [(0xf000, 0x11000), (0x13000, 0x15000), (0x30000, 0x31000)];
        assert_eq!(
            chosen(&loads, &[], None, &exist),
            Some(vec![
                (0x1000, 0x10000, 0x1000),
                (0x4000, 0x13000, 0x1000),
                (0x7000, 0x30000, 0x1000)
            ])
        );
        assert_eq!(chosen(&loads, &[], None, &[]), Some(vec![]));
    }

    #[test]
    fn a_file_must_be_there_as_a_whole() {
        let loads = [load(0x1000, 0x10000, 2)];
        assert_eq!(
            chosen(&loads, &[0x10000], None, &[(0x10000, 0x12000)]),
            Some(vec![(0x1000, 0x10000, 0x2000)])
        );
        // Two runs, of different kinds, side by side.
        assert_eq!(
            chosen(&loads, &[0x10000], None, &[(0x10000, 0x11000), (0x11000, 0x12000)])
                .map(|p| p.len()),
            Some(2)
        );
        assert_eq!(chosen(&loads, &[0x10000], None, &[(0x10000, 0x11000)]), None);
        assert_eq!(chosen(&[load(0x1000, 0x10000, 1)], &[0x10000], None, &[]), None);
    }

    #[test]
    fn what_the_kernel_gives_is_read_unseen() {
        let legacy = load(0x3000, 0xffff_ffff_ff60_0000, 1);
        let loads = [load(0x1000, 0x10000, 2), legacy];
        assert_eq!(
            chosen(&loads, &[], Some(0x10000), &[]),
            Some(vec![(0x1000, 0x10000, 0x2000), (0x3000, legacy.address, 0x1000)])
        );
        assert_eq!(
            chosen(&[load(0, u64::MAX - 0xfff, 2)], &[], None, &[]),
            None,
            "behind the end of all addresses"
        );
    }

    #[test]
    fn no_part_is_larger_than_the_buffer() {
        let piece =
            RegionPart { offset: 0x1000, span: Span { address: 0x10000, size: 2 * BATCH + 4096 } };
        let sizes: Vec<usize> = parts(&piece).map(|p| p.span.size).collect();
        assert_eq!(sizes, [BATCH, BATCH, 4096]);
        assert!(parts(&piece).all(|p| p.offset - 0x1000 == p.span.address - 0x10000));
    }
}
