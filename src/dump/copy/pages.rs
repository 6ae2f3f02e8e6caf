//! Pages: the kernel's unit for memory in a core, and which of them hold only zeros.

/// Bytes of a page of this kernel, the unit in which it emits memory. A core with a smaller limit
/// is not made at all, as in the kernel (`min_coredump`).
pub(crate) use crate::sys::kernel::page_size;

/// Bytes of the smallest hole: a block of nearly all file systems, and never more than a page.
const BLOCK: usize = 4096;

/// What the kernel may send ahead, and the most that is held in memory.
pub(crate) const CHUNK: usize = 1 << 20;

/// The runs of blocks that do not hold zeros only; what lies between becomes a hole. The last block
/// may be short.
pub(crate) fn runs(bytes: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let block = |at: usize| &bytes[at..bytes.len().min(at + BLOCK)];
        while at < bytes.len() && is_zero(block(at)) {
            at += BLOCK;
        }
        let start = at;
        while at < bytes.len() && !is_zero(block(at)) {
            at += BLOCK;
        }
        (start < bytes.len()).then(|| start..bytes.len().min(at))
    })
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZERO: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|block| block == &ZERO[..block.len()])
}
