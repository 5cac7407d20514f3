//! A bounded queue whose size is known when it is made.

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use cellule_rtos as rtos;

use super::WaitError;
use super::queue::{Ring, SendError, operations};
use crate::kernel::SectionCell;
use crate::time::Timeout;

/// A [`Queue`](super::Queue) with places on the heap.
///
/// ```
/// use cellule_guest::sync::{CreateError, HeapQueue, OnceLock, Timeout};
/// use cellule_guest::task;
///
/// static JOBS: OnceLock<HeapQueue<u32>> = OnceLock::new();
///
/// let (jobs, size) = (HeapQueue::new(8)?, 8);
/// let jobs = JOBS.get_or_init(|| jobs);
/// assert_eq!(jobs.capacity(), size);
/// let worker = task::spawn(|| jobs.receive(Timeout::Forever))?;
/// jobs.try_send(7)?;
/// assert_eq!(worker.join()??, 7);
///
/// assert_eq!(HeapQueue::<u32>::new(0).unwrap_err(), CreateError::ZeroCapacity);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HeapQueue<T> {
    state: SectionCell<rtos::Queue>,
    /// As many as the capacity, which is less than 2^32.
    places: Vec<UnsafeCell<MaybeUninit<T>>>,
}

// SAFETY: the places are reached within a section only, by one context at a time;
// items move between tasks, so they must be `Send`.
unsafe impl<T: Send> Sync for HeapQueue<T> {}

/// A queue could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// It would have room for nothing.
    ZeroCapacity,
    /// There is no memory for so many places.
    NoMemory {
        /// How many items it was to have room for.
        capacity: usize,
    },
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroCapacity => f.write_str("a queue must have room for an item"),
            Self::NoMemory { capacity } => {
                write!(f, "no memory for a queue of {capacity} items")
            }
        }
    }
}

impl core::error::Error for CreateError {}

impl<T> HeapQueue<T> {
    /// An empty queue with room for `capacity` items.
    ///
    /// # Errors
    ///
    /// [`CreateError`]
    ///
    /// # Cost
    ///
    /// One allocation, the only one.
    pub fn new(capacity: usize) -> Result<Self, CreateError> {
        if capacity == 0 {
            return Err(CreateError::ZeroCapacity);
        }
        let mut places = Vec::new();
        let countable = u32::try_from(capacity).is_ok_and(|capacity| capacity < u32::MAX);
        if !countable || places.try_reserve_exact(capacity).is_err() {
            return Err(CreateError::NoMemory { capacity });
        }
        places.resize_with(capacity, || UnsafeCell::new(MaybeUninit::uninit()));
        Ok(Self { state: SectionCell::new(rtos::Queue::new()), places })
    }

    operations!();

    /// How many items fit.
    pub const fn capacity(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn ring(&self) -> Ring<'_, T> {
        let places = NonNull::from(self.places.as_slice()).cast();
        #[expect(clippy::cast_possible_truncation, reason = "less than 2^32, see `new`")]
        let capacity = self.places.len() as u32;
        Ring { state: &self.state, places, capacity }
    }
}

impl<T> Drop for HeapQueue<T> {
    fn drop(&mut self) {
        self.ring().clear();
    }
}

impl<T> fmt::Debug for HeapQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapQueue").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
