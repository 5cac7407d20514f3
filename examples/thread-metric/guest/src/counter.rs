//! Counters of which each has one writer.

use core::sync::atomic::{AtomicU64, Ordering};

/// What a test counts, as many as it needs: one for each task, in order of their
/// priority, and the last one for its interrupt handler.
pub(crate) static COUNTERS: [Counter; 5] = [const { Counter::new() }; 5];

/// Operations that did not do what they should.
pub(crate) static FAULTS: Counter = Counter::new();

/// A counter. A load and a store, as there is one processor and one writer, and
/// not the locked instruction of `fetch_add`, which would be most of some tests.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn count(&self) {
        self.0.store(self.value() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
