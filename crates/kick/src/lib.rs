//! Stops a thread that runs a vCPU: one signal, one timer, no retry.
//!
//! A backend's run loop [`Target::enter`]s around the call that runs the
//! guest. From then on a [`Kicker`] anywhere, or an [`Alarm`] of the thread's
//! own, makes that call return: the signal interrupts it if it is under way,
//! and if it is about to begin, the handler sets the flag that makes it return
//! at once (KVM's `immediate_exit`).
//!
//! ```text
//!  Kicker::kick                       run loop
//!  1 requested = true                 a thread = my id       (enter)
//!  2 thread known? send one signal    b requested? give up
//!                                     c run; the signal or the flag ends it
//!                                     d thread = none        (drop)
//! ```
//!
//! 1 before 2 and a before b, all sequentially consistent: either b sees the
//! request, or 2 sees the thread and the signal comes in or before c.
#![allow(unsafe_code, reason = "signal handlers, tgkill and POSIX timers")]

mod alarm;
mod signal;

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

pub use alarm::{Alarm, AlarmError};
pub use signal::SetupError;

thread_local! {
    /// The flag that makes the running call of this thread return at once.
    static FLAG: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    /// A signal came when there was no flag: an alarm between two runs.
    static MISSED: Cell<bool> = const { Cell::new(false) };
}

/// The running side: one for each vCPU.
#[derive(Debug, Default)]
pub struct Target(Arc<State>);

/// The stopping side: stops the target's run from any thread.
#[derive(Debug, Clone)]
pub struct Kicker(Arc<State>);

#[derive(Debug, Default)]
struct State {
    requested: AtomicBool,
    /// The thread in the run, 0 for none.
    thread: AtomicI32,
}

impl Target {
    /// Makes a target, and installs the process's signal handler the first time.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if no real-time signal is free.
    pub fn new() -> Result<Self, SetupError> {
        signal::install()?;
        Ok(Self::default())
    }

    /// The handle for other threads.
    pub fn kicker(&self) -> Kicker {
        Kicker(Arc::clone(&self.0))
    }

    /// Whether a kick was asked for and not yet cleared.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Forgets kicks that were asked for.
    pub fn clear(&self) {
        self.0.requested.store(false, Ordering::SeqCst);
    }

    /// Publishes that this thread is about to run; ends when the guard is dropped.
    ///
    /// Returns `None` if a kick is already asked for, or if an alarm rang since
    /// the last run: do not run now.
    ///
    /// # Safety
    ///
    /// `flag` must stay writable until the guard is dropped, and the guard must
    /// not be leaked: a signal handler on this thread writes 1 to it.
    pub unsafe fn enter(&self, flag: *mut u8) -> Option<Running<'_>> {
        FLAG.set(flag);
        self.0.thread.store(signal::thread_id(), Ordering::SeqCst);
        let running = Running { state: &self.0, this_thread: PhantomData };
        let stop = MISSED.replace(false) | self.is_requested();
        (!stop).then_some(running)
    }
}

/// While it lives, kicks reach this thread.
#[derive(Debug)]
pub struct Running<'a> {
    state: &'a State,
    this_thread: PhantomData<*mut ()>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.state.thread.store(0, Ordering::SeqCst);
        FLAG.set(ptr::null_mut());
    }
}

impl Kicker {
    /// Makes the current run return, or the next one if none is under way.
    ///
    /// # Cost
    ///
    /// One system call if the target runs, else none.
    pub fn kick(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
        let thread = self.0.thread.load(Ordering::SeqCst);
        if thread != 0 {
            signal::send(thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    /// Stands for a vCPU call that the signal cannot interrupt: it sees the flag.
    fn spin_until(flag: &AtomicU8) {
        while flag.load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_kick_before_the_run_forbids_it() {
        let target = Target::new().unwrap();
        target.kicker().kick();
        let flag = AtomicU8::new(0);
        // SAFETY: the flag outlives the guard.
        assert!(unsafe { target.enter(flag.as_ptr()) }.is_none());
        target.clear();
        // SAFETY: the flag outlives the guard.
        assert!(unsafe { target.enter(flag.as_ptr()) }.is_some());
    }

    #[test]
    fn a_kick_at_any_moment_stops_every_run() {
        for _ in 0..2000 {
            let target = Target::new().unwrap();
            let kicker = target.kicker();
            let (ready, wait) = mpsc::channel();
            let runner = std::thread::spawn(move || {
                let flag = AtomicU8::new(0);
                ready.send(()).unwrap();
                // SAFETY: the flag outlives the guard.
                if let Some(_running) = unsafe { target.enter(flag.as_ptr()) } {
                    spin_until(&flag);
                }
            });
            wait.recv().unwrap();
            kicker.kick();
            runner.join().unwrap();
        }
    }

    #[test]
    fn an_alarm_stops_a_run_and_a_dropped_alarm_does_not() {
        let target = Target::new().unwrap();
        let flag = AtomicU8::new(0);
        // SAFETY: the flag outlives the guard.
        let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
        drop(Alarm::at(Instant::now() + Duration::from_secs(3600)).unwrap());
        assert_eq!(flag.load(Ordering::SeqCst), 0);
        let _alarm = Alarm::at(Instant::now() + Duration::from_millis(1)).unwrap();
        spin_until(&flag);
    }

    #[test]
    fn an_alarm_between_two_runs_stops_the_second() {
        let target = Target::new().unwrap();
        let _alarm = Alarm::at(Instant::now()).unwrap();
        while !MISSED.get() {
            std::hint::spin_loop();
        }
        let flag = AtomicU8::new(0);
        // SAFETY: the flag outlives the guard.
        assert!(unsafe { target.enter(flag.as_ptr()) }.is_none());
    }

    #[test]
    fn an_alarm_within_an_alarm_gives_the_outer_one_back() {
        let target = Target::new().unwrap();
        let flag = AtomicU8::new(0);
        // SAFETY: the flag outlives the guard.
        let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
        let _outer = Alarm::at(Instant::now() + Duration::from_millis(5)).unwrap();
        drop(Alarm::at(Instant::now() + Duration::from_secs(3600)).unwrap());
        spin_until(&flag);
    }

    #[test]
    fn an_alarm_in_the_past_rings_at_once() {
        let target = Target::new().unwrap();
        let flag = AtomicU8::new(0);
        // SAFETY: the flag outlives the guard.
        let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
        let _alarm = Alarm::at(Instant::now()).unwrap();
        spin_until(&flag);
    }
}
