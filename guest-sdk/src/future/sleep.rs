//! Waiting for a point in time, as a future.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use cellule_rtos::{NoRoom, TaskId};

use crate::kernel::{self, Section};
use crate::time::Instant;

/// Is ready after `duration`. Also as [`crate::time::sleep_async`].
///
/// ```
/// use cellule_guest::future::{block_on, sleep};
/// use cellule_guest::time::{self, Duration};
///
/// let before = time::now();
/// block_on(sleep(Duration::from_secs(1)))?;
/// assert_eq!(time::now(), before + Duration::from_secs(1));
/// # Ok::<(), cellule_guest::sync::WaitError>(())
/// ```
///
/// # Blocking
///
/// As a future; dropped, its timer is gone.
pub async fn sleep(duration: Duration) {
    sleep_until(kernel::now() + duration).await;
}

/// Is ready at `instant`; at once if that has passed. Also as
/// [`crate::time::sleep_until_async`].
///
/// # Blocking
///
/// As a future; dropped, its timer is gone.
pub async fn sleep_until(instant: Instant) {
    Sleep { until: instant, timer: TaskId::NONE }.await;
}

struct Sleep {
    until: Instant,
    /// Its timer, if it has one: it goes with the task that polls this.
    timer: TaskId,
}

impl Sleep {
    fn has_timer(&self, section: &Section) -> bool {
        self.timer != TaskId::NONE && section.id_at(self.timer.number()) == self.timer
    }

    fn provide_timer(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        if !self.has_timer(section) {
            section.reserve(1)?;
            self.timer = section.create_timer()?;
            section.start_timer(self.timer, self.until.as_nanos(), 0);
        }
        Ok(self.timer)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.until <= kernel::now() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let mut section = Section::enter();
        let timer = self.provide_timer(&mut section);
        // The host may have to be told of the deadline.
        section.pend(timer, waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.timer == TaskId::NONE {
            return;
        }
        let mut section = Section::enter();
        if self.has_timer(&section) {
            section.remove_timer(self.timer);
            let thread = section.thread(self.timer);
            thread.poller = 0;
            let job = thread.job.take();
            drop(section);
            drop(job);
        }
    }
}
