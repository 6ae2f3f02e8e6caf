//! Waiting for what has no event: the kernel's helpers are nobody's children, and other programs'
//! files can only be looked at.
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// What a look at something tells: whether it is so, or what was found.
pub trait Look {
    type Found;

    fn found(self) -> Option<Self::Found>;
}

impl Look for bool {
    type Found = ();

    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Option<T> {
        self
    }
}

/// Asks `look` until it has something, for at most `most`.
///
/// # Panics
///
/// When the time is over; `what` has not happened then.
pub fn wait_for<L: Look>(what: &str, most: Duration, look: impl FnMut() -> L) -> L::Found {
    within(most, look).unwrap_or_else(|| panic!("{what} has not happened within {most:?}"))
}

/// The same, and `None` when the time is over: for a test that has more to say then.
pub fn within<L: Look>(most: Duration, mut look: impl FnMut() -> L) -> Option<L::Found> {
    let until = Instant::now() + most;
    let mut pause = Duration::from_millis(1);
    loop {
        // Asked once more after the last pause: a busy machine may have made that a long one.
        let over = Instant::now() >= until;
        if let Some(found) = look().found() {
            return Some(found);
        }
        if over {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Whether `is` becomes true within `most`.
pub fn becomes(most: Duration, is: impl FnMut() -> bool) -> bool {
    within(most, is).is_some()
}

/// The status of a child that ends within `most`. wait(2) knows no time-out.
pub fn ends_within(child: &mut Child, most: Duration) -> Option<ExitStatus> {
    within(most, || child.try_wait().unwrap())
}
