//! A watchdog: what is to happen when a task no longer says that it is well.

use super::{Duration, Handler, StartError, Task, Timer, kernel};

/// Expects to be fed, and acts when it was not for too long.
///
/// ```
/// use cellule_guest::task;
/// use cellule_guest::time::{self, Duration};
/// use cellule_guest::timer::{Action, Watchdog};
///
/// let worker = task::spawn(|| loop {
///     time::work(Duration::from_millis(1)); // hangs
/// })?;
/// let watchdog = Watchdog::new(Duration::from_secs(1), Action::Kill(worker.task().clone()));
/// watchdog.start()?;
/// assert_eq!(worker.join(), Err(task::JoinError::Killed));
/// assert!(watchdog.has_expired());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Watchdog {
    timeout: Duration,
    action: Action,
    timer: Timer,
}

/// What a watchdog does.
///
/// ```
/// use cellule_guest::sync::{Semaphore, Timeout};
/// use cellule_guest::time::{self, Duration};
/// use cellule_guest::timer::{Action, Watchdog};
///
/// static LATE: Semaphore = Semaphore::new(0, 1);
/// static WATCHDOG: Watchdog =
///     Watchdog::new(Duration::from_secs(1), Action::Call(|| { let _ = LATE.give(); }));
///
/// WATCHDOG.start()?;
/// time::sleep(Duration::from_millis(900))?;
/// assert!(WATCHDOG.feed());
/// LATE.take(Timeout::Forever)?; // nobody feeds it any more
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub enum Action {
    /// It calls a function, as a [`Timer`] does.
    Call(fn()),
    /// It kills a task. See [`Task::kill`].
    Kill(Task),
}

impl Watchdog {
    /// A watchdog that does not watch yet.
    pub const fn new(timeout: Duration, action: Action) -> Self {
        let handler = match &action {
            Action::Call(function) => Handler::Call(*function),
            Action::Kill(task) => Handler::Kill(task.id()),
        };
        Self { timeout, action, timer: Timer::with_handler(handler) }
    }

    /// What it will do, or has done.
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// Begins to watch, or begins anew.
    ///
    /// # Errors
    ///
    /// [`StartError::NoMemory`]
    pub fn start(&self) -> Result<(), StartError> {
        self.timer.start_once(self.timeout)
    }

    /// Says that all is well. Whether it was in time: a watchdog that has acted,
    /// was stopped or never started stays as it is.
    ///
    /// # Cost
    ///
    /// O(log n)
    pub fn feed(&self) -> bool {
        self.timer.restart(kernel::now() + self.timeout)
    }

    /// Ends the watch; whether it was on.
    pub fn stop(&self) -> bool {
        self.timer.stop()
    }

    /// Whether it watches.
    pub fn is_active(&self) -> bool {
        self.timer.is_active()
    }

    /// Whether it has acted since the last start.
    pub fn has_expired(&self) -> bool {
        self.timer.has_expired()
    }
}
