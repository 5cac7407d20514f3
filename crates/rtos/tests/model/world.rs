//! Tasks, and what a model knows of them.

use std::collections::BTreeMap;

use cellule_rtos::{Decision, End, Handle, Kernel, Outcome, Patience, Priority, State, TaskId};

use crate::random::Random;

/// A kernel and the model of its tasks.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) random: Random,
    pub(crate) tasks: Vec<Task>,
    /// Which task has what other tasks wait for, and so inherits from them.
    pub(crate) owners: BTreeMap<usize, usize>,
    waits: u64,
}

pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) base: Priority,
    pub(crate) suspended: bool,
    pub(crate) wait: Option<Wait>,
    /// How the wait ended from which it has not yet come back.
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// For what, by a number of the test's own.
    pub(crate) place: usize,
    pub(crate) deadline: Option<u64>,
    pub(crate) order: u64,
}

/// Something that is done to a task from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Nothing,
    Killed(usize),
    Cancelled(usize),
    /// Some waits have ended.
    TimePassed,
}

impl World {
    pub(crate) fn new(seed: u64, tasks: usize) -> Self {
        let mut kernel = Kernel::new();
        kernel.reserve(tasks + 16).unwrap();
        let random = Random::new(seed);
        let mut world =
            Self { kernel, random, tasks: Vec::new(), owners: BTreeMap::new(), waits: 0 };
        for _ in 0..tasks {
            let task = world.fresh();
            world.tasks.push(task);
        }
        world
    }

    fn fresh(&mut self) -> Task {
        let base = self.priority();
        let id = self.kernel.create(base, None).unwrap();
        Task { id, base, suspended: false, wait: None, outcome: None }
    }

    fn priority(&mut self) -> Priority {
        let number = self.random.below(6) * 6;
        Priority::new(u8::try_from(number).unwrap()).unwrap()
    }

    /// Lets the kernel choose, and returns the task that runs, with how its wait
    /// ended if it comes from one.
    pub(crate) fn run(&mut self) -> Option<(usize, Option<Outcome>)> {
        if self.kernel.decide() == Decision::Idle {
            return None;
        }
        let index = self.index(self.kernel.current());
        let task = &mut self.tasks[index];
        assert!(!task.suspended && task.wait.is_none(), "{index} should NOT run");
        let outcome = task.outcome.take();
        if let Some(outcome) = outcome {
            assert_eq!(self.kernel.outcome(), outcome, "of {index}");
        }
        Some((index, outcome))
    }

    pub(crate) fn index(&self, id: TaskId) -> usize {
        self.tasks.iter().position(|task| task.id == id).expect("a living task")
    }

    pub(crate) fn patience(&mut self) -> Patience {
        match self.random.below(4) {
            0 => Patience::None,
            1 => Patience::Until(self.kernel.now() + self.random.below(40) as u64),
            _ => Patience::Forever,
        }
    }

    /// Notes that a task waits now.
    pub(crate) fn waits(&mut self, index: usize, place: usize, patience: Patience) {
        let deadline = match patience {
            Patience::Until(deadline) => Some(deadline),
            Patience::None | Patience::Forever => None,
        };
        self.waits += 1;
        self.tasks[index].wait = Some(Wait { place, deadline, order: self.waits });
    }

    /// Notes that a task's wait has ended.
    pub(crate) fn wakes(&mut self, index: usize, outcome: Outcome) {
        let wait = self.tasks[index].wait.take();
        assert!(wait.is_some(), "{index} should wait");
        self.tasks[index].outcome = Some(outcome);
    }

    /// Those who wait there, the first in line first.
    pub(crate) fn line(&self, place: usize) -> Vec<usize> {
        let effective = self.effective();
        let waits_there = |index: &usize| self.tasks[*index].wait.is_some_and(|w| w.place == place);
        let mut line: Vec<usize> = (0..self.tasks.len()).filter(waits_there).collect();
        line.sort_by_key(|index| {
            (std::cmp::Reverse(effective[*index]), self.tasks[*index].wait.map(|wait| wait.order))
        });
        line
    }

    /// What every task's priority must be: its own, raised until nothing changes.
    pub(crate) fn effective(&self) -> Vec<Priority> {
        let mut effective: Vec<Priority> = self.tasks.iter().map(|task| task.base).collect();
        loop {
            let before = effective.clone();
            for (index, task) in self.tasks.iter().enumerate() {
                let owner = task.wait.and_then(|wait| self.owners.get(&wait.place));
                if let Some(owner) = owner {
                    effective[*owner] = effective[*owner].max(effective[index]);
                }
            }
            if before == effective {
                return effective;
            }
        }
    }

    /// Compares all that the kernel shows of the tasks.
    pub(crate) fn check(&self) {
        let effective = self.effective();
        for (index, task) in self.tasks.iter().enumerate() {
            let view = self.kernel.view(task.id).expect("it should be alive");
            assert_eq!((view.base, view.effective), (task.base, effective[index]), "of {index}");
            match view.state {
                State::Suspended => assert!(task.suspended, "{index}"),
                State::Waiting => assert!(!task.suspended && task.wait.is_some(), "{index}"),
                State::Running | State::Ready => {
                    assert!(!task.suspended && task.wait.is_none(), "{index}");
                }
            }
        }
    }

    /// Does something at random to a random task, or lets time pass. What others
    /// wait for from a killed task is up to the caller.
    pub(crate) fn disturb(&mut self, mutex: &mut dyn FnMut(&mut Kernel, Handle)) -> Disturbance {
        let index = self.random.below(self.tasks.len());
        let id = self.tasks[index].id;
        match self.random.below(24) {
            0..5 => {
                self.tasks[index].base = self.priority();
                self.kernel.set_priority(id, self.tasks[index].base);
            }
            5..8 => {
                self.kernel.suspend(id);
                self.tasks[index].suspended = true;
            }
            8..16 => {
                self.kernel.resume(id);
                self.tasks[index].suspended = false;
            }
            16 => {
                assert!(self.kernel.end(id, End::Killed, mutex));
                assert!(!self.kernel.end(id, End::Killed, mutex), "it should be gone");
                return Disturbance::Killed(index);
            }
            17 => {
                let waits = self.tasks[index].wait.is_some();
                assert_eq!(self.kernel.cancel(id), waits);
                if waits {
                    return Disturbance::Cancelled(index);
                }
            }
            _ => {
                let later = self.kernel.now() + self.random.below(12) as u64;
                self.elapse(later);
                return Disturbance::TimePassed;
            }
        }
        Disturbance::Nothing
    }

    /// Puts a new task in the place of one that has ended.
    pub(crate) fn replace(&mut self, index: usize) {
        self.tasks[index] = self.fresh();
    }

    /// Lets time pass, and ends the waits that are over then.
    pub(crate) fn elapse(&mut self, to: u64) {
        self.kernel.advance(to);
        for index in 0..self.tasks.len() {
            let deadline = self.tasks[index].wait.and_then(|wait| wait.deadline);
            if deadline.is_some_and(|deadline| deadline <= to) {
                self.wakes(index, Outcome::TimedOut);
            }
        }
        let next = self.tasks.iter().filter_map(|task| task.wait?.deadline).min();
        assert_eq!(self.kernel.next_deadline(), next);
    }
}
