//! Event flags: 32 bits that tasks wait for.

use crate::kernel::Kernel;
use crate::slot::{Index, NIL, Outcome};
use crate::timeout::Patience;
use crate::wait::WaitQueue;

/// The bits, and who waits for which.
#[derive(Debug, Default)]
pub struct Flags {
    bits: u32,
    waiters: WaitQueue,
}

/// How many of the bits must be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// At least one.
    Any,
    /// Every one.
    All,
}

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Which bits.
    pub bits: u32,
    /// How many of them.
    pub of: Match,
}

impl Want {
    /// The bits that a set of flags satisfies this with; zero if it does not.
    const fn satisfied_by(self, flags: u32) -> u32 {
        let there = flags & self.bits;
        match self.of {
            Match::Any => there,
            Match::All if there == self.bits => there,
            Match::All => 0,
        }
    }

    const fn to_bits(self) -> u64 {
        self.bits as u64 | if matches!(self.of, Match::All) { 1 << 32 } else { 0 }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is the bits")]
    const fn from_bits(word: u64) -> Self {
        Self { bits: word as u32, of: if word >> 32 == 0 { Match::Any } else { Match::All } }
    }
}

impl Flags {
    /// No flag is set.
    pub const fn new() -> Self {
        Self { bits: 0, waiters: WaitQueue::new() }
    }

    /// The flags that are set.
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// Waits for flags, and clears those that it waited for.
    ///
    /// `Ok` has the flags that matched; `Err` says whether the running task
    /// waits: the outcome's number is the flags. O(1); O(log w) if it waits.
    ///
    /// # Errors
    ///
    /// [`crate::Take::Busy`] or [`crate::Take::Waits`]
    #[inline]
    pub fn wait(
        &mut self,
        kernel: &mut Kernel,
        want: Want,
        patience: Patience,
    ) -> Result<u32, crate::Take> {
        let matched = want.satisfied_by(self.bits);
        if matched != 0 {
            self.bits &= !want.bits;
            return Ok(matched);
        }
        if patience == Patience::None {
            return Err(crate::Take::Busy);
        }
        kernel.wait_for(patience, Some(&mut self.waiters), want.to_bits());
        Err(crate::Take::Waits)
    }

    /// Sets flags and offers them to the waiters, in order. O(w log w).
    pub fn set(&mut self, kernel: &mut Kernel, bits: u32) {
        self.bits |= bits;
        // Those whose turn is not now leave the line, one chained to the next,
        // and come back with the place that they had.
        let mut passed = NIL;
        while self.bits != 0
            && let Some(best) = kernel.best_of(&mut self.waiters)
        {
            let slot = &kernel.slots[usize::from(best)];
            let want = Want::from_bits(slot.want);
            let matched = want.satisfied_by(self.bits);
            if matched == 0 {
                kernel.dequeue(best);
                kernel.slots[usize::from(best)].next = passed;
                passed = best;
            } else if kernel.is_proxy(best) {
                kernel.notify(best);
            } else {
                self.bits &= !want.bits;
                kernel.wake(best, Outcome::Granted(u64::from(matched)));
            }
        }
        self.put_back(kernel, passed);
    }

    fn put_back(&mut self, kernel: &mut Kernel, mut passed: Index) {
        while passed != NIL {
            let next = core::mem::replace(&mut kernel.slots[usize::from(passed)].next, NIL);
            kernel.enqueue(&mut self.waiters, passed);
            passed = next;
        }
    }

    /// Clears flags.
    pub const fn clear(&mut self, bits: u32) {
        self.bits &= !bits;
    }

    /// Gives a future that wants flags a place in line.
    ///
    /// # Errors
    ///
    /// [`crate::NoRoom`]
    pub fn enlist(
        &mut self,
        kernel: &mut Kernel,
        want: Want,
    ) -> Result<crate::TaskId, crate::NoRoom> {
        kernel.enlist(&mut self.waiters, want.to_bits())
    }

    /// Those who wait, for futures.
    pub fn waiters(&mut self) -> &mut WaitQueue {
        &mut self.waiters
    }

    /// A notified future has gone: what it was told goes to the next in line.
    pub fn pass_on(&mut self, kernel: &mut Kernel) {
        self.set(kernel, 0);
    }
}
