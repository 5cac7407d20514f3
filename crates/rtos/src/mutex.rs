//! A mutex with transitive priority inheritance and owner death.

use crate::kernel::Kernel;
use crate::slot::{Index, Outcome, TaskId};
use crate::timeout::Patience;
use crate::wait::{Handle, WaitQueue};

/// Who holds it, and who waits. Not recursive.
#[derive(Debug)]
pub struct Mutex {
    owner: TaskId,
    /// When the owner acquired it, among all acquisitions.
    acquired: u64,
    waiters: WaitQueue,
}

/// What came of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// The running task holds it.
    Locked,
    /// The running task holds it; the one before ended while it did.
    OwnerDied,
    /// The running task held it already.
    Recursive,
    /// Another task holds it, and there is no patience.
    Busy,
    /// The running task waits. The outcome is granted, owner died, or timed out.
    Waits,
}

/// Only its owner unlocks a mutex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOwner;

impl Mutex {
    /// A free mutex.
    pub const fn new() -> Self {
        Self { owner: TaskId::NONE, acquired: 0, waiters: WaitQueue::new() }
    }

    /// Who holds it, also if that task has ended.
    pub const fn owner(&self) -> TaskId {
        self.owner
    }

    /// Acquires the mutex for the running task. `handle` is what the shell knows
    /// it by. O(1); O(d log w) if it waits, along a chain of d owners.
    #[inline]
    pub fn lock(&mut self, kernel: &mut Kernel, handle: Handle, patience: Patience) -> Lock {
        if self.owner == TaskId::NONE {
            self.acquire(kernel, handle);
            return Lock::Locked;
        }
        self.lock_owned(kernel, handle, patience)
    }

    fn lock_owned(&mut self, kernel: &mut Kernel, handle: Handle, patience: Patience) -> Lock {
        if self.owner == kernel.current() {
            return Lock::Recursive;
        }
        let Some(owner) = kernel.find(self.owner) else {
            // Had anybody waited, it would have been handed over.
            self.acquire(kernel, handle);
            return Lock::OwnerDied;
        };
        if patience == Patience::None {
            return Lock::Busy;
        }
        let record = kernel.wait_for(patience, Some(&mut self.waiters), 0);
        self.inherit(kernel, record, owner, handle);
        Lock::Waits
    }

    fn acquire(&mut self, kernel: &mut Kernel, handle: Handle) {
        self.owner = kernel.current();
        self.acquired = kernel.next_serial();
        // Between a future's notice and its lock the mutex is free, and yet some
        // may wait.
        if !self.waiters.is_quiet() {
            self.settle(kernel, handle);
        }
    }

    /// Lets the owner inherit from a new waiter.
    fn inherit(&self, kernel: &mut Kernel, record: Index, owner: Index, handle: Handle) {
        match kernel.records[usize::from(record)].owner == owner {
            true => kernel.inherit(record),
            false => kernel.own(record, owner, self.acquired, handle),
        }
    }

    /// Releases the mutex, or hands it over. O(1); O(d log w) if somebody waits.
    ///
    /// # Errors
    ///
    /// [`NotOwner`]
    #[inline]
    pub fn unlock(&mut self, kernel: &mut Kernel) -> Result<(), NotOwner> {
        if self.owner != kernel.current() || self.owner == TaskId::NONE {
            return Err(NotOwner);
        }
        match self.waiters.is_quiet() {
            true => self.owner = TaskId::NONE,
            false => self.hand_over(kernel, Outcome::Granted(0)),
        }
        Ok(())
    }

    /// The owner ends: see [`Kernel::end`].
    pub fn owner_died(&mut self, kernel: &mut Kernel) {
        self.hand_over(kernel, Outcome::OwnerDied);
    }

    fn hand_over(&mut self, kernel: &mut Kernel, outcome: Outcome) {
        // A future that was notified tries again, and is not preferred: it is
        // not the owner until it has.
        while let Some(best) = kernel.best_of(&mut self.waiters) {
            let handle = kernel.live(self.waiters).map(|r| kernel.records[usize::from(r)].handle);
            if kernel.is_proxy(best) {
                kernel.notify(best);
                if outcome == Outcome::OwnerDied {
                    // It stays the dead task's, so that the next to lock is told.
                    continue;
                }
                self.owner = TaskId::NONE;
                self.disown(kernel);
                return;
            }
            kernel.wake(best, outcome);
            self.owner = kernel.slots[usize::from(best)].id;
            self.acquired = kernel.next_serial();
            if let (Some(record), Some(handle)) = (kernel.live(self.waiters), handle) {
                kernel.own(record, best, self.acquired, handle);
            }
            return;
        }
        if outcome != Outcome::OwnerDied {
            self.owner = TaskId::NONE;
        }
    }

    fn disown(&self, kernel: &mut Kernel) {
        if let Some(record) = kernel.live(self.waiters) {
            kernel.disown(record);
        }
    }

    /// Those who wait, for futures.
    pub fn waiters(&mut self) -> &mut WaitQueue {
        &mut self.waiters
    }

    /// A future joined or left the line: whoever holds the mutex inherits from
    /// those who wait now.
    pub fn settle(&mut self, kernel: &mut Kernel, handle: Handle) {
        if let (Some(record), Some(owner)) = (kernel.live(self.waiters), kernel.find(self.owner)) {
            self.inherit(kernel, record, owner, handle);
        }
    }

    /// A notified future has gone: what it was told goes to the next in line.
    pub fn pass_on(&mut self, kernel: &mut Kernel) {
        if self.owner == TaskId::NONE {
            self.hand_over(kernel, Outcome::Granted(0));
        }
    }
}

impl Default for Mutex {
    fn default() -> Self {
        Self::new()
    }
}
