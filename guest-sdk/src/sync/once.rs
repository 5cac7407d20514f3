//! Values that are made once, by whoever asks first.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};

use super::WaitError;
use super::mutex::{LockError, Mutex, MutexGuard};
use crate::time::Timeout;

/// A value that is set once, and only read from then on.
///
/// While one task makes it, others that ask wait, and lend that task their
/// priority. If the task ends before it is done, the next one makes the value.
///
/// ```
/// use cellule_guest::sync::OnceLock;
/// use cellule_guest::task;
///
/// static GREETING: OnceLock<String> = OnceLock::new();
///
/// assert_eq!(GREETING.get(), None);
/// let other = task::spawn(|| GREETING.get_or_init(|| "hello".to_string()).len())?;
/// assert_eq!(other.join()?, 5);
/// assert_eq!(GREETING.get_or_init(|| "too late".to_string()), "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OnceLock<T> {
    /// Whether the value is there, for good.
    done: AtomicBool,
    /// Whoever makes the value has this. A mutex knows all that is needed: who
    /// holds it, who waits, that its owner died, and that a task asks itself.
    making: Mutex<()>,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written once, by the task that holds `making`, before
// `done`; from then on it is shared, and so `Sync`; one task may make what
// another one drops, and so `Send`.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

/// A value was not made.
///
/// ```
/// use cellule_guest::sync::{InitError, OnceLock};
///
/// static VALUE: OnceLock<u32> = OnceLock::new();
/// let value = VALUE.try_get_or_init(|| {
///     assert_eq!(VALUE.try_get_or_init(|| 1), Err(InitError::Recursive));
///     2
/// });
/// assert_eq!(value, Ok(&2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// The function that makes the value asked for it.
    Recursive,
    /// Another task is making it, and this one may not wait.
    Wait(WaitError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recursive => f.write_str("the value is needed to make itself"),
            Self::Wait(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InitError {}

impl<T> OnceLock<T> {
    /// Without a value.
    pub const fn new() -> Self {
        Self {
            done: AtomicBool::new(false),
            making: Mutex::new(()),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if it is there.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.done.load(Ordering::Acquire).then(|| {
            // SAFETY: `done`: nobody writes it any more.
            let value = unsafe { &*self.value.get() };
            // SAFETY: `done`: it was written.
            unsafe { value.assume_init_ref() }
        })
    }

    /// Sets the value.
    ///
    /// # Errors
    ///
    /// The value, if there is one already; or if another task is just making it
    /// and this one may not wait, or is the one that makes it.
    ///
    /// # Blocking
    ///
    /// While another task makes the value.
    pub fn set(&self, value: T) -> Result<(), T> {
        match self.enter() {
            Ok(None) | Err(_) => Err(value),
            Ok(Some(making)) => {
                self.finish(making, value);
                Ok(())
            }
        }
    }

    /// The value, which `make` makes if it is not there yet.
    ///
    /// # Panics
    ///
    /// Where [`OnceLock::try_get_or_init`] gives an error.
    ///
    /// # Blocking
    ///
    /// While another task makes the value.
    #[inline]
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        match self.get() {
            Some(value) => value,
            None => self.try_get_or_init(make).unwrap_or_else(refuse),
        }
    }

    /// The value, which `make` makes if it is not there yet.
    ///
    /// # Errors
    ///
    /// [`InitError`]; the function was not called.
    ///
    /// # Blocking
    ///
    /// While another task makes the value.
    pub fn try_get_or_init(&self, make: impl FnOnce() -> T) -> Result<&T, InitError> {
        loop {
            if let Some(value) = self.get() {
                return Ok(value);
            }
            if let Some(making) = self.enter()? {
                self.finish(making, make());
                break;
            }
        }
        self.get().ok_or(InitError::Recursive)
    }

    /// The right to make the value; `None` if it is there.
    fn enter(&self) -> Result<Option<MutexGuard<'_, ()>>, InitError> {
        loop {
            let making = match self.making.lock(Timeout::Forever) {
                // Whoever ended has made nothing, or `done` is true.
                Ok(making) | Err(LockError::OwnerDied(making)) => making,
                Err(LockError::Recursive) => return Err(InitError::Recursive),
                // Without a value there is nothing to go on with.
                Err(LockError::Wait(WaitError::Cancelled)) => continue,
                Err(LockError::Wait(error)) => return Err(InitError::Wait(error)),
            };
            return Ok((!self.done.load(Ordering::Acquire)).then_some(making));
        }
    }

    fn finish(&self, making: MutexGuard<'_, ()>, value: T) {
        // SAFETY: the pointer is an `UnsafeCell`'s. `making` is this task's and
        // `done` is false, so that there is no other reference.
        unsafe { (*self.value.get()).write(value) };
        self.done.store(true, Ordering::Release);
        drop(making);
    }

    /// The value, of a cell that nobody else can reach.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        match *self.done.get_mut() {
            // SAFETY: `done`: it was written.
            true => Some(unsafe { self.value.get_mut().assume_init_mut() }),
            false => None,
        }
    }
}

#[cold]
#[expect(clippy::panic, reason = "documented; a guest's panic ends the guest alone")]
fn refuse<T>(error: InitError) -> T {
    panic!("a value that is made once was not made: {error}")
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        if *self.done.get_mut() {
            // SAFETY: `done`: it was written; it is not used after this.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceLock").field(&self.get()).finish()
    }
}

/// Something that is done once.
///
/// ```
/// use cellule_guest::sync::Once;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// static SETUP: Once = Once::new();
/// static COUNT: AtomicU32 = AtomicU32::new(0);
///
/// for _ in 0..3 {
///     SETUP.call_once(|| { COUNT.fetch_add(1, Ordering::Relaxed); });
/// }
/// assert!(SETUP.is_completed());
/// assert_eq!(COUNT.load(Ordering::Relaxed), 1);
/// ```
#[derive(Debug, Default)]
pub struct Once {
    done: OnceLock<()>,
}

impl Once {
    /// Not done yet.
    pub const fn new() -> Self {
        Self { done: OnceLock::new() }
    }

    /// Calls the function, if none was called to its end before.
    ///
    /// # Panics
    ///
    /// If the function comes here itself, or where another task is calling one
    /// and this one may not wait.
    ///
    /// # Blocking
    ///
    /// While another task calls one.
    #[inline]
    pub fn call_once(&self, function: impl FnOnce()) {
        self.done.get_or_init(function);
    }

    /// Calls the function, if none was called to its end before.
    ///
    /// # Errors
    ///
    /// [`InitError`]; the function was not called.
    ///
    /// # Blocking
    ///
    /// While another task calls one.
    pub fn try_call_once(&self, function: impl FnOnce()) -> Result<(), InitError> {
        self.done.try_get_or_init(function).copied()
    }

    /// Whether it is done.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.done.get().is_some()
    }
}

/// A value that is made when it is first used.
///
/// ```
/// use cellule_guest::sync::Lazy;
///
/// static SQUARES: Lazy<Vec<u32>> = Lazy::new(|| (0..10).map(|n| n * n).collect());
/// assert_eq!(SQUARES[9], 81);
/// ```
pub struct Lazy<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// `Fn`: if a task ends in it, another one calls it again.
    make: F,
}

impl<T, F: Fn() -> T> Lazy<T, F> {
    /// A value that `make` will make.
    pub const fn new(make: F) -> Self {
        Self { value: OnceLock::new(), make }
    }

    /// Makes the value, if it is not there yet.
    ///
    /// # Panics
    ///
    /// As [`OnceLock::get_or_init`]. Dereferencing does too.
    ///
    /// # Blocking
    ///
    /// While another task makes the value.
    #[inline]
    pub fn force(this: &Self) -> &T {
        this.value.get_or_init(&this.make)
    }
}

impl<T, F: Fn() -> T> Deref for Lazy<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        Self::force(self)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Lazy<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lazy").field(&self.value.get()).finish()
    }
}

#[cfg(test)]
mod tests;
