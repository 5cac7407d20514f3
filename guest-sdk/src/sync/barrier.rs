//! A barrier: tasks go on when so many have arrived.

use cellule_rtos as rtos;
use cellule_rtos::Arrival;

use super::WaitError;
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
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
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
