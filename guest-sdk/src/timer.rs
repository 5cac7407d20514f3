//! Timers and watchdogs.
//!
//! A [`Timer`] expires once or again and again; it calls a function, or tasks
//! wait for it, or both. A [`Watchdog`] expects to be fed, and bites.
//!
//! Expiring costs no exit that the processor's own timer would not.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::{self, NonNull};
use core::time::Duration;

use cellule_rtos::{Condition, End, NoRoom, Outcome, TaskId};

use crate::future::{Announcement, Listening};
use crate::kernel::{self, Core, Job, Section, SectionCell};
use crate::sync::WaitError;
use crate::task::Task;
use crate::time::{Instant, Timeout};

mod watchdog;

pub use watchdog::{Action, Watchdog};

/// A timer, for one time or for every period.
///
/// Its function runs between tasks, on no task's behalf: it must be short, and
/// may give, set and send what others wait for, but not wait itself
/// ([`WaitError::WrongContext`]).
///
/// Timers and timeouts that are due in the same moment come in the order of their
/// deadlines, then in that in which they were armed, and each function is done
/// before the next comes: who waits at most until then for what an earlier timer's
/// function gives is given it.
///
/// ```
/// use cellule_guest::sync::{Semaphore, Timeout};
/// use cellule_guest::time::{self, Duration};
/// use cellule_guest::timer::Timer;
///
/// static TICKS: Semaphore = Semaphore::new(0, 100);
/// static TICKER: Timer = Timer::calling(|| { let _ = TICKS.give(); });
///
/// TICKER.start_periodic(Duration::from_millis(10), Duration::from_millis(10))?;
/// let start = time::now();
/// for _ in 0..5 {
///     TICKS.take(Timeout::Forever)?;
/// }
/// assert_eq!(time::now(), start + Duration::from_millis(50));
/// assert!(TICKER.stop());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A task that waits for the timer itself:
///
/// ```
/// use cellule_guest::sync::Timeout;
/// use cellule_guest::time::{self, Duration};
/// use cellule_guest::timer::Timer;
///
/// let timer = Timer::new();
/// timer.start_periodic(Duration::ZERO, Duration::from_secs(1))?;
/// assert_eq!(timer.wait(Timeout::Forever)?, 1);
/// time::sleep(Duration::from_millis(3500))?;
/// assert_eq!(timer.wait(Timeout::Forever)?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Timer {
    handler: Handler,
    /// There from the first start to the end: a task that is killed leaves the
    /// timers on its stack running, so what they use must not be there.
    shared: SectionCell<Option<NonNull<Shared>>>,
}

// SAFETY: `Handler::With` is of a `&'static T` with `T: Sync` (`Timer::calling_with`),
// and `Shared` is reached within sections only.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

/// What is done when a timer expires.
#[derive(Clone, Copy)]
enum Handler {
    Nothing,
    Call(fn()),
    /// A function that takes a reference, and that reference.
    With(fn(*const ()), *const ()),
    Kill(TaskId),
}

struct Shared {
    id: TaskId,
    handler: Handler,
    expiries: SectionCell<Expiries>,
}

#[derive(Debug, Default)]
struct Expiries {
    active: bool,
    periodic: bool,
    /// How often it has expired that no task was told of.
    untold: u64,
    waiters: Condition,
}

/// What those are told who wait, as a number.
struct Told {
    /// How often it has expired.
    times: u64,
    /// Whether nobody else was told.
    alone: bool,
}

impl Told {
    fn to_number(&self) -> u64 {
        self.times.min(u64::MAX >> 1) << 1 | u64::from(self.alone)
    }

    const fn of_number(number: u64) -> Self {
        Self { times: number >> 1, alone: number & 1 == 1 }
    }
}

/// A timer could not be started.
///
/// ```
/// use cellule_guest::time::Duration;
/// use cellule_guest::timer::{StartError, Timer};
///
/// let refused = Timer::new().start_periodic(Duration::from_secs(1), Duration::ZERO);
/// assert_eq!(refused, Err(StartError::ZeroPeriod));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// It would expire all the time.
    ZeroPeriod,
    /// There is no memory left, or there are 65535 tasks, futures and timers.
    NoMemory,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroPeriod => "a timer's period must not be zero",
            Self::NoMemory => "no memory for another timer",
        })
    }
}

impl core::error::Error for StartError {}

/// There is no memory for a timer.
struct NoMemory;

impl From<NoMemory> for StartError {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl Timer {
    /// A timer for tasks to wait for.
    pub const fn new() -> Self {
        Self::with_handler(Handler::Nothing)
    }

    /// A timer that calls a function.
    pub const fn calling(function: fn()) -> Self {
        Self::with_handler(Handler::Call(function))
    }

    /// A timer that calls a function with a reference.
    ///
    /// ```
    /// use cellule_guest::sync::{EventFlags, Timeout};
    /// use cellule_guest::time::Duration;
    /// use cellule_guest::timer::Timer;
    ///
    /// static FLAGS: EventFlags = EventFlags::new();
    /// static TIMER: Timer = Timer::calling_with(|flags| flags.set(1), &FLAGS);
    ///
    /// TIMER.start_once(Duration::from_secs(1))?;
    /// assert_eq!(FLAGS.wait_any(1, Timeout::Forever)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn calling_with<T: Sync>(function: fn(&'static T), argument: &'static T) -> Self {
        // SAFETY: a `&T` is passed as a `*const ()` is ("ABI compatibility" of the
        // primitive type fn), and `argument` is what the function is called with.
        let function = unsafe { core::mem::transmute::<fn(&'static T), fn(*const ())>(function) };
        Self::with_handler(Handler::With(function, ptr::from_ref(argument).cast()))
    }

    const fn with_handler(handler: Handler) -> Self {
        Self { handler, shared: SectionCell::new(None) }
    }

    /// Lets it expire once, after `delay`; zero is at once. A timer that runs is
    /// started anew.
    ///
    /// # Errors
    ///
    /// [`StartError::NoMemory`]
    ///
    /// # Cost
    ///
    /// O(log n); an allocation when a timer is first started.
    pub fn start_once(&self, delay: Duration) -> Result<(), StartError> {
        self.start_once_at(kernel::now() + delay)
    }

    /// Lets it expire once, at `instant`: at once, if that has passed.
    ///
    /// # Errors
    ///
    /// [`StartError::NoMemory`]
    pub fn start_once_at(&self, instant: Instant) -> Result<(), StartError> {
        self.start(instant, 0)
    }

    /// Lets it expire after `first`, and every `period` from then on. It does not
    /// drift: an expiry that comes late does not delay the next.
    ///
    /// # Errors
    ///
    /// [`StartError`]
    pub fn start_periodic(&self, first: Duration, period: Duration) -> Result<(), StartError> {
        self.start_periodic_at(kernel::now() + first, period)
    }

    /// Lets it expire at `first`, and every `period` from then on. Expiries that
    /// have passed count, and come as one.
    ///
    /// # Errors
    ///
    /// [`StartError`]
    pub fn start_periodic_at(&self, first: Instant, period: Duration) -> Result<(), StartError> {
        if period.is_zero() {
            return Err(StartError::ZeroPeriod);
        }
        self.start(first, u64::try_from(period.as_nanos()).unwrap_or(u64::MAX))
    }

    fn start(&self, first: Instant, period_ns: u64) -> Result<(), StartError> {
        let shared = self.shared()?;
        let mut section = Section::enter();
        shared.start(&mut section, first, period_ns);
        section.reschedule();
        Ok(())
    }

    /// Lets it expire no more. Whether it would have.
    pub fn stop(&self) -> bool {
        let mut section = Section::enter();
        let Some(shared) = self.existing(&mut section) else { return false };
        section.stop_timer(shared.id);
        let stop = |expiries: &mut Expiries, _: &mut Core| core::mem::take(&mut expiries.active);
        shared.expiries.with(&mut section, stop)
    }

    /// Whether it will expire.
    pub fn is_active(&self) -> bool {
        let mut section = Section::enter();
        let shared = self.existing(&mut section);
        shared
            .is_some_and(|shared| shared.expiries.with(&mut section, |expiries, _| expiries.active))
    }

    /// Waits for the next expiry, or takes note of those that nobody has waited
    /// for since the start. Returns how many.
    ///
    /// All tasks that wait when it expires are told.
    ///
    /// # Errors
    ///
    /// [`WaitError`]; [`WaitError::NoMemory`] only if it was never started.
    ///
    /// # Blocking
    ///
    /// Until it expires or the time is over; also if it is not active.
    pub fn wait(&self, timeout: impl Into<Timeout>) -> Result<u64, WaitError> {
        let timeout = timeout.into();
        let shared = self.shared().map_err(|NoMemory| WaitError::NoMemory)?;
        let mut section = Section::enter();
        let untold = |expiries: &mut Expiries, _: &mut Core| core::mem::take(&mut expiries.untold);
        let times = shared.expiries.with(&mut section, untold);
        if times > 0 {
            return Ok(times);
        }
        let patience = section.patience(timeout);
        if patience == cellule_rtos::Patience::None {
            return Err(section.refusal(timeout));
        }
        let wait = |expiries: &mut Expiries, core: &mut Core| expiries.waiters.wait(core, patience);
        shared.expiries.with(&mut section, wait);
        match section.wait()? {
            Outcome::Granted(number) => Ok(Told::of_number(number).times),
            _ => Ok(0),
        }
    }

    /// Waits as a future, as [`Timer::wait`].
    ///
    /// ```
    /// use cellule_guest::future::block_on;
    /// use cellule_guest::time::{self, Duration};
    /// use cellule_guest::timer::Timer;
    ///
    /// let timer = Timer::new();
    /// let start = time::now();
    /// timer.start_periodic(Duration::from_secs(1), Duration::from_secs(1))?;
    /// let expiries = block_on(async { timer.wait_async().await? ; timer.wait_async().await })?;
    /// assert_eq!((expiries?, time::now()), (1, start + Duration::from_secs(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WaitError::NoMemory`], only if it was never started.
    ///
    /// # Blocking
    ///
    /// Dropped, it has taken note of nothing: an expiry of which only it was told
    /// is one that nobody has waited for.
    pub async fn wait_async(&self) -> Result<u64, WaitError> {
        let shared = self.shared().map_err(|NoMemory| WaitError::NoMemory)?;
        Ok(Told::of_number(Listening::new(Expiring { shared }).await).times)
    }

    /// What it has once it was started.
    fn existing(&self, section: &mut Section) -> Option<&Shared> {
        let shared = self.shared.with(section, |shared, _| *shared)?;
        // SAFETY: made by `shared`, and freed with this timer only.
        Some(unsafe { shared.as_ref() })
    }

    /// The same, made now if need be.
    fn shared(&self) -> Result<&Shared, NoMemory> {
        let mut section = Section::enter();
        if let Some(shared) = self.existing(&mut section) {
            return Ok(shared);
        }
        drop(section);
        // One in a `Vec`: a `Box` cannot be tried for.
        let mut made = Vec::new();
        made.try_reserve_exact(1).map_err(|_| NoMemory)?;
        let mut section = Section::enter();
        if let Some(shared) = self.existing(&mut section) {
            drop(section);
            return Ok(shared);
        }
        section.reserve(1).map_err(|_| NoMemory)?;
        let id = section.create_timer().map_err(|_| NoMemory)?;
        made.push(Shared { id, handler: self.handler, expiries: SectionCell::default() });
        let shared = NonNull::from(Box::leak(made.into_boxed_slice())).cast::<Shared>();
        let job = Job::Call(expired, shared.as_ptr().expose_provenance());
        let before = section.set_job(id, job);
        self.shared.with(&mut section, |place, _| *place = Some(shared));
        drop(section);
        drop(before);
        // SAFETY: just made, and freed with this timer only.
        Ok(unsafe { shared.as_ref() })
    }

    /// Whether it was started, has expired, and will not again.
    fn has_expired(&self) -> bool {
        let mut section = Section::enter();
        let Some(shared) = self.existing(&mut section) else { return false };
        shared.expiries.with(&mut section, |expiries, _| !expiries.active && expiries.untold > 0)
    }

    /// Starts it anew if it is active; whether it is.
    fn restart(&self, first: Instant) -> bool {
        let mut section = Section::enter();
        let Some(shared) = self.existing(&mut section) else { return false };
        let active = shared.expiries.with(&mut section, |expiries, _| expiries.active);
        if active {
            shared.start(&mut section, first, 0);
        }
        section.reschedule();
        active
    }
}

impl Shared {
    fn start(&self, section: &mut Section, first: Instant, period_ns: u64) {
        self.expiries.with(section, |expiries, _| {
            (expiries.active, expiries.periodic, expiries.untold) = (true, period_ns != 0, 0);
        });
        section.start_timer(self.id, first.as_nanos(), period_ns);
        let now = kernel::now();
        if first <= now {
            section.advance(now.as_nanos());
        }
    }
}

/// A timer has expired: the job of its slot.
fn expired(shared: usize, times: u64) {
    let shared = ptr::with_exposed_provenance::<Shared>(shared);
    // SAFETY: the address is that of a `Shared`, which a timer frees only after
    // its slot, with this job, is gone; nothing else has run since the kernel
    // read the job from there.
    let shared = unsafe { &*shared };
    let mut section = Section::enter();
    shared.expiries.with(&mut section, |expiries, core| {
        expiries.active &= expiries.periodic;
        match expiries.waiters.len(core) {
            0 => expiries.untold = expiries.untold.saturating_add(times),
            waiters => {
                let told = Told { times, alone: waiters == 1 }.to_number();
                while expiries.waiters.notify_one_of(core, told) {}
            }
        }
    });
    let handler = shared.handler;
    section.reschedule();
    // From here on the timer may be dropped, by the function itself.
    handler.run();
}

/// The `Shared` stays: the timer is borrowed.
struct Expiring<'a> {
    shared: &'a Shared,
}

impl Announcement for Expiring<'_> {
    fn attempt(&mut self, section: &mut Section) -> Option<u64> {
        let untold = |expiries: &mut Expiries, _: &mut Core| core::mem::take(&mut expiries.untold);
        let times = self.shared.expiries.with(section, untold);
        (times > 0).then(|| Told { times, alone: true }.to_number())
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        let expiries = &self.shared.expiries;
        expiries.with(section, |expiries, core| core.enlist(expiries.waiters.waiters(), 0))
    }

    fn unheard(&mut self, section: &mut Section, number: u64) {
        let Told { times, alone } = Told::of_number(number);
        self.shared.expiries.with(section, |expiries, _| {
            if alone {
                expiries.untold = expiries.untold.saturating_add(times);
            }
        });
    }
}

impl Handler {
    fn run(self) {
        match self {
            Self::Nothing => {}
            Self::Call(function) => function(),
            Self::With(function, argument) => function(argument),
            Self::Kill(task) => {
                let mut section = Section::enter();
                let start = section.end(task, End::Killed);
                section.reschedule();
                drop(start);
            }
        }
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.get_mut().take() else { return };
        // SAFETY: made by `shared`, and not freed yet.
        let id = unsafe { shared.as_ref() }.id;
        let mut section = Section::enter();
        section.remove_timer(id);
        let job = section.thread(id).job.take();
        drop(section);
        drop(job);
        let shared = ptr::slice_from_raw_parts_mut(shared.as_ptr(), 1);
        // SAFETY: it was leaked from such a box; the slot that knew it is gone.
        drop(unsafe { Box::from_raw(shared) });
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("active", &self.is_active()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
