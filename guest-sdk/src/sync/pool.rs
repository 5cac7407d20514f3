//! A pool of blocks of one size.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use cellule_rtos as rtos;
use cellule_rtos::{NoRoom, Patience, Take, TaskId};

use super::{Line, WaitError};
use crate::future::{Operation, Waiting};
use crate::kernel::{Core, Section, SectionCell};
use crate::time::Timeout;

/// `N` places for values of one type, to be had in constant time.
///
/// ```
/// use cellule_guest::sync::{Pool, Timeout};
/// use cellule_guest::task;
///
/// static PACKETS: Pool<[u8; 64], 2> = Pool::new();
///
/// let first = PACKETS.allocate([1; 64], Timeout::Now)?;
/// let second = PACKETS.allocate([2; 64], Timeout::Now)?;
/// // All are in use: the value comes back.
/// assert_eq!(PACKETS.allocate([3; 64], Timeout::Now).unwrap_err().value, [3; 64]);
///
/// let waiter = task::spawn(|| PACKETS.allocate([3; 64], Timeout::Forever).map(|packet| packet[0]))?;
/// drop(first);
/// assert_eq!(waiter.join()??, 3);
/// assert_eq!(second[63], 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// use cellule_guest::sync::Pool;
/// static NONE: Pool<u32, 0> = Pool::new();
/// ```
pub struct Pool<T, const N: usize> {
    state: SectionCell<State>,
    blocks: UnsafeCell<[Block<T>; N]>,
}

// SAFETY: a block that is not in use is reached within a section only, and one
// that is by its `PoolBox`; values move between tasks, so they must be `Send`.
unsafe impl<T: Send, const N: usize> Sync for Pool<T, N> {}

#[derive(Debug)]
struct State {
    /// As many as there are blocks to be had, less those promised to a task.
    units: rtos::Semaphore,
    /// The first of the blocks that were given back, each of which has the next;
    /// plus one, zero for none.
    free: u32,
    /// Blocks from this one on were never used.
    fresh: u32,
}

union Block<T> {
    next: u32,
    value: ManuallyDrop<T>,
}

/// A value in a pool; dropping it gives its block back.
///
/// ```
/// use cellule_guest::sync::{Pool, PoolBox, Timeout};
///
/// static LINES: Pool<String, 4> = Pool::new();
///
/// let mut line: PoolBox<'static, String> = LINES.allocate("a".to_string(), Timeout::Now)?;
/// line.push('b');
/// assert_eq!((line.as_str(), LINES.available()), ("ab", 3));
/// assert_eq!(line.into_inner(), "ab");
/// assert_eq!(LINES.available(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PoolBox<'a, T> {
    state: &'a SectionCell<State>,
    block: NonNull<Block<T>>,
    number: u32,
    owned: PhantomData<T>,
}

// SAFETY: it owns the value, as a `Box` does; the state is reached in sections.
unsafe impl<T: Send> Send for PoolBox<'_, T> {}
// SAFETY: a shared one gives out `&T` only.
unsafe impl<T: Sync> Sync for PoolBox<'_, T> {}

/// No block was to be had: the value is here.
///
/// ```
/// use cellule_guest::sync::{Pool, Timeout, WaitError};
///
/// static PLACES: Pool<u32, 1> = Pool::new();
///
/// let _first = PLACES.allocate(1, Timeout::Now)?;
/// let refused = PLACES.allocate(2, Timeout::Now).unwrap_err();
/// assert_eq!((refused.value, refused.reason), (2, WaitError::WouldBlock));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AllocateError<T> {
    /// What was to be put there.
    pub value: T,
    /// Why it was not.
    pub reason: WaitError,
}

impl<T> fmt::Debug for AllocateError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocateError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for AllocateError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no block of the pool: {}", self.reason)
    }
}

impl<T> core::error::Error for AllocateError<T> {}

impl State {
    /// Takes a block, of which there is one. O(1).
    ///
    /// # Safety
    ///
    /// `blocks` must be the pool's, and a unit have been taken for this.
    unsafe fn take<T>(&mut self, blocks: *mut Block<T>) -> (NonNull<Block<T>>, u32) {
        let used = self.free.checked_sub(1);
        let number = used.unwrap_or(self.fresh);
        // SAFETY: less than `N`: it was in use before, or the units that were
        // taken say that there is a fresh one.
        let block = unsafe { blocks.add(number as usize) };
        match used {
            Some(_) => {
                // SAFETY: in the array, as said, and in no box.
                let block = unsafe { &*block };
                // SAFETY: a block on the list has `next`.
                self.free = unsafe { block.next };
            }
            None => self.fresh += 1,
        }
        // SAFETY: within an array, which is not at null.
        (unsafe { NonNull::new_unchecked(block) }, number)
    }
}

impl<T, const N: usize> Pool<T, N> {
    const COUNT: u32 = {
        assert!(N > 0, "a pool must have a block");
        assert!(N < u32::MAX as usize, "a pool has at most 2^32 - 2 blocks");
        #[expect(clippy::cast_possible_truncation, reason = "asserted right here")]
        let count = N as u32;
        count
    };

    /// A pool whose blocks are all to be had.
    pub const fn new() -> Self {
        let count = Self::COUNT as u64;
        let units = rtos::Semaphore::new(count, count);
        Self {
            state: SectionCell::new(State { units, free: 0, fresh: 0 }),
            blocks: UnsafeCell::new([const { Block { next: 0 } }; N]),
        }
    }

    /// Puts a value into a block.
    ///
    /// # Errors
    ///
    /// [`AllocateError`] has the value back.
    ///
    /// # Blocking
    ///
    /// Until a block is given back or the time is over.
    ///
    /// # Cost
    ///
    /// O(1)
    #[inline]
    pub fn allocate(
        &self,
        value: T,
        timeout: impl Into<Timeout>,
    ) -> Result<PoolBox<'_, T>, AllocateError<T>> {
        let timeout = timeout.into();
        let mut section = Section::enter();
        let take = |state: &mut State, core: &mut Core| state.units.take(core, Patience::None);
        if self.state.with(&mut section, take) == Take::Taken {
            return Ok(self.fill(&mut section, value));
        }
        match self.wait(section, timeout) {
            Ok(mut section) => Ok(self.fill(&mut section, value)),
            Err(reason) => Err(AllocateError { value, reason }),
        }
    }

    /// Puts a value into a block as a future.
    ///
    /// ```
    /// use cellule_guest::future::block_on;
    /// use cellule_guest::sync::{Pool, Timeout};
    /// use cellule_guest::task;
    ///
    /// static LINES: Pool<String, 1> = Pool::new();
    ///
    /// let first = LINES.allocate("first".to_string(), Timeout::Now)?;
    /// let second = task::spawn(|| block_on(LINES.allocate_async("second".to_string())))?;
    /// assert_eq!(first.into_inner(), "first"); // and there is a block again
    /// assert_eq!(*second.join()??, "second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Dropped before it is ready, it has taken no block, and drops the value.
    pub fn allocate_async(&self, value: T) -> impl Future<Output = PoolBox<'_, T>> {
        Waiting::new(Allocating { pool: self, value: Some(value) })
    }

    /// Waits for a unit.
    #[cold]
    fn wait(&self, mut section: Section, timeout: Timeout) -> Result<Section, WaitError> {
        let patience = section.patience(timeout);
        match self.state.with(&mut section, |state, core| state.units.take(core, patience)) {
            Take::Taken => return Ok(section),
            Take::Busy => return Err(section.refusal(timeout)),
            Take::Waits => {}
        }
        section.wait_in(&self.state)?;
        Ok(Section::enter())
    }

    /// Puts a value into the block that a unit stands for.
    #[inline]
    fn fill(&self, section: &mut Section, value: T) -> PoolBox<'_, T> {
        let blocks = self.blocks.get().cast::<Block<T>>();
        // SAFETY: the blocks are this pool's, and the caller has taken a unit.
        let take = |state: &mut State, _: &mut Core| unsafe { state.take(blocks) };
        let (block, number) = self.state.with(section, take);
        // SAFETY: the block is this caller's: on no list, and in no other box.
        unsafe { block.write(Block { value: ManuallyDrop::new(value) }) };
        PoolBox { state: &self.state, block, number, owned: PhantomData }
    }

    /// How many blocks are to be had.
    pub fn available(&self) -> usize {
        let count = self.state.with(&mut Section::enter(), |state, _| state.units.count());
        usize::try_from(count).unwrap_or(N)
    }

    /// How many blocks there are.
    pub const fn capacity(&self) -> usize {
        N
    }
}

impl Line for SectionCell<State> {
    fn pass_on(&self, section: &mut Section) {
        self.with(section, |state, core| state.units.pass_on(core));
    }
}

struct Allocating<'a, T, const N: usize> {
    pool: &'a Pool<T, N>,
    value: Option<T>,
}

impl<'a, T, const N: usize> Operation for Allocating<'a, T, N> {
    type Output = PoolBox<'a, T>;

    fn attempt(&mut self, section: &mut Section) -> Option<PoolBox<'a, T>> {
        let take = |state: &mut State, core: &mut Core| state.units.take(core, Patience::None);
        if self.value.is_none() || self.pool.state.with(section, take) != Take::Taken {
            return None;
        }
        self.value.take().map(|value| self.pool.fill(section, value))
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.pool.state.with(section, |state, core| core.enlist(state.units.waiters(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.pool
            .state
            .with(section, |state, core| core.enlist_again(place, state.units.waiters()));
    }

    fn pass_on(&mut self, section: &mut Section) {
        self.pool.state.pass_on(section);
    }
}

impl<T, const N: usize> Default for Pool<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> fmt::Debug for Pool<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("capacity", &N).finish_non_exhaustive()
    }
}

impl<T> PoolBox<'_, T> {
    /// Takes the value out, and gives the block back.
    pub fn into_inner(self) -> T {
        let this = ManuallyDrop::new(self);
        // SAFETY: `fill` wrote it, and nobody uses it after this.
        let block = unsafe { this.block.read() };
        this.give_back();
        // SAFETY: a block of a box has a value.
        ManuallyDrop::into_inner(unsafe { block.value })
    }

    /// Gives the block back, whose value is gone.
    fn give_back(&self) {
        let mut section = Section::enter();
        self.state.with(&mut section, |state, core| {
            // SAFETY: the box is the only one to use its block, and ends here.
            unsafe { self.block.write(Block { next: state.free }) };
            state.free = self.number + 1;
            // Below the limit: this box had a unit.
            let _ = state.units.give(core);
        });
        section.reschedule();
    }
}

impl<T> Deref for PoolBox<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block is this box's alone.
        let block = unsafe { self.block.as_ref() };
        // SAFETY: `fill` wrote a value, which stays until the box ends.
        unsafe { &block.value }
    }
}

impl<T> DerefMut for PoolBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the block is this box's alone, which is borrowed exclusively.
        let block = unsafe { self.block.as_mut() };
        // SAFETY: `fill` wrote a value, which stays until the box ends.
        unsafe { &mut block.value }
    }
}

impl<T> Drop for PoolBox<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the block is this box's alone.
        let block = unsafe { self.block.as_mut() };
        // SAFETY: `fill` wrote a value.
        let value = unsafe { &mut block.value };
        // SAFETY: it is not used after this.
        unsafe { ManuallyDrop::drop(value) };
        self.give_back();
    }
}

impl<T: fmt::Debug> fmt::Debug for PoolBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests;
