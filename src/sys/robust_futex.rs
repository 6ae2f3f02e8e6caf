//! The robust futexes of another process's threads, which the kernel marks when a
//! thread that holds them ends.

/// Addresses of the robust lists of some threads, for those that have one.
///
/// # References
/// get_robust_list(2), Linux 2.6.17: needs the right to trace them.
pub(crate) fn heads(threads: &[i32]) -> Vec<u64> {
    threads.iter().filter_map(|thread| head(*thread)).filter(|head| *head != 0).collect()
}

fn head(thread: i32) -> Option<u64> {
    let (mut head, mut size) = (0u64, 0u64);
    // SAFETY: the call writes one word to each of the two places, which live for the call.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut size) };
    (result == 0).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_threads_that_are_there() {
        // The C library gives every thread one.
        assert_eq!(heads(&[std::process::id() as i32, i32::MAX]).len(), 1);
    }
}
