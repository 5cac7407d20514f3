//! An executor for the calling task.

use core::convert::Infallible;
use core::fmt;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use embassy_executor::{Spawner, raw};

use crate::future::block_on;
use crate::sync::WaitError;

/// Runs Embassy's tasks on the task that calls [`Executor::run`].
///
/// It is what is called a thread-mode executor elsewhere, but a guest may have
/// any number, each in a task with a priority of its own: a more urgent one
/// preempts the others.
///
/// An Embassy task that waits without `.await`, as [`Semaphore::take`] does, has
/// all tasks of its executor wait.
///
/// ```no_run
/// use cellule_guest::embassy::Executor;
/// use embassy_time::Timer;
///
/// #[embassy_executor::task]
/// async fn blink() {
///     loop {
///         Timer::after_millis(500).await;
///     }
/// }
///
/// // Or `StaticCell::init`, of the crate `static_cell`.
/// Box::leak(Box::new(Executor::new())).run(|spawner| spawner.spawn(blink().unwrap()));
/// ```
///
/// [`Semaphore::take`]: crate::sync::Semaphore::take
#[derive(Default)]
pub struct Executor {
    /// Of the task that runs it.
    waker: Option<Waker>,
    raw: Option<raw::Executor>,
}

impl Executor {
    /// An executor that does not run yet.
    pub const fn new() -> Self {
        Self { waker: None, raw: None }
    }

    /// Calls `init` with what spawns tasks, and runs these for ever.
    ///
    /// Other tasks may spawn here with `spawner.make_send()`.
    ///
    /// # Panics
    ///
    /// Where one may not wait: in a timer's function or a critical section.
    ///
    /// # Blocking
    ///
    /// The calling task sleeps while none of its tasks is ready. That another task
    /// calls this wait off changes nothing.
    pub fn run(&'static mut self, init: impl FnOnce(Spawner)) -> ! {
        let waker: &Waker = self.waker.insert(own_waker());
        // The pender is told where that waker is.
        let raw: &raw::Executor =
            self.raw.insert(raw::Executor::new((&raw const *waker).cast_mut().cast()));
        init(raw.spawner());
        loop {
            let Err(_called_off) = block_on(poll_fn(|_| {
                // SAFETY: not reentrant: `raw` is reached through this call alone,
                // as `self` is borrowed for ever, and the pender only wakes.
                unsafe { raw.poll() };
                Poll::<Infallible>::Pending
            }));
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("runs", &self.raw.is_some()).finish()
    }
}

/// What wakes the running task from [`block_on`].
#[expect(clippy::panic, reason = "there is nobody to whom an error could be returned")]
fn own_waker() -> Waker {
    loop {
        match block_on(poll_fn(|context| Poll::Ready(context.waker().clone()))) {
            Ok(waker) => return waker,
            Err(WaitError::Cancelled) => {}
            Err(error) => panic!("an executor cannot run here: {error}"),
        }
    }
}

/// Called by an executor that has something to poll.
#[unsafe(export_name = "__pender")]
fn pend(context: *mut ()) {
    // SAFETY: the only executors are those of `Executor::run`, as each other
    // would come with a `__pender` of its own; their context is the waker, which
    // has its place for ever and is never written to again.
    let waker = unsafe { &*context.cast::<Waker>() };
    waker.wake_by_ref();
}
