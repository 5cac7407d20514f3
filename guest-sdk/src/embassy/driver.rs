//! `embassy-time`'s clock and timers: one timer of the kernel for all of them.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::Waker;

use cellule_rtos::{NoRoom, TaskId};
use critical_section::Mutex;
use embassy_executor_timer_queue::TimerQueueItem;
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;

use crate::kernel::{self, Job, Section};

embassy_time_driver::time_driver_impl!(static DRIVER: GuestClock = GuestClock {
    wakes: Mutex::new(RefCell::new(Wakes::new())),
});

struct GuestClock {
    /// Within critical sections and not the kernel's, which wakers call.
    wakes: Mutex<RefCell<Wakes>>,
}

/// Who is to be woken when.
struct Wakes {
    /// Embassy's own tasks.
    tasks: Queue,
    others: Others,
    /// The kernel's timer, and the tick for which it is armed.
    timer: TaskId,
    armed: u64,
}

/// No tick for which a timer is armed.
const NEVER: u64 = u64::MAX;

impl Driver for GuestClock {
    fn now(&self) -> u64 {
        ticks(kernel::now().as_nanos())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        let there = critical_section::with(|section| {
            let mut wakes = self.wakes.borrow_ref_mut(section);
            wakes.provide_timer()?;
            match is_embassys(waker) {
                true => _ = wakes.tasks.schedule_wake(at, waker),
                false => wakes.others.schedule_wake(at, waker),
            }
            wakes.arm_no_later_than(at);
            Ok::<_, NoRoom>(())
        });
        if there.is_err() {
            // Without a timer, it asks again and again.
            waker.wake_by_ref();
        }
    }
}

impl GuestClock {
    /// Wakes who is due: the job of the kernel's timer.
    fn expired(&self) {
        let due = critical_section::with(|section| {
            let mut wakes = self.wakes.borrow_ref_mut(section);
            let now = self.now();
            wakes.armed = NEVER;
            // This wakes Embassy's own tasks, which run an executor's pender.
            let next = wakes.tasks.next_expiration(now);
            wakes.arm_no_later_than(next);
            let (due, next) = wakes.others.take_due(now);
            wakes.arm_no_later_than(next);
            due
        });
        // Others' code, which may come here again.
        due.into_iter().for_each(Waker::wake);
    }
}

impl Wakes {
    const fn new() -> Self {
        Self { tasks: Queue::new(), others: Others(Vec::new()), timer: TaskId::NONE, armed: NEVER }
    }

    /// Makes the kernel's timer, if it is not there yet.
    fn provide_timer(&mut self) -> Result<(), NoRoom> {
        if self.timer != TaskId::NONE {
            return Ok(());
        }
        let mut section = Section::enter();
        section.reserve(1)?;
        self.timer = section.create_timer()?;
        let job = Job::Call(|_, _| DRIVER.expired(), 0);
        let before = section.set_job(self.timer, job);
        drop(section);
        drop(before);
        Ok(())
    }

    /// Has the kernel's timer expire at `tick`, unless it does before that.
    fn arm_no_later_than(&mut self, tick: u64) {
        if tick >= self.armed {
            return;
        }
        self.armed = tick;
        let (now, deadline) = (kernel::now().as_nanos(), nanos(tick));
        let mut section = Section::enter();
        section.start_timer(self.timer, deadline, 0);
        if deadline <= now {
            section.advance(now);
        }
        // At the end of the critical section, as this is within one.
        section.reschedule();
    }
}

/// Wakers that are not Embassy's: the earliest tick for each, without an order.
struct Others(Vec<(u64, Waker)>);

impl Others {
    fn schedule_wake(&mut self, at: u64, waker: &Waker) {
        match self.0.iter_mut().find(|(_, other)| other.will_wake(waker)) {
            Some((tick, _)) => *tick = at.min(*tick),
            None => self.0.push((at, waker.clone())),
        }
    }

    /// Takes those out that are due, and tells the next one's tick.
    fn take_due(&mut self, now: u64) -> (Vec<Waker>, u64) {
        let due = self.0.extract_if(.., |(tick, _)| *tick <= now);
        let due = due.map(|(_, waker)| waker).collect();
        (due, self.0.iter().map(|(tick, _)| *tick).min().unwrap_or(NEVER))
    }
}

/// Whether this wakes a task of Embassy's: only these have room for an item of
/// the integrated queue, which panics otherwise.
fn is_embassys(waker: &Waker) -> bool {
    unsafe extern "Rust" {
        /// `embassy-executor` defines it beside the one that panics, for a version
        /// of `embassy-executor-timer-queue` to come.
        fn __try_embassy_time_queue_item_from_waker(
            waker: &Waker,
        ) -> Option<&'static mut TimerQueueItem>;
    }
    // SAFETY: defined with this signature (embassy-executor 0.10, raw/mod.rs). The
    // item is not kept, and nobody else refers to one: this is called within the
    // critical section in which the queue uses them.
    unsafe { __try_embassy_time_queue_item_from_waker(waker) }.is_some()
}

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// How many ticks have begun.
const fn ticks(nanos: u64) -> u64 {
    if NANOS_PER_SEC.is_multiple_of(TICK_HZ) {
        return nanos / (NANOS_PER_SEC / TICK_HZ);
    }
    let ticks = nanos as u128 * TICK_HZ as u128 / NANOS_PER_SEC as u128;
    if ticks > u64::MAX as u128 { u64::MAX } else { truncate(ticks) }
}

/// When a tick begins: the first nanosecond of which `ticks` is that many.
const fn nanos(ticks: u64) -> u64 {
    let nanos = (ticks as u128 * NANOS_PER_SEC as u128).div_ceil(TICK_HZ as u128);
    if nanos > u64::MAX as u128 { u64::MAX } else { truncate(nanos) }
}

#[expect(clippy::cast_possible_truncation, reason = "compared where it is called")]
const fn truncate(number: u128) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_never_early_and_less_than_a_tick_late() {
        // A second, a tick, none; and where a u64 of nanoseconds ends.
        for tick in [0, 1, TICK_HZ - 1, TICK_HZ, 10_000 * TICK_HZ + 1] {
            assert_eq!(ticks(nanos(tick)), tick);
            assert_eq!(ticks(nanos(tick + 1) - 1), tick, "should NOT be there before");
        }
        assert_eq!(nanos(u64::MAX), u64::MAX);
    }
}
