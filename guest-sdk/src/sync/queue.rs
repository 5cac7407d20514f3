//! A bounded queue, and what it shares with the one of run-time size.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use cellule_rtos as rtos;
use cellule_rtos::{Get, NoRoom, Patience, Put, TaskId};

use super::{Line, WaitError};
use crate::future::{Operation, Waiting};
use crate::kernel::{Section, SectionCell};
use crate::time::Timeout;

/// A queue of at most `N` items, first in, first out.
///
/// An item that is sent while a task waits to receive goes straight to that
/// task; room that is made while one waits to send is filled with its item.
/// Items that are left are dropped with the queue.
///
/// ```
/// use cellule_guest::sync::{Queue, Timeout, WaitError};
/// use cellule_guest::task;
///
/// static WORDS: Queue<&str, 2> = Queue::new();
///
/// let printer = task::spawn(|| [WORDS.receive(Timeout::Forever), WORDS.receive(Timeout::Forever)])?;
/// WORDS.send("hello", Timeout::Forever)?;
/// WORDS.send("world", Timeout::Forever)?;
/// assert_eq!(printer.join()?, [Ok("hello"), Ok("world")]);
///
/// // What does not fit comes back.
/// WORDS.try_send("a")?;
/// WORDS.try_send("b")?;
/// let refused = WORDS.try_send("c").unwrap_err();
/// assert_eq!((refused.value, refused.reason), ("c", WaitError::WouldBlock));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A queue without room is no queue; for that, see [`crate::message::Port`].
///
/// ```compile_fail
/// use cellule_guest::sync::Queue;
/// static NONE: Queue<u32, 0> = Queue::new();
/// ```
pub struct Queue<T, const N: usize> {
    state: SectionCell<rtos::Queue>,
    places: UnsafeCell<[MaybeUninit<T>; N]>,
}

// SAFETY: the places are reached within a section only, by one context at a time;
// items move between tasks, so they must be `Send`.
unsafe impl<T: Send, const N: usize> Sync for Queue<T, N> {}

/// A value was not sent: it is here.
///
/// ```
/// use cellule_guest::sync::{Queue, WaitError};
/// use cellule_guest::time::Duration;
///
/// static LINES: Queue<String, 1> = Queue::new();
///
/// LINES.try_send("first".to_string())?;
/// let refused = LINES.send("second".to_string(), Duration::from_secs(1)).unwrap_err();
/// assert_eq!((refused.value.as_str(), refused.reason), ("second", WaitError::TimedOut));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T> {
    /// What was to be sent.
    pub value: T,
    /// Why it was not.
    pub reason: WaitError,
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not sent: {}", self.reason)
    }
}

impl<T> core::error::Error for SendError<T> {}

impl<T, const N: usize> Queue<T, N> {
    /// How many items fit, as the state counts them.
    const CAPACITY: u32 = {
        assert!(N > 0, "a queue must have room for an item: see `message::Port`");
        assert!(N < u32::MAX as usize, "a queue has at most 2^32 - 2 places");
        #[expect(clippy::cast_possible_truncation, reason = "asserted right here")]
        let capacity = N as u32;
        capacity
    };

    /// An empty queue.
    pub const fn new() -> Self {
        const { assert!(Self::CAPACITY > 0) };
        Self {
            state: SectionCell::new(rtos::Queue::new()),
            places: UnsafeCell::new([const { MaybeUninit::uninit() }; N]),
        }
    }

    #[inline]
    const fn ring(&self) -> Ring<'_, T> {
        // SAFETY: an `UnsafeCell`'s pointer is not null.
        let places = unsafe { NonNull::new_unchecked(self.places.get()) };
        Ring { state: &self.state, places: places.cast(), capacity: Self::CAPACITY }
    }
}

/// Writes the operations of a queue that has a `ring`.
macro_rules! operations {
    () => {
        /// Appends an item, or gives it to the task that waits for one.
        ///
        /// # Errors
        ///
        /// [`SendError`] has the value back.
        ///
        /// # Blocking
        ///
        /// Until there is room or the time is over.
        #[inline]
        pub fn send(&self, value: T, timeout: impl Into<Timeout>) -> Result<(), SendError<T>> {
            self.ring().send(value, timeout.into())
        }

        /// Appends an item if there is room.
        ///
        /// # Errors
        ///
        /// [`SendError`] with [`WaitError::WouldBlock`], and the value.
        #[inline]
        pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
            self.ring().send(value, Timeout::Now)
        }

        /// Removes the first item.
        ///
        /// # Errors
        ///
        /// [`WaitError`]: there was none.
        ///
        /// # Blocking
        ///
        /// Until there is an item or the time is over.
        #[inline]
        pub fn receive(&self, timeout: impl Into<Timeout>) -> Result<T, WaitError> {
            self.ring().receive(timeout.into())
        }

        /// Removes the first item if there is one.
        ///
        /// # Errors
        ///
        /// [`WaitError::WouldBlock`]
        #[inline]
        pub fn try_receive(&self) -> Result<T, WaitError> {
            self.ring().receive(Timeout::Now)
        }

        /// Sends as a future.
        ///
        /// # Blocking
        ///
        /// Dropped before it is ready, it has not sent, and drops the value.
        pub fn send_async(&self, value: T) -> impl Future<Output = ()> {
            self.ring().send_async(value)
        }

        /// Receives as a future.
        ///
        /// # Blocking
        ///
        /// Dropped before it is ready, it has taken nothing.
        pub fn receive_async(&self) -> impl Future<Output = T> {
            self.ring().receive_async()
        }

        /// How many items there are.
        #[inline]
        pub fn len(&self) -> usize {
            self.ring().len()
        }

        /// Whether there is none.
        #[inline]
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }
    };
}
pub(super) use operations;

impl<T, const N: usize> Queue<T, N> {
    operations!();

    /// How many items fit.
    pub const fn capacity(&self) -> usize {
        N
    }
}

impl<T, const N: usize> Default for Queue<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Drop for Queue<T, N> {
    fn drop(&mut self) {
        self.ring().clear();
    }
}

impl<T, const N: usize> fmt::Debug for Queue<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("capacity", &N).finish_non_exhaustive()
    }
}

/// A queue, wherever its places are.
pub(super) struct Ring<'a, T> {
    pub(super) state: &'a SectionCell<rtos::Queue>,
    /// So many places, which this queue alone uses, within sections.
    pub(super) places: NonNull<MaybeUninit<T>>,
    pub(super) capacity: u32,
}

impl<T> Clone for Ring<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ring<'_, T> {}

// SAFETY: it is used within sections only; items move between tasks with it.
unsafe impl<T: Send> Send for Ring<'_, T> {}

impl<T> Ring<'_, T> {
    #[inline]
    pub(super) fn send(self, value: T, timeout: Timeout) -> Result<(), SendError<T>> {
        let mut section = Section::enter();
        match self.put(&mut section, Patience::None) {
            Put::Store(place) => {
                self.store(place, value);
                section.leave();
                Ok(())
            }
            Put::Deliver(task) => {
                deliver(&mut section, task, value);
                section.reschedule();
                Ok(())
            }
            Put::Busy | Put::Waits => self.send_slowly(section, value, timeout),
        }
    }

    #[cold]
    fn send_slowly(
        self,
        mut section: Section,
        value: T,
        timeout: Timeout,
    ) -> Result<(), SendError<T>> {
        let patience = section.patience(timeout);
        // There was no room a moment ago, in this section: it waits, or is refused.
        if self.put(&mut section, patience) != Put::Waits {
            return Err(SendError { value, reason: section.refusal(timeout) });
        }
        let mut item = MaybeUninit::new(value);
        section.set_item(&raw mut item);
        match section.wait_in(&Senders(self)) {
            // Moved out by whoever made room.
            Ok(_) => Ok(()),
            // SAFETY: the wait ended otherwise, so nobody took it.
            Err(reason) => Err(SendError { value: unsafe { item.assume_init() }, reason }),
        }
    }

    #[inline]
    pub(super) fn receive(self, timeout: Timeout) -> Result<T, WaitError> {
        let mut section = Section::enter();
        match self.get(&mut section, Patience::None) {
            Get::Take(place, None) => {
                let value = self.load(place);
                section.leave();
                Ok(value)
            }
            Get::Take(place, refill) => {
                let value = self.load(place);
                self.refill(&mut section, refill);
                section.reschedule();
                Ok(value)
            }
            Get::Busy | Get::Waits => self.receive_slowly(section, timeout),
        }
    }

    #[cold]
    fn receive_slowly(self, mut section: Section, timeout: Timeout) -> Result<T, WaitError> {
        let patience = section.patience(timeout);
        if self.get(&mut section, patience) != Get::Waits {
            return Err(section.refusal(timeout));
        }
        let mut item = MaybeUninit::<T>::uninit();
        section.set_item(&raw mut item);
        section.wait_in(&Receivers(self))?;
        // SAFETY: the wait was granted, by `deliver`, which wrote it.
        Ok(unsafe { item.assume_init() })
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        self.state.with(&mut Section::enter(), |state, _| state.len() as usize)
    }

    /// Drops all items; for a queue that is dropped itself.
    pub(super) fn clear(self) {
        // The drop of an item is a user's code: not in a section.
        while let Ok(item) = self.receive(Timeout::Now) {
            drop(item);
        }
    }

    pub(super) fn send_async(self, value: T) -> impl Future<Output = ()> {
        Waiting::new(Sending { ring: self, value: Some(value) })
    }

    pub(super) fn receive_async(self) -> impl Future<Output = T> {
        Waiting::new(Receiving { ring: self })
    }

    #[inline]
    fn put(self, section: &mut Section, patience: Patience) -> Put {
        self.state.with(section, |state, core| state.put(core, self.capacity, patience))
    }

    #[inline]
    fn get(self, section: &mut Section, patience: Patience) -> Get {
        self.state.with(section, |state, core| state.get(core, self.capacity, patience))
    }

    /// Writes an item into a place that `rtos::Queue` chose: a free one.
    #[inline]
    fn store(self, place: u32, value: T) {
        // SAFETY: `place` is less than the capacity, and so in the allocation.
        let place = unsafe { self.places.add(place as usize) };
        // SAFETY: valid and aligned, as part of an array; within a section.
        unsafe { place.write(MaybeUninit::new(value)) };
    }

    /// Moves the item out of a place that `rtos::Queue` chose: one in use.
    #[inline]
    fn load(self, place: u32) -> T {
        // SAFETY: `place` is less than the capacity, and so in the allocation.
        let place = unsafe { self.places.add(place as usize) };
        // SAFETY: valid and aligned, as part of an array; within a section.
        let item = unsafe { place.read() };
        // SAFETY: `store` wrote it, and the state gives it out once.
        unsafe { item.assume_init() }
    }

    /// Moves a waiting sender's item into the place that has become free.
    #[inline]
    fn refill(self, section: &mut Section, refill: Option<(TaskId, u32)>) {
        if let Some((sender, place)) = refill {
            let item = section.item::<T>(sender);
            // SAFETY: the task was just woken from `send_slowly` of this queue,
            // where it noted its item, a `T`, and has not run since.
            self.store(place, unsafe { item.read() });
        }
    }
}

/// Moves an item to a task that was just chosen to receive it.
#[inline]
fn deliver<T>(section: &mut Section, task: TaskId, value: T) {
    let item = section.item::<T>(task);
    // SAFETY: the task was just woken from `receive_slowly` of this queue, where
    // it noted its place for a `T`, and has not run since.
    unsafe { item.write(value) };
}

/// Those who wait to put an item into a queue.
struct Senders<'a, T>(Ring<'a, T>);

impl<T> Line for Senders<'_, T> {
    fn pass_on(&self, section: &mut Section) {
        let Ring { state, capacity, .. } = self.0;
        while let Some((sender, put)) =
            state.with(section, |state, core| state.pass_room_on(core, capacity))
        {
            let item = section.item::<T>(sender);
            // SAFETY: the task was just woken from `send_slowly` of this queue,
            // where it noted its item, a `T`, and has not run since.
            let value = unsafe { item.read() };
            match put {
                Put::Store(place) => self.0.store(place, value),
                Put::Deliver(task) => deliver(section, task, value),
                // There was room, and no patience to wait with.
                Put::Busy | Put::Waits => debug_assert!(false, "the item is lost"),
            }
        }
    }
}

/// Those who wait to get an item out of a queue.
struct Receivers<'a, T>(Ring<'a, T>);

impl<T> Line for Receivers<'_, T> {
    fn pass_on(&self, section: &mut Section) {
        let Ring { state, capacity, .. } = self.0;
        while let Some((task, Get::Take(place, refill))) =
            state.with(section, |state, core| state.pass_item_on(core, capacity))
        {
            deliver(section, task, self.0.load(place));
            self.0.refill(section, refill);
        }
    }
}

struct Sending<'a, T> {
    ring: Ring<'a, T>,
    value: Option<T>,
}

impl<T> Operation for Sending<'_, T> {
    type Output = ();

    fn attempt(&mut self, section: &mut Section) -> Option<()> {
        let value = self.value.take()?;
        match self.ring.put(section, Patience::None) {
            Put::Store(place) => self.ring.store(place, value),
            Put::Deliver(task) => deliver(section, task, value),
            Put::Busy | Put::Waits => {
                self.value = Some(value);
                return None;
            }
        }
        Some(())
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.ring.state.with(section, |state, core| core.enlist(state.senders(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.ring.state.with(section, |state, core| core.enlist_again(place, state.senders()));
    }

    fn pass_on(&mut self, section: &mut Section) {
        Senders(self.ring).pass_on(section);
    }
}

struct Receiving<'a, T> {
    ring: Ring<'a, T>,
}

impl<T> Operation for Receiving<'_, T> {
    type Output = T;

    fn attempt(&mut self, section: &mut Section) -> Option<T> {
        let Get::Take(place, refill) = self.ring.get(section, Patience::None) else { return None };
        let value = self.ring.load(place);
        self.ring.refill(section, refill);
        Some(value)
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.ring.state.with(section, |state, core| core.enlist(state.receivers(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.ring.state.with(section, |state, core| core.enlist_again(place, state.receivers()));
    }

    fn pass_on(&mut self, section: &mut Section) {
        Receivers(self.ring).pass_on(section);
    }
}

#[cfg(test)]
mod tests;
