//! A time limit for this process as a whole. An engine gives a hook a few seconds, while the hook
//! may wait for several things one after the other.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static UNTIL: OnceLock<Instant> = OnceLock::new();

/// Starts the budget. Only the first call counts.
pub(crate) fn begin(time: Duration) {
    UNTIL.get_or_init(|| Instant::now() + time);
}

/// The rest of the budget, `most` at most. Without a budget, `most`.
pub(crate) fn left(most: Duration) -> Duration {
    UNTIL.get().map_or(most, |until| most.min(until.saturating_duration_since(Instant::now())))
}
