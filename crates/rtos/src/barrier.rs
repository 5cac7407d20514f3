//! A barrier: tasks go on when so many have arrived.

use crate::condition::Condition;
use crate::kernel::Kernel;
use crate::timeout::Patience;
use crate::wait::WaitQueue;

/// Tasks that wait for the others.
#[derive(Debug, Default)]
pub struct Barrier {
    arrived: Condition,
}

/// What came of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was the last: all go on.
    Last,
    /// Others are missing, and there is no patience. It does not count.
    Busy,
    /// The running task waits for the others. If its time is up, it does not count.
    Waits,
}

impl Barrier {
    /// Nobody is there.
    pub const fn new() -> Self {
        Self { arrived: Condition::new() }
    }

    /// Arrives at a barrier for `size` tasks. O(log w); O(w log w) for the last.
    pub fn arrive(&mut self, kernel: &mut Kernel, size: usize, patience: Patience) -> Arrival {
        // Counted anew each time: who was killed or gave up does not count.
        if kernel.waiters(*self.arrived.waiters()) + 1 >= size {
            self.arrived.notify_all(kernel);
            return Arrival::Last;
        }
        if patience == Patience::None {
            return Arrival::Busy;
        }
        self.arrived.wait(kernel, patience);
        Arrival::Waits
    }

    /// Those who have arrived, for futures.
    pub fn waiters(&mut self) -> &mut WaitQueue {
        self.arrived.waiters()
    }
}
