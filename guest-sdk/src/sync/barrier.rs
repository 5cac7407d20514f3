//! A barrier: tasks go on when so many have arrived.

use cellule_rtos as rtos;
use cellule_rtos::{Arrival, NoRoom, Patience, TaskId};

use super::WaitError;
use crate::future::{Announcement, Listening};
use crate::kernel::{Section, SectionCell};
use crate::time::Timeout;

/// A point that tasks pass together. It can be used again and again.
///
/// ```
/// use cellule_guest::sync::{Barrier, Timeout};
/// use cellule_guest::task;
///
/// static START: Barrier = Barrier::new(3);
///
/// let runners = [(); 2].map(|()| task::spawn(|| START.wait(Timeout::Forever)));
/// let mut leaders = usize::from(START.wait(Timeout::Forever)?);
/// for runner in runners {
///     leaders += usize::from(runner?.join()??);
/// }
/// assert_eq!(leaders, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Barrier {
    state: SectionCell<rtos::Barrier>,
    size: usize,
}

impl Barrier {
    /// A barrier for `size` tasks; zero is like one.
    pub const fn new(size: usize) -> Self {
        Self { state: SectionCell::new(rtos::Barrier::new()), size }
    }

    /// Waits until so many tasks are here. Whether this was the last to arrive,
    /// the leader.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: then this task does not count as here.
    ///
    /// # Blocking
    ///
    /// Until the last arrives or the time is over. A task that is killed while it
    /// waits does not count any more.
    ///
    /// # Cost
    ///
    /// O(w log w) for the last, with w others.
    pub fn wait(&self, timeout: impl Into<Timeout>) -> Result<bool, WaitError> {
        let timeout = timeout.into();
        let mut section = Section::enter();
        let patience = section.patience(timeout);
        match self.state.with(&mut section, |state, core| state.arrive(core, self.size, patience)) {
            Arrival::Last => section.reschedule(),
            Arrival::Busy => return Err(section.refusal(timeout)),
            Arrival::Waits => return section.wait().map(|_| false),
        }
        Ok(true)
    }

    /// Waits as a future: it arrives when it is first polled.
    ///
    /// ```
    /// use cellule_guest::future::block_on;
    /// use cellule_guest::sync::{Barrier, Timeout};
    /// use cellule_guest::task;
    ///
    /// static START: Barrier = Barrier::new(2);
    ///
    /// let other = task::spawn(|| START.wait(Timeout::Forever))?;
    /// let leads = block_on(START.wait_async())?;
    /// assert_ne!(leads, other.join()??);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Dropped before the last arrives, it does not count any more.
    pub async fn wait_async(&self) -> bool {
        Listening::new(Arriving { barrier: self }).await == LEADER
    }
}

/// What a future hears that need not wait. The others are told zero.
const LEADER: u64 = 1;

struct Arriving<'a> {
    barrier: &'a Barrier,
}

impl Announcement for Arriving<'_> {
    fn attempt(&mut self, section: &mut Section) -> Option<u64> {
        let Barrier { state, size } = self.barrier;
        let arrival = state.with(section, |state, core| state.arrive(core, *size, Patience::None));
        (arrival == Arrival::Last).then_some(LEADER)
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.barrier.state.with(section, |state, core| core.enlist(state.waiters(), 0))
    }

    /// The others have passed, and it has too.
    fn unheard(&mut self, _: &mut Section, _: u64) {}
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    use super::*;
    use crate::future::block_on;
    use crate::sync::tests_support::{poll_once, spawn_at};
    use crate::task;
    use crate::time::{self, Duration};

    #[test]
    fn all_go_on_when_the_last_arrives_and_one_leads() {
        static BARRIER: Barrier = Barrier::new(300);
        for _round in 0..3 {
            let tasks: Vec<_> = (0..299)
                .map(|_| task::spawn(|| (BARRIER.wait(Timeout::Forever), time::now())).unwrap())
                .collect();
            time::sleep(Duration::from_secs(1)).unwrap();
            let arrived = time::now();
            assert_eq!(BARRIER.wait(Timeout::Now), Ok(true), "the last does not wait");
            for task in tasks {
                assert_eq!(task.join().unwrap(), (Ok(false), arrived));
            }
        }
    }

    #[test]
    fn futures_and_tasks_arrive_together_and_one_leads() {
        static BARRIER: Barrier = Barrier::new(5);
        let task = spawn_at(9, || BARRIER.wait(Timeout::Forever).unwrap());
        let futures = [20, 9].map(|p| spawn_at(p, || block_on(BARRIER.wait_async()).unwrap()));
        let mut dropped = Box::pin(BARRIER.wait_async());
        for _ in 0..2 {
            // Polled twice, it has arrived once.
            assert!(poll_once(dropped.as_mut()).is_none());
        }
        drop(dropped);
        let fourth = spawn_at(9, || BARRIER.wait(Timeout::Forever).unwrap());
        assert_eq!(fourth.task().ended(), None, "who was dropped should NOT count");
        assert!(block_on(BARRIER.wait_async()).unwrap(), "the last leads");
        assert!(!task.join().unwrap() && !fourth.join().unwrap());
        futures.into_iter().for_each(|future| assert!(!future.join().unwrap()));
    }

    #[test]
    fn a_future_that_arrived_does_not_count_when_its_task_is_killed() {
        static BARRIER: Barrier = Barrier::new(2);
        spawn_at(9, || block_on(BARRIER.wait_async())).task().kill();
        assert_eq!(BARRIER.wait(Duration::from_secs(1)), Err(WaitError::TimedOut));
    }

    #[test]
    fn a_barrier_for_none_or_one_is_always_open() {
        assert_eq!(Barrier::new(0).wait(Timeout::Now), Ok(true));
        assert_eq!(Barrier::new(1).wait(Timeout::Forever), Ok(true));
    }

    #[test]
    fn who_gave_up_or_was_killed_does_not_count() {
        static BARRIER: Barrier = Barrier::new(3);
        assert_eq!(BARRIER.wait(Timeout::Now), Err(WaitError::WouldBlock));
        assert_eq!(BARRIER.wait(Duration::from_secs(1)), Err(WaitError::TimedOut));
        let killed = task::spawn(|| BARRIER.wait(Timeout::Forever)).unwrap();
        let cancelled = task::spawn(|| BARRIER.wait(Timeout::Forever)).unwrap();
        task::yield_now();
        killed.task().kill();
        assert!(cancelled.task().cancel_wait());
        assert_eq!(cancelled.join().unwrap(), Err(WaitError::Cancelled));
        assert_eq!(BARRIER.wait(Duration::from_secs(1)), Err(WaitError::TimedOut));
    }
}
