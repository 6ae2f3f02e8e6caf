//! Which connection is served next, so that no container can keep another one waiting. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Connections that are served at a time, beyond the first few of each group: more bring nothing,
/// and each has memory of its own.
const WORK: usize = 24;

/// Connections of one group that are served whatever others have.
const OWN: usize = 4;

/// Who has waited so long is served beyond `WORK`, since those before hang: then the limits decide
/// how long it waits for its slot.
const LONG: Duration = Duration::from_secs(5);

/// Connections that are served at a time, and those of one group.
const MOST: usize = 512;
const EACH: usize = 96;

/// Connections, and who they are of: those that wait, and those that are served.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// The group of each process that serves.
    served: HashMap<i32, u64>,
    /// How many each group has there.
    counts: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Waiting<T> {
    group: u64,
    since: Instant,
    connection: T,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(super) fn new() -> Self {
        Queue { waiting: VecDeque::new(), served: HashMap::new(), counts: HashMap::new() }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// One that came.
    pub(super) fn add(&mut self, group: u64, since: Instant, connection: T) {
        self.waiting.push_back(Waiting { group, since, connection });
    }

    /// The one that came first of those whose group has room.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, T)> {
        let all = self.served.len();
        if all >= MOST {
            return None;
        }
        let has_room = |waiting: &Waiting<T>| {
            let count = self.counts.get(&waiting.group).copied().unwrap_or(0);
            let is_long = now.saturating_duration_since(waiting.since) >= LONG;
            count < OWN || count < EACH && (all < WORK || is_long)
        };
        let at = self.waiting.iter().position(has_room)?;
        self.waiting.remove(at).map(|waiting| (waiting.group, waiting.connection))
    }

    /// It is served by this process.
    pub(super) fn begun(&mut self, process: i32, group: u64) {
        self.served.insert(process, group);
        *self.counts.entry(group).or_default() += 1;
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, process: i32) {
        let Some(group) = self.served.remove(&process) else { return };
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
    }

    /// The processes that serve.
    pub(super) fn processes(&self) -> Vec<i32> {
        self.served.keys().copied().collect()
    }

    /// All that wait, to be handed to another process.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = T> {
        self.waiting.into_iter().map(|waiting| waiting.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_many_keeps_nobody_waiting() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for n in 0..EACH + 5 {
            queue.add(1, now, n);
        }
        for process in 0..WORK as i32 {
            assert_eq!(queue.next(now), Some((1, process as usize)));
            queue.begun(process, 1);
        }
        assert_eq!(queue.next(now), None, "they hang, or there is enough to do");
        for n in 0..OWN as i32 {
            queue.add(2, now, 9999);
            assert_eq!(queue.next(now), Some((2, 9999)), "the other group has some of its own");
            queue.begun(5000 + n, 2);
        }
        queue.add(2, now, 9999);
        assert_eq!(queue.next(now), None);
        (0..=OWN as i32).for_each(|n| queue.ended(5000 + n));
        queue.ended(123_456);
        // Those that hang keep nobody waiting for good.
        let later = now + LONG;
        for process in WORK..EACH {
            assert_eq!(queue.next(later), Some((1, process)));
            queue.begun(process as i32, 1);
        }
        assert_eq!(queue.next(later), Some((2, 9999)));
        queue.begun(6000, 2);
        assert_eq!((queue.next(later), queue.waiting()), (None, 5));
        queue.ended(7);
        queue.ended(7);
        assert_eq!(queue.next(later), Some((1, EACH)));
        assert_eq!(queue.processes().len(), EACH);
        assert_eq!(
            queue.into_waiting().collect::<Vec<_>>(),
            [EACH + 1, EACH + 2, EACH + 3, EACH + 4]
        );
    }

    #[test]
    fn all_together_are_bounded() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        (0..=MOST).for_each(|n| queue.add(n as u64, now, ()));
        for process in 0..MOST {
            let (group, ()) = queue.next(now).unwrap();
            queue.begun(process as i32, group);
        }
        assert_eq!(queue.next(now + LONG), None);
        queue.ended(0);
        assert!(queue.next(now).is_some());
    }
}
