//! Event flags: 32 bits that tasks wait for.

use core::fmt;

use cellule_rtos as rtos;
use cellule_rtos::{Match, NoRoom, Outcome, Patience, TaskId, Want};

use super::{Line, WaitError};
use crate::future::{Operation, Waiting};
use crate::kernel::{Section, SectionCell};
use crate::time::Timeout;

/// 32 flags. Whoever waits for some of them clears these when it gets them.
///
/// [`EventFlags::set`] offers the flags to the waiters in order; each one that
/// is satisfied clears its bits before the next is looked at.
///
/// ```
/// use cellule_guest::sync::{EventFlags, Timeout};
/// use cellule_guest::task;
///
/// const DATA: u32 = 1 << 0;
/// const STOP: u32 = 1 << 1;
/// static EVENTS: EventFlags = EventFlags::new();
///
/// let waiter = task::spawn(|| EVENTS.wait_any(DATA | STOP, Timeout::Forever))?;
/// EVENTS.set(STOP);
/// assert_eq!(waiter.join()??, STOP);
/// assert_eq!(EVENTS.get(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventFlags {
    state: SectionCell<rtos::Flags>,
}

/// A wait for flags gave none.
///
/// ```
/// use cellule_guest::sync::{EventFlags, FlagsError, Timeout, WaitError};
///
/// static EVENTS: EventFlags = EventFlags::new();
/// let why = |bits| EVENTS.wait_any(bits, Timeout::Now).unwrap_err();
/// assert_eq!(why(0), FlagsError::NoBits);
/// assert_eq!(why(1), FlagsError::Wait(WaitError::WouldBlock));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlagsError {
    /// It was for no flag at all, which would never come.
    NoBits,
    /// The wait failed.
    Wait(WaitError),
}

impl fmt::Display for FlagsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBits => f.write_str("a wait for flags was for none of them"),
            Self::Wait(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FlagsError {}

impl From<WaitError> for FlagsError {
    fn from(error: WaitError) -> Self {
        Self::Wait(error)
    }
}

impl EventFlags {
    /// No flag is set.
    pub const fn new() -> Self {
        Self { state: SectionCell::new(rtos::Flags::new()) }
    }

    /// Sets flags, and wakes whoever they satisfy.
    ///
    /// # Cost
    ///
    /// O(w log w) for w waiters.
    #[inline]
    pub fn set(&self, bits: u32) {
        let mut section = Section::enter();
        self.state.with(&mut section, |state, core| state.set(core, bits));
        section.reschedule();
    }

    /// Clears flags.
    #[inline]
    pub fn clear(&self, bits: u32) {
        self.state.with(&mut Section::enter(), |state, _| state.clear(bits));
    }

    /// The flags that are set.
    #[inline]
    pub fn get(&self) -> u32 {
        self.state.with(&mut Section::enter(), |state, _| state.bits())
    }

    /// Waits until any of `bits` is set. Returns which are, and clears them.
    ///
    /// # Errors
    ///
    /// [`FlagsError`]: it cleared none.
    ///
    /// # Blocking
    ///
    /// Until one is set or the time is over.
    #[inline]
    pub fn wait_any(&self, bits: u32, timeout: impl Into<Timeout>) -> Result<u32, FlagsError> {
        self.wait(Want { bits, of: Match::Any }, timeout.into())
    }

    /// Waits until all of `bits` are set at once. Returns and clears them.
    ///
    /// # Errors
    ///
    /// [`FlagsError`]: it cleared none.
    ///
    /// # Blocking
    ///
    /// Until they are set or the time is over.
    #[inline]
    pub fn wait_all(&self, bits: u32, timeout: impl Into<Timeout>) -> Result<u32, FlagsError> {
        self.wait(Want { bits, of: Match::All }, timeout.into())
    }

    #[inline]
    fn wait(&self, want: Want, timeout: Timeout) -> Result<u32, FlagsError> {
        if want.bits == 0 {
            return Err(FlagsError::NoBits);
        }
        let mut section = Section::enter();
        let waited = |state: &mut rtos::Flags, core: &mut crate::kernel::Core| {
            state.wait(core, want, Patience::None)
        };
        match self.state.with(&mut section, waited) {
            Ok(bits) => Ok(bits),
            Err(_) => self.wait_slowly(section, want, timeout),
        }
    }

    #[cold]
    fn wait_slowly(
        &self,
        mut section: Section,
        want: Want,
        timeout: Timeout,
    ) -> Result<u32, FlagsError> {
        let patience = section.patience(timeout);
        match self.state.with(&mut section, |state, core| state.wait(core, want, patience)) {
            Ok(bits) => return Ok(bits),
            Err(rtos::Take::Waits) => {}
            Err(_) => return Err(section.refusal(timeout).into()),
        }
        match section.wait_in(&self.state)? {
            #[expect(clippy::cast_possible_truncation, reason = "the number is the flags")]
            Outcome::Granted(bits) => Ok(bits as u32),
            _ => Ok(0),
        }
    }

    /// [`EventFlags::wait_any`] for a future.
    ///
    /// # Errors
    ///
    /// [`FlagsError::NoBits`]
    ///
    /// # Blocking
    ///
    /// Dropped, it has cleared nothing, and the flags are offered to the next.
    pub async fn wait_any_async(&self, bits: u32) -> Result<u32, FlagsError> {
        self.wait_async(Want { bits, of: Match::Any }).await
    }

    /// [`EventFlags::wait_all`] for a future.
    ///
    /// # Errors
    ///
    /// [`FlagsError::NoBits`]
    ///
    /// # Blocking
    ///
    /// Dropped, it has cleared nothing, and the flags are offered to the next.
    pub async fn wait_all_async(&self, bits: u32) -> Result<u32, FlagsError> {
        self.wait_async(Want { bits, of: Match::All }).await
    }

    async fn wait_async(&self, want: Want) -> Result<u32, FlagsError> {
        if want.bits == 0 {
            return Err(FlagsError::NoBits);
        }
        Ok(Waiting::new(FlagsWait { flags: self, want }).await)
    }
}

impl Default for EventFlags {
    fn default() -> Self {
        Self::new()
    }
}

impl Line for SectionCell<rtos::Flags> {
    fn pass_on(&self, section: &mut Section) {
        self.with(section, |state, core| state.pass_on(core));
    }
}

struct FlagsWait<'a> {
    flags: &'a EventFlags,
    want: Want,
}

impl Operation for FlagsWait<'_> {
    type Output = u32;

    fn attempt(&mut self, section: &mut Section) -> Option<u32> {
        let want = self.want;
        self.flags.state.with(section, |state, core| state.wait(core, want, Patience::None).ok())
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        let want = self.want;
        self.flags.state.with(section, |state, core| state.enlist(core, want))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.flags.state.with(section, |state, core| core.enlist_again(place, state.waiters()));
    }

    fn pass_on(&mut self, section: &mut Section) {
        self.flags.state.pass_on(section);
    }
}

#[cfg(test)]
mod tests;
