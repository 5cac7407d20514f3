//! A condition variable.

use core::fmt;

use cellule_rtos as rtos;
use cellule_rtos::{NoRoom, Patience, TaskId};

use super::mutex::{LockError, Mutex, MutexGuard};
use super::{Line, WaitError};
use crate::future::{Announcement, Listening};
use crate::kernel::{self, Section, SectionCell};
use crate::time::Timeout;

/// Where tasks wait, without the mutex that they hold, until told that something
/// has changed.
///
/// ```
/// use cellule_guest::sync::{Condvar, Mutex, Timeout};
/// use cellule_guest::task;
///
/// static READY: Mutex<bool> = Mutex::new(false);
/// static CHANGED: Condvar = Condvar::new();
///
/// let waiter = task::spawn(|| {
///     let ready = READY.lock(Timeout::Forever).unwrap();
///     let ready = CHANGED.wait_while(ready, |ready| !*ready, Timeout::Forever);
///     ready.is_ok_and(|ready| *ready)
/// })?;
/// task::yield_now(); // it waits
/// *READY.lock(Timeout::Forever).unwrap() = true;
/// CHANGED.notify_one();
/// assert!(waiter.join()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Condvar {
    state: SectionCell<rtos::Condition>,
}

/// A wait for a condition ended otherwise than by a notification, or what the
/// mutex guards may be broken. The guard is here.
///
/// ```
/// use cellule_guest::sync::{Condvar, CondvarError, Mutex, WaitError};
/// use cellule_guest::time::Duration;
///
/// static READY: Mutex<bool> = Mutex::new(false);
/// static CHANGED: Condvar = Condvar::new();
///
/// let ready = READY.try_lock().unwrap();
/// let error = CHANGED.wait(ready, Duration::from_secs(1)).unwrap_err();
/// assert!(matches!(error, CondvarError::Wait(_, WaitError::TimedOut)));
/// assert!(!*error.into_guard());
/// ```
#[non_exhaustive]
pub enum CondvarError<'a, T: ?Sized> {
    /// Nobody notified it.
    Wait(MutexGuard<'a, T>, WaitError),
    /// Another task ended while it held the mutex, and may have left the value in
    /// a state that it should not be in. How the wait itself ended is the second.
    OwnerDied(MutexGuard<'a, T>, Result<(), WaitError>),
}

impl<'a, T: ?Sized> CondvarError<'a, T> {
    /// The guard, whatever went wrong.
    pub fn into_guard(self) -> MutexGuard<'a, T> {
        match self {
            Self::Wait(guard, _) | Self::OwnerDied(guard, _) => guard,
        }
    }
}

impl Condvar {
    /// A condition that nobody waits for.
    pub const fn new() -> Self {
        Self { state: SectionCell::new(rtos::Condition::new()) }
    }

    /// Unlocks the mutex and waits, with nothing in between; when it returns, in
    /// whatever way, the mutex is locked again.
    ///
    /// There are no spurious wakes, but by the time that the mutex is locked the
    /// condition may be another: see [`Condvar::wait_while`].
    ///
    /// # Errors
    ///
    /// [`CondvarError`] has the guard. Where it does not wait at all
    /// ([`WaitError::WouldBlock`], [`WaitError::WrongContext`], a time that is
    /// over), the mutex stays locked all along.
    ///
    /// # Blocking
    ///
    /// Until it is notified or the time is over; then until the mutex is free,
    /// however long that takes.
    pub fn wait<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: impl Into<Timeout>,
    ) -> Result<MutexGuard<'a, T>, CondvarError<'a, T>> {
        let timeout = timeout.into();
        let mut section = Section::enter();
        let patience = section.patience(timeout);
        if patience == Patience::None {
            let reason = section.refusal(timeout);
            drop(section);
            return Err(CondvarError::Wait(guard, reason));
        }
        let mutex = guard.into_mutex();
        // It cannot fail: the guard was this task's.
        let _ = mutex.release_within(&mut section);
        self.state.with(&mut section, |state, core| state.wait(core, patience));
        lock_again(mutex, section.wait_in(&self.state).map(|_| ()))
    }

    /// Waits while `condition` says so.
    ///
    /// # Errors
    ///
    /// As for [`Condvar::wait`]
    ///
    /// # Blocking
    ///
    /// As for [`Condvar::wait`]; the timeout is for all of it.
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        timeout: impl Into<Timeout>,
    ) -> Result<MutexGuard<'a, T>, CondvarError<'a, T>> {
        let timeout = match timeout.into() {
            Timeout::After(duration) if !duration.is_zero() => {
                Timeout::At(kernel::now() + duration)
            }
            other => other,
        };
        while condition(&mut guard) {
            guard = self.wait(guard, timeout)?;
        }
        Ok(guard)
    }

    /// Waits as a future, as [`Condvar::wait`]: the mutex is unlocked when it is
    /// first polled, and locked again before it is ready.
    ///
    /// Only with a mutex that stays for ever: see [`Mutex::lock_async`].
    ///
    /// ```
    /// use cellule_guest::future::block_on;
    /// use cellule_guest::sync::{Condvar, Mutex, Timeout};
    /// use cellule_guest::task;
    ///
    /// static READY: Mutex<bool> = Mutex::new(false);
    /// static CHANGED: Condvar = Condvar::new();
    ///
    /// let waiter = task::spawn(|| {
    ///     block_on(async {
    ///         let mut ready = READY.lock_async().await.unwrap();
    ///         while !*ready {
    ///             ready = CHANGED.wait_async(ready).await.unwrap();
    ///         }
    ///     })
    /// })?;
    /// task::yield_now(); // it waits
    /// *READY.lock(Timeout::Forever).unwrap() = true;
    /// CHANGED.notify_one();
    /// waiter.join()??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CondvarError::OwnerDied`]
    ///
    /// # Blocking
    ///
    /// Dropped, it leaves the mutex unlocked; if it was the one that
    /// [`Condvar::notify_one`] told, the next in line is told.
    pub async fn wait_async<T: ?Sized>(
        &self,
        guard: MutexGuard<'static, T>,
    ) -> Result<MutexGuard<'static, T>, CondvarError<'static, T>> {
        let mutex = guard.mutex();
        Listening::new(Changing { condvar: self, guard: Some(guard) }).await;
        let locked = mutex.lock_again_async().await;
        locked.map_err(|guard| CondvarError::OwnerDied(guard, Ok(())))
    }

    /// Wakes the task that is first in line. Nothing is remembered: without one,
    /// nothing happens.
    pub fn notify_one(&self) {
        let mut section = Section::enter();
        self.state.pass_on(&mut section);
        section.reschedule();
    }

    /// Wakes all tasks that wait.
    ///
    /// # Cost
    ///
    /// O(w log w) for w waiters.
    pub fn notify_all(&self) {
        let mut section = Section::enter();
        self.state.with(&mut section, |state, core| state.notify_all(core));
        section.reschedule();
    }
}

/// What the one is told that [`Condvar::notify_one`] wakes. Who is told with all
/// others is told zero.
const ALONE: u64 = 1;

impl Line for SectionCell<rtos::Condition> {
    fn pass_on(&self, section: &mut Section) {
        self.with(section, |state, core| state.notify_one_of(core, ALONE));
    }
}

struct Changing<'a, T: ?Sized + 'static> {
    condvar: &'a Condvar,
    /// Until it waits.
    guard: Option<MutexGuard<'static, T>>,
}

impl<T: ?Sized> Announcement for Changing<'_, T> {
    fn attempt(&mut self, _: &mut Section) -> Option<u64> {
        None
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        let enlist =
            |state: &mut rtos::Condition, core: &mut kernel::Core| core.enlist(state.waiters(), 0);
        let place = self.condvar.state.with(section, enlist)?;
        if let Some(guard) = self.guard.take() {
            // It cannot fail: the guard was this task's.
            let _ = guard.into_mutex().release_within(section);
        }
        Ok(place)
    }

    fn unheard(&mut self, section: &mut Section, number: u64) {
        if number == ALONE {
            self.condvar.state.pass_on(section);
        }
    }
}

/// Locks the mutex whatever happens: a wait that is called off is begun again.
fn lock_again<'a, T: ?Sized>(
    mutex: &'a Mutex<T>,
    waited: Result<(), WaitError>,
) -> Result<MutexGuard<'a, T>, CondvarError<'a, T>> {
    loop {
        match (mutex.lock(Timeout::Forever), waited) {
            (Ok(guard), Ok(())) => return Ok(guard),
            (Ok(guard), Err(reason)) => return Err(CondvarError::Wait(guard, reason)),
            (Err(LockError::OwnerDied(guard)), waited) => {
                return Err(CondvarError::OwnerDied(guard, waited));
            }
            (Err(LockError::Recursive | LockError::Wait(_)), _) => {}
        }
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized> fmt::Debug for CondvarError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(_, reason) => f.debug_tuple("Wait").field(reason).finish_non_exhaustive(),
            Self::OwnerDied(_, waited) => {
                f.debug_tuple("OwnerDied").field(waited).finish_non_exhaustive()
            }
        }
    }
}

impl<T: ?Sized> fmt::Display for CondvarError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(_, reason) => reason.fmt(f),
            Self::OwnerDied(..) => f.write_str("the task that held the mutex has ended"),
        }
    }
}

impl<T: ?Sized> core::error::Error for CondvarError<'_, T> {}

#[cfg(test)]
mod tests;
