//! What tasks share and wait for.
//!
//! All of these can be statics, and cost no exit. Every operation that may wait
//! takes a [`Timeout`]: now, after, at, forever; what is refused comes back
//! inside the error. Whoever waits is chosen by priority, and among equals by
//! the time that they have waited; what is given goes straight to the chosen one.
//!
//! Where a task may not wait (a timer's function, a critical section), an
//! operation that would have to is refused with [`WaitError::WrongContext`].

mod barrier;
mod condvar;
mod flags;
mod heap_queue;
mod mutex;
mod once;
mod pool;
mod queue;
mod semaphore;
#[cfg(test)]
pub(crate) mod tests_support;

use core::fmt;

use cellule_rtos::{Outcome, Patience, TaskId};

use crate::kernel::{self, Section};
pub use crate::time::Timeout;

pub use barrier::Barrier;
pub use condvar::{Condvar, CondvarError};
pub use flags::{EventFlags, FlagsError};
pub use heap_queue::{CreateError, HeapQueue};
pub use mutex::{LockError, Mutex, MutexGuard, UnlockError};
pub use once::{InitError, Lazy, Once, OnceLock};
pub use pool::{AllocateError, Pool, PoolBox};
pub use queue::{Queue, SendError};
pub use semaphore::{Full, Semaphore};

/// An operation did not wait, or waited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// It would have had to wait, and was told not to.
    WouldBlock,
    /// It waited for as long as it was allowed to.
    TimedOut,
    /// Another task called the wait off.
    Cancelled,
    /// This context may not wait: upcalls are masked.
    WrongContext,
    /// The other side ended.
    PeerDied,
    /// There is no memory for what it would wait with.
    NoMemory,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "it would have to wait",
            Self::TimedOut => "the time to wait is over",
            Self::Cancelled => "the wait was called off",
            Self::WrongContext => "this context may not wait: upcalls are masked",
            Self::PeerDied => "the other side has ended",
            Self::NoMemory => "there is no memory to wait with",
        })
    }
}

impl core::error::Error for WaitError {}

impl Section {
    /// What a timeout means here and now: no patience where one may not wait, or
    /// once the time is over.
    pub(crate) fn patience(&self, timeout: Timeout) -> Patience {
        match timeout {
            _ if !self.can_wait() => Patience::None,
            Timeout::Forever => Patience::Forever,
            Timeout::Now => Patience::None,
            _ => match timeout.resolve(kernel::now()) {
                Patience::Until(end) if end <= kernel::now().as_nanos() => Patience::None,
                patience => patience,
            },
        }
    }

    /// Why an operation with this timeout did not wait.
    pub(crate) fn refusal(&self, timeout: Timeout) -> WaitError {
        match timeout {
            Timeout::Now => WaitError::WouldBlock,
            Timeout::After(core::time::Duration::ZERO) => WaitError::WouldBlock,
            _ if !self.can_wait() => WaitError::WrongContext,
            _ => WaitError::TimedOut,
        }
    }

    /// Notes where the item is that the running task waits to give, or the place
    /// for the one that it waits to get.
    pub(crate) fn set_item<T>(&mut self, item: *mut T) {
        let current = self.current();
        self.thread(current).item = item.cast();
    }

    /// Where a task that waits has its item, or wants it.
    #[inline]
    pub(crate) fn item<T>(&mut self, task: TaskId) -> *mut T {
        self.thread(task).item.cast()
    }

    /// Leaves, after an operation that made no task ready; it may have told a
    /// future.
    #[inline]
    pub(crate) fn leave(self) {
        if self.has_notices() {
            self.reschedule();
        }
    }

    /// Lets others run until the wait that an operation began is over.
    #[inline]
    pub(crate) fn wait(mut self) -> Result<Outcome, WaitError> {
        self.run_inlined();
        match self.outcome() {
            Outcome::TimedOut => Err(WaitError::TimedOut),
            Outcome::Cancelled => Err(WaitError::Cancelled),
            Outcome::PeerDied => Err(WaitError::PeerDied),
            granted => Ok(granted),
        }
    }
}
