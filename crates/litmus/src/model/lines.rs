//! Who stands where, who waits, and who is chosen.

use alloc::vec::Vec;

use super::{Model, Timer, Wait, Waiter};
use crate::trace::Answer;

impl Model<'_> {
    /// Puts a task at the end of its line, with a new slice before it.
    pub(super) fn make_ready(&mut self, task: usize) {
        self.ready.retain(|other| *other != task);
        self.ready.push(task);
        self.tasks[task].worked = 0;
    }

    /// Makes a task wait, for ever or for so many ticks.
    pub(super) fn block(&mut self, task: usize, wait: Wait, timeout: Option<u64>) {
        self.stop(task);
        self.waiting.push(Waiter { task, wait });
        if let Some(ticks) = timeout {
            self.timers.push(Timer { task, deadline: self.clock.saturating_add(ticks) });
        }
        self.settle();
    }

    /// Ends a task's wait. It stays stopped if it is suspended.
    pub(super) fn wake(&mut self, task: usize, answer: Option<Answer>) {
        self.leave(task);
        self.tasks[task].owed = answer;
        if !self.tasks[task].suspended {
            self.make_ready(task);
        }
        self.settle();
    }

    /// Takes a task away from the processor and out of its line.
    pub(super) fn stop(&mut self, task: usize) {
        self.running = self.running.filter(|running| *running != task);
        self.ready.retain(|other| *other != task);
        self.tasks[task].worked = 0;
    }

    /// Takes a task away from what it waits for, and disarms its timer.
    pub(super) fn leave(&mut self, task: usize) {
        self.waiting.retain(|waiter| waiter.task != task);
        self.timers.retain(|timer| timer.task != task);
    }

    pub(super) fn wait_of(&self, task: usize) -> Option<Wait> {
        self.waiting.iter().find(|waiter| waiter.task == task).map(|waiter| waiter.wait)
    }

    /// Of those whose wait is such, the one with the highest effective priority;
    /// among equals the one that has waited longest.
    pub(super) fn choose(&self, such: impl Fn(Wait) -> bool) -> Option<usize> {
        let candidates = self.waiting.iter().filter(|waiter| such(waiter.wait));
        self.first_of_highest(candidates.map(|waiter| waiter.task))
    }

    pub(super) fn first_of_highest(
        &self,
        candidates: impl Iterator<Item = usize>,
    ) -> Option<usize> {
        let effective = self.effective();
        candidates
            .reduce(|first, next| if effective[next] > effective[first] { next } else { first })
    }

    /// The effective priority of every task: the least fixpoint of "at least my
    /// own, at least that of whoever waits for a mutex of mine".
    pub(super) fn effective(&self) -> Vec<u8> {
        let mut effective: Vec<u8> = self.tasks.iter().map(|task| task.base).collect();
        loop {
            let before = effective.clone();
            for Waiter { task, wait } in &self.waiting {
                if let Wait::Lock(mutex) = *wait
                    && let Some(owner) = self.owner(mutex)
                {
                    effective[owner] = effective[owner].max(effective[*task]);
                }
            }
            if effective == before {
                return effective;
            }
        }
    }

    pub(super) fn owner(&self, mutex: usize) -> Option<usize> {
        self.held.iter().find(|held| held.mutex == mutex).map(|held| held.owner)
    }

    /// Sends every ready task whose effective priority has changed to the end of
    /// its new line, in file order. Called after whatever may change one.
    pub(super) fn settle(&mut self) {
        let effective = self.effective();
        for (task, priority) in effective.iter().enumerate() {
            if *priority != self.settled[task] && self.ready.contains(&task) {
                self.make_ready(task);
            }
        }
        self.settled = effective;
    }
}
