//! The one lock of a guest's runtime.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::port;

/// A value that one caller at a time may use, and that nobody waits for.
///
/// Upcalls are masked while it is in use, so no other task can find it in use:
/// whoever does is called, however indirectly, by its user, and would wait for
/// ever.
pub(crate) struct Exclusive<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `try_with` hands out one `&mut T` at a time, whatever threads there
// are: the swap of `busy` admits one, and Acquire and Release order their
// accesses. `T: Send` because each may come from another thread.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { busy: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Lets `user` use the value; `None` if it is in use.
    pub(crate) fn try_with<R>(&self, user: impl FnOnce(&mut T) -> R) -> Option<R> {
        let masked = port::mask();
        let result = (!self.busy.swap(true, Ordering::Acquire)).then(|| {
            // SAFETY: the pointer is an `UnsafeCell`'s, so valid; `busy` was false
            // and is now true, so that no other reference exists until the store.
            let result = user(unsafe { &mut *self.value.get() });
            self.busy.store(false, Ordering::Release);
            result
        });
        if !masked {
            port::unmask();
        }
        result
    }

    /// Lets `user` use the value.
    ///
    /// # Panics
    ///
    /// If it is in use.
    #[expect(clippy::panic, reason = "a guest's panic ends the guest alone")]
    pub(crate) fn with<R>(&self, user: impl FnOnce(&mut T) -> R) -> R {
        self.try_with(user).unwrap_or_else(|| panic!("the guest's runtime was entered twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_use_is_not_handed_out_again() {
        let number = Exclusive::new(1);
        number.with(|value| {
            *value += 1;
            assert_eq!(number.try_with(|_| ()), None);
        });
        assert_eq!(number.try_with(|value| *value), Some(2));
    }
}
