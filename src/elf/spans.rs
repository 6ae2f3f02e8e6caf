//! Sets of addresses as sorted spans that do not touch.

/// What is copied already: sorted starts and ends of addresses that the rest of the copy leaves
/// alone.
pub(crate) type Spans = Vec<(u64, u64)>;

/// Sorts, and joins what touches.
pub(crate) fn merge(mut spans: Spans) -> Spans {
    spans.sort_unstable();
    let mut out: Spans = Vec::new();
    for (start, end) in spans {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// The part of a run of addresses from `at` on that is not done yet, if there is any.
pub(crate) fn next_open(done: &Spans, at: u64, end: u64) -> Option<(u64, u64)> {
    let mut at = at;
    let mut stop = end;
    for (start, after) in &done[done.partition_point(|d| d.1 <= at)..] {
        if at < *start {
            stop = end.min(*start);
            break;
        }
        at = *after;
    }
    (at < stop).then_some((at, stop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open() {
        let done = merge(vec![(30, 40), (10, 20), (15, 25)]);
        assert_eq!(done, [(10, 25), (30, 40)]);
        let all = |mut at, end| {
            let mut out = vec![];
            while let Some((a, b)) = next_open(&done, at, end) {
                out.push((a, b));
                at = b;
            }
            out
        };
        assert_eq!(all(0, 50), [(0, 10), (25, 30), (40, 50)]);
        assert_eq!(all(12, 20), []);
        assert_eq!(all(12, 28), [(25, 28)]);
        assert_eq!(all(40, 41), [(40, 41)]);
        assert_eq!(merge(vec![]), []);
        assert_eq!(next_open(&vec![], 1, 2), Some((1, 2)));
    }
}
