//! A counting semaphore.

use cellule_rtos as rtos;
use cellule_rtos::{NoRoom, Patience, Take, TaskId};

use super::{Line, WaitError};
use crate::future::{Operation, Waiting};
use crate::kernel::{Core, Section, SectionCell};
use crate::time::Timeout;

/// A counting semaphore: units that tasks take and give.
///
/// ```
/// use cellule_guest::sync::{Semaphore, Timeout, WaitError};
/// use cellule_guest::task;
///
/// static ITEMS: Semaphore = Semaphore::new(0, 10);
///
/// let consumer = task::spawn(|| ITEMS.take(Timeout::Forever))?;
/// ITEMS.give()?;
/// consumer.join()??;
/// assert_eq!(ITEMS.try_take(), Err(WaitError::WouldBlock));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Semaphore {
    state: SectionCell<rtos::Semaphore>,
}

/// The semaphore has as many units as it can have.
///
/// ```
/// use cellule_guest::sync::{Full, Semaphore};
///
/// static EVENT: Semaphore = Semaphore::binary();
/// assert_eq!((EVENT.give(), EVENT.give()), (Ok(()), Err(Full)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the semaphore is full")
    }
}

impl core::error::Error for Full {}

impl Semaphore {
    /// A semaphore with `count` units now and never more than `limit`.
    pub const fn new(count: u64, limit: u64) -> Self {
        Self { state: SectionCell::new(rtos::Semaphore::new(count, limit)) }
    }

    /// A binary semaphore, without its unit.
    pub const fn binary() -> Self {
        Self::new(0, 1)
    }

    /// Takes a unit.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: it took none.
    ///
    /// # Blocking
    ///
    /// Until a unit is given or the time is over.
    #[inline]
    pub fn take(&self, timeout: impl Into<Timeout>) -> Result<(), WaitError> {
        // First: a conversion may be a user's code.
        let timeout = timeout.into();
        let mut section = Section::enter();
        match self.state.with(&mut section, |state, core| state.take(core, Patience::None)) {
            Take::Taken => Ok(()),
            Take::Busy | Take::Waits => self.wait(section, timeout),
        }
    }

    #[cold]
    fn wait(&self, mut section: Section, timeout: Timeout) -> Result<(), WaitError> {
        let patience = section.patience(timeout);
        match self.state.with(&mut section, |state, core| state.take(core, patience)) {
            Take::Taken => Ok(()),
            Take::Busy => Err(section.refusal(timeout)),
            Take::Waits => section.wait_in(&self.state).map(|_| ()),
        }
    }

    /// Takes a unit if there is one.
    ///
    /// # Errors
    ///
    /// [`WaitError::WouldBlock`]
    #[inline]
    pub fn try_take(&self) -> Result<(), WaitError> {
        self.take(Timeout::Now)
    }

    /// Takes a unit as a future.
    ///
    /// # Blocking
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub fn take_async(&self) -> impl Future<Output = ()> {
        Waiting::new(Taking { semaphore: self })
    }

    /// Gives a unit: to the task that is first in line, if one waits.
    ///
    /// # Errors
    ///
    /// [`Full`]: at its limit.
    #[inline]
    pub fn give(&self) -> Result<(), Full> {
        let mut section = Section::enter();
        let given = self.state.with(&mut section, |state, core| state.give(core));
        section.reschedule();
        given.map_err(|rtos::Full| Full)
    }

    /// How many units there are.
    pub fn count(&self) -> u64 {
        self.state.with(&mut Section::enter(), |state, _| state.count())
    }
}

impl Line for SectionCell<rtos::Semaphore> {
    fn pass_on(&self, section: &mut Section) {
        self.with(section, |state, core| state.pass_on(core));
    }
}

struct Taking<'a> {
    semaphore: &'a Semaphore,
}

impl Operation for Taking<'_> {
    type Output = ();

    fn attempt(&mut self, section: &mut Section) -> Option<()> {
        let take = |state: &mut rtos::Semaphore, core: &mut Core| state.take(core, Patience::None);
        (self.semaphore.state.with(section, take) == Take::Taken).then_some(())
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.semaphore.state.with(section, |state, core| core.enlist(state.waiters(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.semaphore.state.with(section, |state, core| core.enlist_again(place, state.waiters()));
    }

    fn pass_on(&mut self, section: &mut Section) {
        self.semaphore.state.pass_on(section);
    }
}

#[cfg(test)]
mod tests;
