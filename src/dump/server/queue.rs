//! Which connection is served next, so that no container can keep another one waiting. Pure.

use std::collections::{HashMap, VecDeque};

/// Connections that are served at a time.
pub(super) const MOST: usize = 512;

/// Connections of one cgroup that are served at a time; its further ones wait.
pub(super) const EACH: usize = 96;

/// Connections, and who they are of: those that wait, and those that are served.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: VecDeque<(u64, T)>,
    /// The group of each process that serves.
    served: HashMap<i32, u64>,
    /// How many each group has there.
    counts: HashMap<u64, usize>,
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
    pub(super) fn add(&mut self, group: u64, connection: T) {
        self.waiting.push_back((group, connection));
    }

    /// The one that came first of those whose group has room.
    pub(super) fn next(&mut self) -> Option<(u64, T)> {
        if self.served.len() >= MOST {
            return None;
        }
        let has_room = |group: &u64| self.counts.get(group).is_none_or(|count| *count < EACH);
        let at = self.waiting.iter().position(|(group, _)| has_room(group))?;
        self.waiting.remove(at)
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

    /// All that wait, to be handed to another process.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = T> {
        self.waiting.into_iter().map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_many_keeps_nobody_waiting() {
        let mut queue = Queue::new();
        for n in 0..EACH + 5 {
            queue.add(1, n);
        }
        queue.add(2, 9999);
        for process in 0..EACH as i32 {
            assert_eq!(queue.next(), Some((1, process as usize)));
            queue.begun(process, 1);
        }
        assert_eq!(queue.next(), Some((2, 9999)), "the other group's is next");
        queue.begun(5000, 2);
        assert_eq!((queue.next(), queue.waiting()), (None, 5));
        queue.ended(7);
        queue.ended(7);
        queue.ended(123_456);
        assert_eq!(queue.next(), Some((1, EACH)));
        assert_eq!(
            queue.into_waiting().collect::<Vec<_>>(),
            [EACH + 1, EACH + 2, EACH + 3, EACH + 4]
        );
    }

    #[test]
    fn all_together_are_bounded() {
        let mut queue = Queue::new();
        (0..=MOST).for_each(|n| queue.add(n as u64, ()));
        for process in 0..MOST {
            let (group, ()) = queue.next().unwrap();
            queue.begun(process as i32, group);
        }
        assert_eq!(queue.next(), None);
        queue.ended(0);
        assert!(queue.next().is_some());
    }
}
