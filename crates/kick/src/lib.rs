//! Stops a thread that runs a vCPU: one signal, and a thread's own timers.
//!
//! A backend's run loop [`Target::enter`]s around the call that runs the
//! guest. From then on a [`Kicker`] anywhere, or an [`Alarm`] of the thread's
//! own, makes that call return: the signal interrupts it if it is under way,
//! and if it is about to begin, the handler sets the flag that makes it return
//! at once (KVM's `immediate_exit`). Where a call has no such flag, the signal
//! comes again until the call was left.
//!
//! There are two reasons to stop. A *kick* asks the run to end: it holds until
//! it is cleared. A *nudge* asks the runner to look at something: it is used
//! up by the first stop after it.
//!
//! ```text
//!  Kicker::kick, Kicker::nudge        run loop
//!  1 requested (nudged) = true        a thread = my id            (enter)
//!  2 thread known? send one signal    b requested? nudged, taken? give up
//!                                     c run; the signal or the flag ends it
//!                                     d thread = none             (drop)
//!                                     e flag set? nudged = false
//! ```
//!
//! 1 before 2 and a before b, all sequentially consistent: either b sees the
//! request, or 2 sees the thread and the signal comes in or before c.
//!
//! For a nudge, b and e also take the request. Neither loses it: what b takes
//! stops the run that was about to begin, and e takes one only if the flag is
//! set, so that the run that just ended, or the next one if it ended in the
//! instant before, is reported as stopped; and that is after 1. If 1 comes
//! after b or e, the request waits for the next b, with or without a signal.
//! What can happen is the opposite: the signal of a request that b or e took
//! arrives behind it, and stops one more run for nothing.
#![allow(unsafe_code, reason = "signal handlers, tgkill and POSIX timers")]

mod alarm;
mod signal;

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::time::Duration;

pub use alarm::{Alarm, AlarmError};
pub use signal::SetupError;

thread_local! {
    /// The flag that makes the running call of this thread return at once.
    static FLAG: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    /// The timer that sends the signal again while a run is not left; none if once
    /// is enough. (Not null: that is a process's first timer.)
    static AGAIN: Cell<Option<libc::timer_t>> = const { Cell::new(None) };
    /// A signal came when there was no flag: an alarm between two runs.
    static MISSED: Cell<bool> = const { Cell::new(false) };
}

/// How long a run that is to stop may go on before the signal comes again.
pub const AGAIN_EVERY: Duration = Duration::from_micros(100);

/// The running side: one for each vCPU.
#[derive(Debug, Default)]
pub struct Target(Arc<State>);

/// The stopping side: stops the target's run from any thread.
#[derive(Debug, Clone)]
pub struct Kicker(Arc<State>);

#[derive(Debug, Default)]
struct State {
    requested: AtomicBool,
    nudged: AtomicBool,
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
    /// Returns `None` if a kick is already asked for, or if since the last run
    /// there was a nudge, which this uses up, or an alarm: do not run now.
    ///
    /// A caller that leaves the flag set, because the run came to something
    /// else before it was seen, must let it stop the next run.
    ///
    /// # Safety
    ///
    /// `flag` must stay readable and writable until the guard is dropped, and
    /// the guard must not be leaked: a signal handler on this thread writes 1
    /// to it.
    pub unsafe fn enter(&self, flag: *mut u8) -> Option<Running<'_>> {
        AGAIN.set(None);
        // SAFETY: the caller's promise.
        unsafe { self.publish(flag) }
    }

    /// The same for a run that does not look at the flag, and that a signal stops
    /// only while it waits in the system: one that comes in the instant before
    /// would be lost. So the signal comes again, each [`AGAIN_EVERY`], until the
    /// guard is dropped.
    ///
    /// # Errors
    ///
    /// [`AlarmError`] if the system has no timer left, at a thread's first.
    ///
    /// # Safety
    ///
    /// As for [`enter`](Self::enter).
    ///
    /// # Cost
    ///
    /// One system call at a thread's first; then one for each signal, and one for
    /// each run that was stopped.
    pub unsafe fn enter_until_stopped(
        &self,
        flag: *mut u8,
    ) -> Result<Option<Running<'_>>, AlarmError> {
        AGAIN.set(Some(alarm::again()?));
        // SAFETY: the caller's promise.
        Ok(unsafe { self.publish(flag) })
    }

    /// # Safety
    ///
    /// As for [`enter`](Self::enter).
    unsafe fn publish(&self, flag: *mut u8) -> Option<Running<'_>> {
        FLAG.set(flag);
        self.0.thread.store(signal::thread_id(), Ordering::SeqCst);
        let running = Running { state: &self.0, this_thread: PhantomData };
        let nudged = self.0.nudged.swap(false, Ordering::SeqCst);
        let stop = MISSED.replace(false) | nudged | self.is_requested();
        (!stop).then_some(running)
    }
}

/// While it lives, kicks and nudges reach this thread.
#[derive(Debug)]
pub struct Running<'a> {
    state: &'a State,
    this_thread: PhantomData<*mut ()>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.state.thread.store(0, Ordering::SeqCst);
        let again = AGAIN.replace(None);
        let flag = FLAG.replace(ptr::null_mut());
        // SAFETY: not null, as `enter` put it here, whose caller keeps it
        // readable until this returns.
        let flag = unsafe { AtomicU8::from_ptr(flag) };
        if flag.load(Ordering::SeqCst) != 0 {
            self.state.nudged.store(false, Ordering::SeqCst);
            // The handler has armed it. What is on its way already stops one
            // more run for nothing.
            signal::send_later(again, Duration::ZERO);
        }
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
        self.interrupt();
    }

    /// Makes the current run return, or the next one if none is under way, to
    /// look at something that the caller did before; it is no request to end.
    ///
    /// Nudges that come before the stop are one. After it, one more run may
    /// stop for nothing.
    ///
    /// # Cost
    ///
    /// One system call if the target runs, else none. Never waits.
    pub fn nudge(&self) {
        self.0.nudged.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    fn interrupt(&self) {
        let thread = self.0.thread.load(Ordering::SeqCst);
        if thread != 0 {
            signal::send(thread);
        }
    }
}

#[cfg(test)]
mod tests;
