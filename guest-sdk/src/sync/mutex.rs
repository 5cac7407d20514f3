//! A mutex with priority inheritance.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use cellule_rtos as rtos;
use cellule_rtos::{Handle, Lock, NoRoom, Outcome, Patience, TaskId};

use super::{Line, WaitError};
use crate::future::{Operation, Waiting};
use crate::kernel::{Section, SectionCell};
use crate::time::Timeout;

/// A value that one task at a time may use.
///
/// While others wait for it, the task that holds it is as urgent as the most
/// urgent of them, transitively. Not recursive. If a task is killed while it
/// holds a mutex, the next one to lock it is told.
///
/// ```
/// use cellule_guest::sync::{Mutex, Timeout};
/// use cellule_guest::task;
///
/// static TOTAL: Mutex<u32> = Mutex::new(0);
///
/// let tasks: Vec<_> =
///     (1..=10).filter_map(|n| task::spawn(move || *TOTAL.lock(Timeout::Forever).unwrap() += n).ok()).collect();
/// tasks.into_iter().try_for_each(|task| task.join())?;
/// assert_eq!(*TOTAL.try_lock().unwrap(), 55);
/// # Ok::<(), cellule_guest::task::JoinError>(())
/// ```
pub struct Mutex<T: ?Sized> {
    state: SectionCell<rtos::Mutex>,
    value: UnsafeCell<T>,
}

// SAFETY: the state hands out one guard at a time, to one task; the value moves
// between tasks with it, so it must be `Send`.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: without a guard, which borrows it, it is a value like any other.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

/// The right to use a mutex's value; dropping it unlocks.
///
/// ```
/// use cellule_guest::sync::{Mutex, MutexGuard, Timeout};
///
/// static WORDS: Mutex<Vec<&str>> = Mutex::new(Vec::new());
///
/// let mut words: MutexGuard<'_, Vec<&str>> = WORDS.lock(Timeout::Forever).unwrap();
/// words.push("one");
/// drop(words);
/// assert_eq!(WORDS.try_lock().unwrap().len(), 1);
/// ```
#[must_use = "dropped, it unlocks at once"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// A mutex is unlocked by the task that locked it.
    this_task: PhantomData<*mut ()>,
}

/// A mutex could not be locked, or was, but not as it should be.
///
/// ```
/// use cellule_guest::sync::{LockError, Mutex, Timeout};
/// use cellule_guest::task;
///
/// static PAIR: Mutex<(u32, u32)> = Mutex::new((0, 0));
///
/// let killed = task::spawn(|| {
///     let mut pair = PAIR.lock(Timeout::Forever).unwrap();
///     pair.0 = 1;
///     task::current().kill(); // in the midst of it
///     pair.1 = 1;
/// })?;
/// assert!(killed.join().is_err());
/// let pair = match PAIR.lock(Timeout::Forever) {
///     Ok(pair) => pair,
///     Err(LockError::OwnerDied(mut pair)) => {
///         *pair = (0, 0);
///         pair
///     }
///     Err(error) => panic!("{error}"),
/// };
/// assert_eq!(*pair, (0, 0));
/// assert!(matches!(PAIR.try_lock(), Err(LockError::Recursive)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum LockError<'a, T: ?Sized> {
    /// It is locked. The task that held it before ended while it did, and may
    /// have left the value in a state that it should not be in.
    OwnerDied(MutexGuard<'a, T>),
    /// This task holds it already.
    Recursive,
    /// The wait failed.
    Wait(WaitError),
}

/// Only the task that holds a mutex can unlock it.
///
/// ```
/// use cellule_guest::sync::{Mutex, UnlockError};
///
/// static MUTEX: Mutex<u32> = Mutex::new(0);
///
/// core::mem::forget(MUTEX.try_lock());
/// // SAFETY: the guard was forgotten.
/// assert_eq!(unsafe { MUTEX.unlock() }, Ok(()));
/// // SAFETY: there is none.
/// assert_eq!(unsafe { MUTEX.unlock() }, Err(UnlockError));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnlockError;

impl<T> Mutex<T> {
    /// A mutex that nobody holds.
    pub const fn new(value: T) -> Self {
        Self { state: SectionCell::new(rtos::Mutex::new()), value: UnsafeCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks the mutex.
    ///
    /// # Errors
    ///
    /// [`LockError`]. [`LockError::OwnerDied`] has the guard.
    ///
    /// # Blocking
    ///
    /// Until it is handed over or the time is over.
    #[inline]
    pub fn lock(&self, timeout: impl Into<Timeout>) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        // First: a conversion may be a user's code.
        let timeout = timeout.into();
        let mut section = Section::enter();
        let lock = |state: &mut rtos::Mutex, core: &mut crate::kernel::Core| {
            state.lock(core, self.handle(), Patience::None)
        };
        match self.state.with(&mut section, lock) {
            Lock::Locked => Ok(self.guard()),
            other => self.lock_slowly(section, other, timeout),
        }
    }

    #[cold]
    fn lock_slowly(
        &self,
        mut section: Section,
        first: Lock,
        timeout: Timeout,
    ) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        let patience = section.patience(timeout);
        let lock = match first {
            Lock::Busy => self
                .state
                .with(&mut section, |state, core| state.lock(core, self.handle(), patience)),
            other => other,
        };
        match lock {
            Lock::Locked => Ok(self.guard()),
            Lock::OwnerDied => Err(LockError::OwnerDied(self.guard())),
            Lock::Recursive => Err(LockError::Recursive),
            Lock::Busy => Err(LockError::Wait(section.refusal(timeout))),
            Lock::Waits => match section.wait_in(&self.state) {
                Ok(Outcome::OwnerDied) => Err(LockError::OwnerDied(self.guard())),
                Ok(_) => Ok(self.guard()),
                Err(error) => Err(LockError::Wait(error)),
            },
        }
    }

    /// Locks the mutex if nobody holds it.
    ///
    /// # Errors
    ///
    /// As for [`Mutex::lock`]
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, LockError<'_, T>> {
        self.lock(Timeout::Now)
    }

    /// Locks the mutex as a future. The guard is the polling task's.
    ///
    /// Only of a mutex that stays for ever: the scheduler knows it by its address
    /// while a future stands in its line, and a future that is forgotten stands
    /// there for ever.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] and [`LockError::Recursive`]: a task whose
    /// futures lock the same mutex needs one that knows of futures.
    ///
    /// # Blocking
    ///
    /// Dropped before it is ready, it has locked nothing.
    pub fn lock_async(
        &'static self,
    ) -> impl Future<Output = Result<MutexGuard<'static, T>, LockError<'static, T>>> {
        Waiting::new(Locking { mutex: self })
    }

    /// Unlocks a mutex whose guard was forgotten.
    ///
    /// # Errors
    ///
    /// [`UnlockError`] if another task holds it, or none.
    ///
    /// # Safety
    ///
    /// The running task must have no guard of this mutex that it still uses.
    pub unsafe fn unlock(&self) -> Result<(), UnlockError> {
        self.release()
    }

    /// The value, of a mutex that nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[inline]
    fn release(&self) -> Result<(), UnlockError> {
        let mut section = Section::enter();
        let unlocked = self.release_within(&mut section);
        section.reschedule();
        unlocked
    }

    /// Unlocks; the section goes on.
    #[inline]
    pub(super) fn release_within(&self, section: &mut Section) -> Result<(), UnlockError> {
        let unlocked = self.state.with(section, |state, core| state.unlock(core));
        unlocked.map_err(|rtos::NotOwner| UnlockError)
    }

    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, this_task: PhantomData }
    }

    /// What `kernel::core::hand_over` finds the state by.
    #[inline]
    fn handle(&self) -> Handle {
        Handle(self.state.as_ptr().expose_provenance())
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Whose guard it is.
    pub(super) const fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }

    /// The mutex, which stays locked.
    pub(super) fn into_mutex(self) -> &'a Mutex<T> {
        core::mem::ManuallyDrop::new(self).mutex
    }
}

impl Line for SectionCell<rtos::Mutex> {
    fn pass_on(&self, section: &mut Section) {
        self.with(section, |state, core| state.pass_on(core));
    }
}

struct Locking<T: ?Sized + 'static> {
    mutex: &'static Mutex<T>,
}

impl<T: ?Sized> Operation for Locking<T> {
    type Output = Result<MutexGuard<'static, T>, LockError<'static, T>>;

    fn attempt(&mut self, section: &mut Section) -> Option<Self::Output> {
        let mutex = self.mutex;
        let lock = |state: &mut rtos::Mutex, core: &mut crate::kernel::Core| {
            state.lock(core, mutex.handle(), Patience::None)
        };
        match mutex.state.with(section, lock) {
            Lock::Locked => Some(Ok(mutex.guard())),
            Lock::OwnerDied => Some(Err(LockError::OwnerDied(mutex.guard()))),
            Lock::Recursive => Some(Err(LockError::Recursive)),
            Lock::Busy | Lock::Waits => None,
        }
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        let handle = self.mutex.handle();
        self.mutex.state.with(section, |state, core| {
            let place = core.enlist(state.waiters(), 0)?;
            state.settle(core, handle);
            Ok(place)
        })
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        let handle = self.mutex.handle();
        self.mutex.state.with(section, |state, core| {
            core.enlist_again(place, state.waiters());
            state.settle(core, handle);
        });
    }

    fn pass_on(&mut self, section: &mut Section) {
        self.mutex.state.pass_on(section);
    }
}

/// Locking anew what a wait for a condition has unlocked.
struct Relocking<T: ?Sized + 'static>(Locking<T>);

impl<T: ?Sized> Mutex<T> {
    /// Locks it as a future, also while another future of the same task holds it.
    /// The error has the guard of a mutex whose owner has died.
    pub(super) fn lock_again_async(
        &'static self,
    ) -> impl Future<Output = Result<MutexGuard<'static, T>, MutexGuard<'static, T>>> {
        Waiting::new(Relocking(Locking { mutex: self }))
    }
}

impl<T: ?Sized> Operation for Relocking<T> {
    type Output = Result<MutexGuard<'static, T>, MutexGuard<'static, T>>;

    fn attempt(&mut self, section: &mut Section) -> Option<Self::Output> {
        match self.0.attempt(section)? {
            Ok(guard) => Some(Ok(guard)),
            Err(LockError::OwnerDied(guard)) => Some(Err(guard)),
            // The other future will unlock it, and tells this one then.
            Err(LockError::Recursive | LockError::Wait(_)) => None,
        }
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.0.enlist(section)
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.0.enlist_again(section, place);
    }

    fn pass_on(&mut self, section: &mut Section) {
        self.0.pass_on(section);
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this task holds the mutex as long as the guard lives.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; the guard is borrowed exclusively.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // It cannot fail: the guard is this task's.
        let _ = self.mutex.release();
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> fmt::Debug for LockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("OwnerDied"),
            Self::Recursive => f.write_str("Recursive"),
            Self::Wait(error) => f.debug_tuple("Wait").field(error).finish(),
        }
    }
}

impl<T: ?Sized> fmt::Display for LockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("the task that held the mutex has ended"),
            Self::Recursive => f.write_str("this task holds the mutex already"),
            Self::Wait(error) => error.fmt(f),
        }
    }
}

impl<T: ?Sized> core::error::Error for LockError<'_, T> {}

impl fmt::Display for UnlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this task does not hold the mutex")
    }
}

impl core::error::Error for UnlockError {}

#[cfg(test)]
mod tests;
