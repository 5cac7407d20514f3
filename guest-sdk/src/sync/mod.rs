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
use core::ptr;

use cellule_rtos::{Outcome, Patience, TaskId};

use crate::kernel::{self, PassOn, Section};
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
///
/// ```
/// use cellule_guest::sync::{Semaphore, Timeout, WaitError};
/// use cellule_guest::task;
/// use cellule_guest::time::{self, Duration};
///
/// static NEVER: Semaphore = Semaphore::new(0, 1);
///
/// assert_eq!(NEVER.take(Timeout::Now), Err(WaitError::WouldBlock));
/// assert_eq!(NEVER.take(Duration::from_millis(5)), Err(WaitError::TimedOut));
/// assert_eq!(NEVER.take(time::now()), Err(WaitError::TimedOut));
/// let other = task::spawn(|| NEVER.take(Timeout::Forever))?;
/// task::yield_now();
/// assert!(other.task().cancel_wait());
/// assert_eq!(other.join()?, Err(WaitError::Cancelled));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

/// A line in which tasks and futures wait.
pub(crate) trait Line {
    /// Gives what a future was told of, which has gone, to the next.
    fn pass_on(&self, section: &mut Section);
}

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
        self.waited()
    }

    /// The same, in a line in which also futures wait that, when it is their turn,
    /// must come and take something. If the task that polls one is killed before
    /// that, this task may be next, and is given it by [`Line::pass_on`].
    ///
    /// A future cannot leave the address of the object behind: it may be forgotten,
    /// and the object be moved after that. A task that waits borrows the object.
    #[inline]
    pub(crate) fn wait_in<L: Line>(mut self, line: &L) -> Result<Outcome, WaitError> {
        fn pass_on<L: Line>(section: &mut Section, line: *const ()) {
            // SAFETY: `Section::end` calls this while a task waits in this line, and
            // so in `wait_in`, which borrows it.
            unsafe { &*line.cast::<L>() }.pass_on(section);
        }
        let current = self.current();
        self.thread(current).pass_on = Some(PassOn(pass_on::<L>, ptr::from_ref(line).cast()));
        self.run_inlined();
        self.thread(current).pass_on = None;
        self.waited()
    }

    #[inline]
    fn waited(&self) -> Result<Outcome, WaitError> {
        match self.outcome() {
            Outcome::TimedOut => Err(WaitError::TimedOut),
            Outcome::Cancelled => Err(WaitError::Cancelled),
            Outcome::PeerDied => Err(WaitError::PeerDied),
            granted => Ok(granted),
        }
    }
}
