//! A condition: a line of tasks that wait to be told.

use crate::kernel::Kernel;
use crate::slot::Outcome;
use crate::timeout::Patience;
use crate::wait::WaitQueue;

/// Tasks that wait until another one notifies them. What it means is the
/// shell's: a condition variable, a timer's next expiry, the end of a set-up.
#[derive(Debug, Default)]
pub struct Condition {
    waiters: WaitQueue,
}

impl Condition {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiters: WaitQueue::new() }
    }

    /// Makes the running task wait. O(log w).
    pub fn wait(&mut self, kernel: &mut Kernel, patience: Patience) {
        kernel.wait_for(patience, Some(&mut self.waiters), 0);
    }

    /// Wakes the first in line; whether there was one. O(log w).
    pub fn notify_one(&mut self, kernel: &mut Kernel) -> bool {
        self.notify_one_of(kernel, 0)
    }

    /// The same, and tells it a number: its outcome's.
    pub fn notify_one_of(&mut self, kernel: &mut Kernel, number: u64) -> bool {
        let Some(best) = kernel.best_of(&mut self.waiters) else { return false };
        kernel.conclude(best, Outcome::Granted(number));
        true
    }

    /// How many wait. O(1).
    pub fn len(&self, kernel: &Kernel) -> usize {
        kernel.waiters(self.waiters)
    }

    /// Whether nobody waits. O(1).
    pub fn is_empty(&self, kernel: &Kernel) -> bool {
        self.len(kernel) == 0
    }

    /// Wakes all, the first in line first. O(w log w).
    pub fn notify_all(&mut self, kernel: &mut Kernel) {
        while self.notify_one(kernel) {}
    }

    /// Those who wait, for futures.
    pub fn waiters(&mut self) -> &mut WaitQueue {
        &mut self.waiters
    }
}
