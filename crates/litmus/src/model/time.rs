//! Time: work, slices and timers.

use super::{Model, Wait};
use crate::trace::Answer;

impl Model<'_> {
    /// Works to the next event: the end of the work, of the slice, or a timer.
    /// On its last tick, and in this order: timers, slice; then the scheduler
    /// decides.
    pub(super) fn work(&mut self, task: usize) {
        self.work_whole_slices(task);
        let worked = self.tasks[task].worked;
        let slice_left = self.script.slice.map_or(u64::MAX, |slice| slice.get() - worked);
        self.spend(task, self.undisturbed(task).min(slice_left));
        self.fire_timers();
        self.account_slice(task);
    }

    /// Ticks until the work ends or a timer is due; at least one, also when time
    /// has stopped.
    fn undisturbed(&self, task: usize) -> u64 {
        let until_timer = self.next_deadline().map_or(u64::MAX, |deadline| deadline - self.clock);
        self.tasks[task].work_left.min(until_timer).max(1)
    }

    /// Skips slices that nothing can happen in and nobody shares: each would
    /// only start a new one. The last tick before an event is never skipped.
    fn work_whole_slices(&mut self, task: usize) {
        if let Some(slice) = self.script.slice
            && !self.has_equal(task)
        {
            let whole = (self.undisturbed(task) - 1) / slice * slice.get();
            self.spend(task, whole);
            self.tasks[task].worked -= whole;
        }
    }

    fn spend(&mut self, task: usize, ticks: u64) {
        self.clock = self.clock.saturating_add(ticks);
        let task = &mut self.tasks[task];
        task.work_left -= ticks;
        task.worked = task.worked.saturating_add(ticks);
    }

    /// Sends a task whose slice is used up to the end of its line, if another
    /// stands there.
    fn account_slice(&mut self, task: usize) {
        if self.script.slice.is_some_and(|slice| self.tasks[task].worked >= slice.get()) {
            self.tasks[task].worked = 0;
            if self.has_equal(task) {
                self.running = None;
                self.make_ready(task);
            }
        }
    }

    /// Whether a ready task has the effective priority of the running one.
    fn has_equal(&self, task: usize) -> bool {
        let effective = self.effective();
        self.ready.iter().any(|other| effective[*other] == effective[task])
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.timers.iter().map(|timer| timer.deadline).min()
    }

    /// Fires the timers that are due, by deadline, then as they were armed.
    pub(super) fn fire_timers(&mut self) {
        while let Some(deadline) = self.next_deadline().filter(|deadline| *deadline <= self.clock) {
            let first = self.timers.iter().find(|timer| timer.deadline == deadline);
            let Some(task) = first.map(|timer| timer.task) else { return };
            match self.wait_of(task) {
                Some(Wait::Start | Wait::Sleep) | None => self.wake(task, None),
                Some(_) => self.wake(task, Some(Answer::Timeout)),
            }
        }
    }
}
