//! /proc/PID/auxv: what the kernel told a program at its start.

/// Not 0 if a program was started set-user-ID, set-group-ID or with file capabilities.
pub(crate) const AT_SECURE: u64 = libc::AT_SECURE;

/// Address at which the vDSO is mapped.
pub(crate) const AT_SYSINFO_EHDR: u64 = libc::AT_SYSINFO_EHDR;

/// A value of /proc/PID/auxv, which consists of pairs of 64-bit words, or of 32-bit words for a
/// 32-bit program. `None` if there is no such entry.
///
/// # References
/// getauxval(3), proc_pid_auxv(5).
pub(crate) fn auxiliary(auxv: &[u8], key: u64) -> Option<u64> {
    const AT_NULL: u64 = 0;
    // Keys are smaller than this. In 32-bit pairs misread as 64-bit ones, the upper half of a key
    // is the value of the first pair.
    const KEYS: u64 = 1 << 16;
    let find = |width: usize| {
        let word = |b: &[u8]| match b.len() {
            8 => u64::from_ne_bytes(b.try_into().expect("eight bytes")),
            _ => u64::from(u32::from_ne_bytes(b.try_into().expect("four bytes"))),
        };
        let pairs = auxv.chunks_exact(2 * width).map(|p| (word(&p[..width]), word(&p[width..])));
        let live: Vec<_> = pairs.take_while(|(k, _)| *k != AT_NULL).collect();
        live.iter()
            .all(|(k, _)| *k < KEYS)
            .then(|| live.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
            .flatten()
    };
    find(8).or_else(|| find(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auxiliary_values_in_both_widths() {
        let wide = |v: &[(u64, u64)]| {
            v.iter()
                .flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()].concat())
                .collect::<Vec<u8>>()
        };
        let narrow = |v: &[(u32, u32)]| {
            v.iter()
                .flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()].concat())
                .collect::<Vec<u8>>()
        };
        assert_eq!(auxiliary(&wide(&[(33, 0x7fff_0000), (23, 1), (0, 0)]), AT_SECURE), Some(1));
        assert_eq!(auxiliary(&wide(&[(33, 0x7fff_0000), (23, 0), (0, 0)]), AT_SECURE), Some(0));
        assert_eq!(auxiliary(&narrow(&[(32, 0xf7f0_0000), (23, 1), (0, 0)]), AT_SECURE), Some(1));
        assert_eq!(auxiliary(&wide(&[(33, 1), (0, 0)]), AT_SECURE), None);
        assert_eq!(
            auxiliary(&wide(&[(23, 1), (33, 0x7fff_0000), (0, 0)]), AT_SYSINFO_EHDR),
            Some(0x7fff_0000)
        );
        assert_eq!(auxiliary(b"", AT_SECURE), None);
    }
}
