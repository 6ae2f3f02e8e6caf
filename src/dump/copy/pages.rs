//! Pages: the kernel's unit for memory in a core, and which of them hold only zeros.

/// Bytes of a page. A core with a smaller limit is not made at all, as in the kernel
/// (`min_coredump`).
pub(crate) const PAGE: u64 = 4096;

/// What the kernel may send ahead, and the most that is held in memory.
pub(crate) const CHUNK: usize = 1 << 20;

/// The runs of pages that do not hold zeros only; what lies between becomes a hole. The last page
/// may be short.
pub(crate) fn runs(bytes: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    const SIZE: usize = PAGE as usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        let page = |at: usize| &bytes[at..bytes.len().min(at + SIZE)];
        while at < bytes.len() && is_zero(page(at)) {
            at += SIZE;
        }
        let start = at;
        while at < bytes.len() && !is_zero(page(at)) {
            at += SIZE;
        }
        (start < bytes.len()).then(|| start..bytes.len().min(at))
    })
}

pub(crate) fn is_zero(page: &[u8]) -> bool {
    const ZERO: [u8; PAGE as usize] = [0; PAGE as usize];
    page == &ZERO[..page.len()]
}
