//! What an interrupt handler starts.
//!
//! The suite has a task raise an interrupt by software. A guest of Cellule has no
//! interrupts; what comes closest is a [`Timer`] that is due at once. Its function
//! is a handler's equal in what it may do and when that takes effect: it runs
//! on no task's behalf, with upcalls masked, may give and resume but not wait, and
//! whom it makes ready runs when it has ended. It is the same code of the kernel
//! that runs when the host's upcall brings a deadline.
//!
//! What is missing is the way in and out. A hardware interrupt, and an upcall,
//! save all registers where the task happens to be (an upcall those of the vector
//! unit too) and restore them afterwards; this one is a function call, of which
//! the compiler saves what it must. On the other hand it pays for what a software
//! interrupt does not: an entry in the queue of timers and readings of the clock.

use cellule_guest::sync::{OnceLock, Semaphore};
use cellule_guest::task::{self, SpawnError, Task};
use cellule_guest::time::Duration;
use cellule_guest::timer::Timer;

use crate::counter::{COUNTERS, FAULTS};
use crate::forever;

/// The priority of the task that raises the interrupt.
const PRIORITY: u8 = 10;
/// Of the task that the interrupt wakes.
const URGENT: u8 = 15;

/// Interrupt processing: the handler gives a semaphore, and the task that it
/// interrupted takes it: no other task runs.
pub(crate) fn processing() -> Result<usize, SpawnError> {
    static GIVEN: Semaphore = Semaphore::binary();
    static INTERRUPT: Timer = Timer::calling(|| {
        COUNTERS[1].count();
        if GIVEN.give().is_err() {
            FAULTS.count();
        }
    });
    forever("interrupted", PRIORITY, || {
        raise(&INTERRUPT);
        // It need not wait: the handler has run before the next instruction.
        if GIVEN.try_take().is_err() {
            FAULTS.count();
        }
        COUNTERS[0].count();
    })?;
    Ok(2)
}

/// Interrupt preemption processing: the handler resumes a task that is more
/// urgent than the interrupted one, counts, and suspends itself.
pub(crate) fn preemption() -> Result<usize, SpawnError> {
    static RESUMED: OnceLock<Task> = OnceLock::new();
    static INTERRUPT: Timer = Timer::calling(|| {
        COUNTERS[2].count();
        match RESUMED.get() {
            Some(task) => task.resume(),
            None => FAULTS.count(),
        }
    });
    forever("interrupted", PRIORITY, || {
        raise(&INTERRUPT);
        COUNTERS[0].count();
    })?;
    let mut this = None;
    let urgent = forever("resumed", URGENT, move || {
        COUNTERS[1].count();
        this.get_or_insert_with(task::current).suspend();
    })?;
    urgent.suspend();
    if RESUMED.set(urgent).is_err() {
        FAULTS.count();
    }
    Ok(3)
}

/// Has the handler run, now.
fn raise(interrupt: &Timer) {
    if interrupt.start_once(Duration::ZERO).is_err() {
        FAULTS.count();
    }
}
