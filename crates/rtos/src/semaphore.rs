//! A counting semaphore.

use crate::kernel::Kernel;
use crate::slot::Outcome;
use crate::timeout::Patience;
use crate::wait::WaitQueue;

/// A count that tasks take from and give to. A unit goes straight to the waiter
/// that is first in line.
#[derive(Debug)]
pub struct Semaphore {
    count: u64,
    limit: u64,
    waiters: WaitQueue,
}

/// What came of a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// There was a unit.
    Taken,
    /// There is none, and no patience.
    Busy,
    /// The running task waits for one.
    Waits,
}

/// The count is at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Semaphore {
    /// A semaphore with `count` units of at most `limit`.
    pub const fn new(count: u64, limit: u64) -> Self {
        let count = if count < limit { count } else { limit };
        Self { count, limit, waiters: WaitQueue::new() }
    }

    /// How many units there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Takes a unit. O(1); O(log w) if it waits.
    #[inline]
    pub fn take(&mut self, kernel: &mut Kernel, patience: Patience) -> Take {
        if self.count > 0 {
            self.count -= 1;
            return Take::Taken;
        }
        if patience == Patience::None {
            return Take::Busy;
        }
        kernel.wait_for(patience, Some(&mut self.waiters), 0);
        Take::Waits
    }

    /// Gives a unit. O(1); O(log w) if somebody waits.
    ///
    /// # Errors
    ///
    /// [`Full`] at the limit.
    #[inline]
    pub fn give(&mut self, kernel: &mut Kernel) -> Result<(), Full> {
        if let Some(best) = kernel.best_of(&mut self.waiters) {
            if !kernel.is_proxy(best) {
                kernel.wake(best, Outcome::Granted(0));
                return Ok(());
            }
            kernel.notify(best);
        }
        if self.count == self.limit {
            return Err(Full);
        }
        self.count += 1;
        Ok(())
    }

    /// Those who wait, for futures.
    pub fn waiters(&mut self) -> &mut WaitQueue {
        &mut self.waiters
    }

    /// A notified future has gone: what it was told goes to the next in line.
    pub fn pass_on(&mut self, kernel: &mut Kernel) {
        if self.count > 0 && kernel.best_of(&mut self.waiters).is_some() {
            self.count -= 1;
            // Below the limit: it was just lowered.
            let _ = self.give(kernel);
        }
    }
}
