//! Futures on tasks: every waiting operation can be awaited too.
//!
//! A future stands in the same line as the tasks that wait, with the priority of
//! the task that polls it. When it is its turn, it is woken and tries again; if
//! another was faster, it has kept its place. Dropping one loses nothing: what it
//! was told is told to the next in line.
//!
//! Any executor will do. [`block_on`] is the smallest: it runs one future on the
//! calling task, which sleeps meanwhile.
//!
//! ```
//! use cellule_guest::sync::Queue;
//! use cellule_guest::{future, task};
//!
//! static NUMBERS: Queue<u32, 4> = Queue::new();
//!
//! let sum = task::spawn(|| {
//!     future::block_on(async {
//!         let mut sum = 0;
//!         for _ in 0..10 {
//!             sum += NUMBERS.receive_async().await;
//!         }
//!         sum
//!     })
//! })?;
//! future::block_on(async {
//!     for number in 1..=10 {
//!         NUMBERS.send_async(number).await;
//!     }
//! })?;
//! assert_eq!(sum.join()??, 55);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::future::{Future, IntoFuture};
use core::pin::{Pin, pin};
use core::ptr;
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use cellule_rtos::{NoRoom, TaskId};

use crate::kernel::{Job, Section};
use crate::sync::WaitError;

mod listening;
mod sleep;

pub(crate) use listening::{Announcement, Listening};
pub use sleep::{sleep, sleep_until};

/// Runs a future to its end on the calling task, which waits while it waits.
///
/// ```
/// use cellule_guest::future::block_on;
/// use cellule_guest::sync::Semaphore;
/// use cellule_guest::task;
///
/// static GO: Semaphore = Semaphore::binary();
///
/// let other = task::spawn(|| block_on(GO.take_async()))?;
/// GO.give()?;
/// assert_eq!(other.join()?, Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`WaitError::WrongContext`] where one may not wait, and
/// [`WaitError::Cancelled`] if another task called the wait off: the future is
/// dropped.
///
/// # Blocking
///
/// Until the future is ready.
///
/// # Cost
///
/// No allocation: the task's id is the waker.
pub fn block_on<F: IntoFuture>(future: F) -> Result<F::Output, WaitError> {
    let mut future = pin!(future.into_future());
    let mut section = Section::enter();
    if !section.can_wait() {
        return Err(WaitError::WrongContext);
    }
    let task = section.current();
    section.thread(task).woken = false;
    drop(section);
    let waker = waker_of(task);
    let mut context = Context::from_waker(&waker);
    let result = loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            break Ok(value);
        }
        if let Err(error) = park(task) {
            break Err(error);
        }
    };
    // If this is within another future of the same task, a wake that was meant
    // for that one may have been used up here: it is polled once more.
    Section::enter().thread(task).woken = true;
    result
}

/// Waits until the running task's waker is woken.
fn park(task: TaskId) -> Result<(), WaitError> {
    let mut section = Section::enter();
    if !core::mem::take(&mut section.thread(task).woken) {
        section.thread(task).item = parked();
        section.block();
        let waited = section.wait();
        section = Section::enter();
        section.thread(task).item = ptr::null_mut();
        section.thread(task).woken = false;
        waited?;
    }
    Ok(())
}

/// What the item of a task is that waits for its waker, and for nothing else: a
/// wake that comes late must not end another wait.
fn parked() -> *mut () {
    static PARKED: u8 = 0;
    (&raw const PARKED).cast_mut().cast()
}

const TASK_WAKER: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &TASK_WAKER), wake_task, wake_task, |_| {});

/// A waker of a task, which may outlive it: ids are not used again.
fn waker_of(task: TaskId) -> Waker {
    #[expect(clippy::cast_possible_truncation, reason = "x86-64: a word has 64 bits")]
    let data = ptr::without_provenance(task.to_bits() as usize);
    // SAFETY: the functions of the table keep to the contract of `RawWaker`: they
    // use `data` as a number only, own nothing, and may be called from any thread.
    unsafe { Waker::from_raw(RawWaker::new(data, &TASK_WAKER)) }
}

fn wake_task(data: *const ()) {
    let task = TaskId::from_bits(data.addr() as u64);
    let mut section = Section::enter();
    if !section.is_alive(task) {
        return;
    }
    section.thread(task).woken = true;
    if section.thread(task).item == parked() {
        section.release(task, 0);
        section.reschedule();
    }
}

/// An operation that may have to wait, for [`Waiting`].
pub(crate) trait Operation {
    type Output;

    /// Does it, if it need not wait.
    fn attempt(&mut self, section: &mut Section) -> Option<Self::Output>;

    /// Takes a place in the object's line.
    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom>;

    /// Puts a notified place back where it was.
    fn enlist_again(&mut self, section: &mut Section, place: TaskId);

    /// What a notified place was told is told to the next in line.
    fn pass_on(&mut self, section: &mut Section);
}

/// An operation as a future.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Waiting<O: Operation> {
    operation: O,
    /// Its place in line, if it has one.
    place: TaskId,
}

/// Nothing in it is pinned.
impl<O: Operation> Unpin for Waiting<O> {}

impl<O: Operation> Waiting<O> {
    pub(crate) const fn new(operation: O) -> Self {
        Self { operation, place: TaskId::NONE }
    }

    /// Tries, and if that succeeds leaves the line.
    fn attempt(&mut self, section: &mut Section) -> Option<(O::Output, Option<Job>)> {
        let output = self.operation.attempt(section)?;
        let place = core::mem::replace(&mut self.place, TaskId::NONE);
        let (job, notified) = give_up(section, place);
        if notified {
            // There may be more than it was told of and took.
            self.operation.pass_on(section);
        }
        Some((output, job))
    }

    /// Takes a place, or goes back to the one it has.
    fn stand(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        if section.id_at(self.place.number()) == self.place && self.place != TaskId::NONE {
            self.operation.enlist_again(section, self.place);
        } else {
            section.reserve(1)?;
            self.place = self.operation.enlist(section)?;
        }
        Ok(self.place)
    }
}

impl Section {
    /// Leaves, once it has noted who polls the future with this place or timer,
    /// and what wakes it. Without a place, it is to ask again and again.
    pub(crate) fn pend(mut self, place: Result<TaskId, NoRoom>, waker: Waker) {
        let Ok(place) = place else {
            drop(self);
            return waker.wake();
        };
        let poller = self.current();
        self.thread(place).poller = poller.to_bits();
        let before = self.set_job(place, Job::Wake(waker));
        self.reschedule();
        drop(before);
    }
}

/// Gives a place up: its job, to be dropped outside of the section, and whether
/// it had been notified.
pub(crate) fn give_up(section: &mut Section, place: TaskId) -> (Option<Job>, bool) {
    if place == TaskId::NONE || section.id_at(place.number()) != place {
        return (None, false);
    }
    let thread = section.thread(place);
    thread.poller = 0;
    (thread.job.take(), section.delist(place))
}

impl<O: Operation> Future for Waiting<O> {
    type Output = O::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        let this = self.get_mut();
        let mut section = Section::enter();
        let mut done = this.attempt(&mut section);
        if done.is_none() {
            // A waker is a user's code: not in a section.
            drop(section);
            let waker = context.waker().clone();
            section = Section::enter();
            done = this.attempt(&mut section);
            if done.is_none() {
                let place = this.stand(&mut section);
                section.pend(place, waker);
                return Poll::Pending;
            }
        }
        section.reschedule();
        // The job is dropped here, after the section.
        done.map_or(Poll::Pending, |(output, _)| Poll::Ready(output))
    }
}

impl<O: Operation> Drop for Waiting<O> {
    fn drop(&mut self) {
        if self.place == TaskId::NONE {
            return;
        }
        let mut section = Section::enter();
        let (job, notified) = give_up(&mut section, self.place);
        if notified {
            self.operation.pass_on(&mut section);
        }
        section.reschedule();
        drop(job);
    }
}

#[cfg(test)]
mod tests;
