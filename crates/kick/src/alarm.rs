//! A deadline for the current thread's run.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use crate::signal;

/// A timer could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot arm a timer for a deadline: {0}")]
pub struct AlarmError(#[source] io::Error);

thread_local! {
    /// Made at a thread's first alarm, deleted with the thread.
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
    /// The same, for the signal that comes again.
    static AGAIN: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// This thread's timer for a signal that must come again. It lives as long as the
/// thread.
pub(crate) fn again() -> Result<libc::timer_t, AlarmError> {
    with(&AGAIN, |timer| Ok(timer.id))
}

/// While it lives, the thread that made it gets the signal at a point in time.
///
/// Alarms nest: only the innermost is armed, and the outer one is armed again
/// when the inner one is dropped. They are dropped in reverse order; one that
/// is dropped earlier takes those within it along.
///
/// # Cost
///
/// Two system calls; one more at a thread's first.
#[derive(Debug)]
pub struct Alarm {
    /// How many alarms of this thread are around it.
    level: usize,
    this_thread: PhantomData<*mut ()>,
}

impl Alarm {
    /// Arms the thread's timer for `deadline`.
    ///
    /// # Errors
    ///
    /// [`AlarmError`] if the system has no timer left.
    pub fn at(deadline: Instant) -> Result<Self, AlarmError> {
        Self::new(Some(deadline))
    }

    /// Makes an alarm that does not ring until it is [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// [`AlarmError`] if the system has no timer left.
    ///
    /// # Cost
    ///
    /// None but for a thread's first, and if an outer alarm must be disarmed.
    pub fn silent() -> Result<Self, AlarmError> {
        Self::new(None)
    }

    fn new(deadline: Option<Instant>) -> Result<Self, AlarmError> {
        with_timer(|timer| {
            timer.arm(deadline)?;
            timer.held.push(deadline);
            Ok(Self { level: timer.held.len() - 1, this_thread: PhantomData })
        })
    }

    /// Moves the alarm, or silences it.
    ///
    /// An alarm rings once for each time that it is set to. One that rings
    /// while it is moved may still stop a run. If there are alarms within this
    /// one, it takes effect when they are gone.
    ///
    /// # Errors
    ///
    /// [`AlarmError`] if the system refuses, which it has no reason to.
    ///
    /// # Cost
    ///
    /// One system call; none if it is set to that already.
    pub fn set(&mut self, deadline: Option<Instant>) -> Result<(), AlarmError> {
        with_timer(|timer| {
            if let Some(held) = timer.held.get_mut(self.level) {
                *held = deadline;
            }
            if timer.held.len() == self.level + 1 { timer.arm(deadline) } else { Ok(()) }
        })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Setting a timer that exists cannot fail.
        let _ = with_timer(|timer| {
            timer.held.truncate(self.level);
            timer.rearm(timer.held.last().copied().flatten())
        });
    }
}

/// Does something with this thread's timer, and makes it the first time.
fn with_timer<T>(act: impl FnOnce(&mut Timer) -> io::Result<T>) -> Result<T, AlarmError> {
    with(&TIMER, act)
}

/// The same with either timer. A thread that is ending may have none any more.
fn with<T>(
    timer: &'static LocalKey<RefCell<Option<Timer>>>,
    act: impl FnOnce(&mut Timer) -> io::Result<T>,
) -> Result<T, AlarmError> {
    let done = timer.try_with(|slot| {
        let mut slot = slot.borrow_mut();
        let timer = match &mut *slot {
            Some(timer) => timer,
            none => none.insert(Timer::new()?),
        };
        act(timer)
    });
    done.map_err(|ended| AlarmError(io::Error::other(ended)))?.map_err(AlarmError)
}

/// A POSIX timer that signals the thread that made it.
#[derive(Debug)]
struct Timer {
    id: libc::timer_t,
    /// What it was last armed for.
    armed: Option<Instant>,
    /// The alarms, outermost first; the last is the one that counts.
    held: Vec<Option<Instant>>,
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
        if made != 0 {
            return Err(signal::last_error());
        }
        Ok(Self { id: timer, armed: None, held: Vec::new() })
    }

    /// Arms or disarms it, if it is not so already.
    fn arm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.armed == deadline { Ok(()) } else { self.set(deadline) }
    }

    /// The same for an outer alarm: its time may be that of the inner one,
    /// whose signal is used up.
    fn rearm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if deadline.is_none() { self.arm(None) } else { self.set(deadline) }
    }

    fn set(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        // Zero would disarm: a deadline in the past is one nanosecond away.
        let left = deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
        });
        // SAFETY: all zeros is a valid itimerspec.
        let mut spec = unsafe { MaybeUninit::<libc::itimerspec>::zeroed().assume_init() };
        spec.it_value.tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        spec.it_value.tv_nsec = i64::from(left.subsec_nanos());
        // SAFETY: the timer exists until this is dropped; the spec is a live local.
        let set = unsafe { libc::timer_settime(self.id, 0, &raw const spec, ptr::null_mut()) };
        if set != 0 {
            return Err(signal::last_error());
        }
        self.armed = deadline;
        Ok(())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by timer_create, deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}
