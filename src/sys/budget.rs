//! How long this process may take, all in all: an engine gives a hook a few seconds, and what the
//! hook waits for may come one after the other.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static UNTIL: OnceLock<Instant> = OnceLock::new();

/// From now on this process has so long. The first word holds.
pub fn begin(time: Duration) {
    UNTIL.get_or_init(|| Instant::now() + time);
}

/// What is left of it, `most` at most. A process without a budget has `most`.
pub fn left(most: Duration) -> Duration {
    UNTIL.get().map_or(most, |until| most.min(until.saturating_duration_since(Instant::now())))
}
