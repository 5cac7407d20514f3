//! A deadline for the current thread's run.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::time::{Duration, Instant};

use crate::signal;

/// A timer could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot arm a timer for a deadline: {0}")]
pub struct AlarmError(#[source] io::Error);

thread_local! {
    /// Made at a thread's first alarm, deleted with the thread.
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// While it lives, the thread that made it gets the signal at a point in time.
///
/// Alarms nest: the outer one is armed again when the inner one is dropped.
///
/// # Cost
///
/// Two system calls; one more at a thread's first.
#[derive(Debug)]
pub struct Alarm {
    outer: Option<Instant>,
    this_thread: PhantomData<*mut ()>,
}

impl Alarm {
    /// Arms the thread's timer for `deadline`.
    ///
    /// # Errors
    ///
    /// [`AlarmError`] if the system has no timer left.
    pub fn at(deadline: Instant) -> Result<Self, AlarmError> {
        let outer = arm(Some(deadline)).map_err(AlarmError)?;
        Ok(Self { outer, this_thread: PhantomData })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Setting a timer that exists cannot fail.
        let _ = arm(self.outer);
    }
}

/// Arms or disarms this thread's timer, and returns what it was armed for.
fn arm(deadline: Option<Instant>) -> io::Result<Option<Instant>> {
    TIMER.with_borrow_mut(|slot| {
        let timer = match slot {
            Some(timer) => timer,
            None => slot.insert(Timer::new()?),
        };
        // Zero would disarm: a deadline in the past is one nanosecond away.
        timer.set(deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
        }))?;
        Ok(mem::replace(&mut timer.deadline, deadline))
    })
}

/// A POSIX timer that signals the thread that made it.
#[derive(Debug)]
struct Timer {
    id: libc::timer_t,
    deadline: Option<Instant>,
}

impl Timer {
    fn new() -> io::Result<Self> {
        // SAFETY: all zeros is a valid sigevent; the fields that count are set below.
        let mut event = unsafe { MaybeUninit::<libc::sigevent>::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal::number();
        event.sigev_notify_thread_id = signal::thread_id();
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to live locals of the right types.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if made != 0 { Err(signal::last_error()) } else { Ok(Self { id: timer, deadline: None }) }
    }

    /// Rings once after `left`; zero disarms.
    fn set(&mut self, left: Duration) -> io::Result<()> {
        // SAFETY: all zeros is a valid itimerspec.
        let mut spec = unsafe { MaybeUninit::<libc::itimerspec>::zeroed().assume_init() };
        spec.it_value.tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        spec.it_value.tv_nsec = i64::from(left.subsec_nanos());
        // SAFETY: the timer exists until this is dropped; the spec is a live local.
        let set = unsafe { libc::timer_settime(self.id, 0, &raw const spec, ptr::null_mut()) };
        if set != 0 { Err(signal::last_error()) } else { Ok(()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by timer_create, deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}
