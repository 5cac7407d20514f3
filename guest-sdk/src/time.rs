//! Time: what it is, and waiting for it.
//!
//! Reading the clock costs no exit. A guest's monotonic time begins when its
//! sandbox is made. If the host chose virtual time, the clock stands still while
//! tasks run, and jumps to the next deadline when all of them wait.
//!
//! ```
//! use cellule_guest::time::{self, Duration};
//!
//! let before = time::now();
//! time::sleep(Duration::from_millis(5))?;
//! assert!(time::now() >= before + Duration::from_millis(5));
//! # Ok::<(), cellule_guest::sync::WaitError>(())
//! ```

pub use core::time::Duration;

use cellule_rtos::Outcome;
pub use cellule_rtos::{Instant, Timeout};

pub use crate::future::{sleep as sleep_async, sleep_until as sleep_until_async};
use crate::kernel::{self, Section};
use crate::port;
use crate::sync::WaitError;

/// The monotonic time.
#[inline]
pub fn now() -> Instant {
    kernel::now()
}

/// The wall time: how long ago 1970-01-01 00:00 UTC was. A virtual clock starts there.
pub fn wall() -> Duration {
    Duration::from_nanos(now().as_nanos().wrapping_add(port::wall_offset()))
}

/// Waits for at least `duration`.
///
/// # Errors
///
/// [`WaitError::Cancelled`] and [`WaitError::WrongContext`]
pub fn sleep(duration: Duration) -> Result<(), WaitError> {
    sleep_until(now() + duration)
}

/// Waits until `instant`. A loop that adds its period to the last instant, and
/// not to the present, does not drift.
///
/// # Errors
///
/// [`WaitError::Cancelled`] and [`WaitError::WrongContext`]
pub fn sleep_until(instant: Instant) -> Result<(), WaitError> {
    let mut section = Section::enter();
    if !section.can_wait() {
        return Err(WaitError::WrongContext);
    }
    if !port::is_virtual() && instant <= kernel::now() {
        return Ok(());
    }
    section.sleep_until(instant.as_nanos());
    section.run();
    match section.outcome() {
        Outcome::Cancelled => Err(WaitError::Cancelled),
        _ => Ok(()),
    }
}

/// Uses the processor for `duration`: in virtual time by moving the clock, as
/// timers, slices and more urgent tasks allow; in real time by spinning.
pub fn work(duration: Duration) {
    let mut left = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if !port::is_virtual() {
        let end = now() + duration;
        while now() < end {
            core::hint::spin_loop();
        }
        return;
    }
    while left > 0 {
        let mut section = Section::enter();
        let worked = section.work(left);
        port::set_virtual(section.now());
        left -= worked.clamp(1, left);
        section.reschedule();
    }
}
