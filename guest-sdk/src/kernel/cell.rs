//! `SectionCell`: state of an object that tasks share.

use core::cell::UnsafeCell;

use super::{Core, Section};

/// A value that is reached only within a [`Section`], together with the kernel.
#[derive(Debug, Default)]
pub(crate) struct SectionCell<T>(UnsafeCell<T>);

// SAFETY: a section excludes every other context of the guest (`Section`), and
// so the references that `with` gives do not overlap; `T: Send` because each
// may be used by another task.
unsafe impl<T: Send> Sync for SectionCell<T> {}

impl<T> SectionCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Lets `user` use the value and the kernel.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        section: &mut Section,
        user: impl FnOnce(&mut T, &mut Core) -> R,
    ) -> R {
        // SAFETY: the pointer is an `UnsafeCell`'s, so valid. The section is
        // borrowed for as long as the reference lives and only one exists
        // (`Section::enter`); `user` gets no section, so it cannot come here.
        user(unsafe { &mut *self.0.get() }, section)
    }

    /// The value, which nobody else can reach.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// The address of the value.
    pub(crate) const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}
