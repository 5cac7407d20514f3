//! What tasks do to objects and to each other.

use super::{Held, Model, Wait};
use crate::script::{Action, Mode};
use crate::trace::{Answer, Item};

/// How an operation leaves the task that began it.
enum Outcome {
    /// It goes on, with nothing to record.
    Done,
    /// It goes on, with an answer.
    Answered(Answer),
    /// It must wait, if the timeout lets it.
    MustWait(Wait, Option<u64>),
}

use Outcome::{Answered, Done, MustWait};

impl Model<'_> {
    /// Performs an operation of the running task.
    pub(super) fn perform(&mut self, task: usize, action: &Action) {
        match self.outcome(task, action) {
            Done => {}
            Answered(answer) => self.record(task, answer),
            MustWait(_, Some(0)) => self.record(task, Answer::Busy),
            MustWait(wait, timeout) => self.block(task, wait, timeout),
        }
    }

    fn outcome(&mut self, task: usize, action: &Action) -> Outcome {
        match *action {
            Action::Mark { ref label } => {
                self.trace.0.push(Item::Mark { label: label.clone(), tick: self.clock });
                Done
            }
            Action::Work { ticks } => {
                self.tasks[task].work_left = ticks;
                Done
            }
            Action::Sleep { ticks } => MustWait(Wait::Sleep, Some(ticks)),
            Action::Yield => {
                self.stop(task);
                self.make_ready(task);
                Done
            }
            Action::Take { semaphore, timeout } => self.take(semaphore, timeout),
            Action::Give { semaphore } => self.give(semaphore),
            Action::Lock { mutex, timeout } => self.lock(task, mutex, timeout),
            Action::Unlock { mutex } => self.unlock(task, mutex),
            Action::Put { queue, value, timeout } => self.put(queue, value, timeout),
            Action::Get { queue, timeout } => self.get(queue, timeout),
            Action::Set { flags, bits } => self.set(flags, bits),
            Action::Clear { flags, bits } => {
                self.objects[flags].bits &= !bits;
                Done
            }
            Action::Wait { flags, mode, bits, timeout } => self.wait(flags, mode, bits, timeout),
            Action::Prio { task: target, priority } => self.prio(target, priority),
            Action::Suspend { task: target } => self.suspend(target),
            Action::Resume { task: target } => self.resume(target),
            Action::Kill { task: target } => self.kill(target),
            Action::Join { task: target, timeout } => self.join(task, target, timeout),
        }
    }
}

/// Objects.
impl Model<'_> {
    fn take(&mut self, semaphore: usize, timeout: Option<u64>) -> Outcome {
        let count = &mut self.objects[semaphore].count;
        if *count == 0 {
            return MustWait(Wait::Take(semaphore), timeout);
        }
        *count -= 1;
        Answered(Answer::Ok)
    }

    fn give(&mut self, semaphore: usize) -> Outcome {
        if let Some(taker) = self.choose(|wait| matches!(wait, Wait::Take(it) if it == semaphore)) {
            self.wake(taker, Some(Answer::Ok));
            return Answered(Answer::Ok);
        }
        let object = &mut self.objects[semaphore];
        if object.count == object.limit {
            return Answered(Answer::Full);
        }
        object.count += 1;
        Answered(Answer::Ok)
    }

    fn lock(&mut self, task: usize, mutex: usize, timeout: Option<u64>) -> Outcome {
        match self.owner(mutex) {
            Some(owner) if owner == task => Answered(Answer::Recursive),
            Some(_) => MustWait(Wait::Lock(mutex), timeout),
            None => {
                self.held.push(Held { mutex, owner: task });
                let orphaned = core::mem::take(&mut self.objects[mutex].orphaned);
                Answered(if orphaned { Answer::OwnerDead } else { Answer::Ok })
            }
        }
    }

    fn unlock(&mut self, task: usize, mutex: usize) -> Outcome {
        if self.owner(mutex) != Some(task) {
            return Answered(Answer::NotOwner);
        }
        self.hand_over(mutex, Answer::Ok);
        Answered(Answer::Ok)
    }

    /// Makes the chosen waiter the owner; the answer says what became of the
    /// former one. With no waiter the mutex is free.
    fn hand_over(&mut self, mutex: usize, answer: Answer) {
        self.held.retain(|held| held.mutex != mutex);
        if let Some(heir) = self.choose(|wait| matches!(wait, Wait::Lock(it) if it == mutex)) {
            self.held.push(Held { mutex, owner: heir });
            self.wake(heir, Some(answer));
        } else {
            self.objects[mutex].orphaned = answer == Answer::OwnerDead;
        }
        self.settle();
    }

    fn put(&mut self, queue: usize, value: u64, timeout: Option<u64>) -> Outcome {
        if let Some(receiver) = self.choose(|wait| matches!(wait, Wait::Get(it) if it == queue)) {
            self.wake(receiver, Some(Answer::Value(value)));
            return Answered(Answer::Ok);
        }
        let object = &mut self.objects[queue];
        if object.items.len() as u64 >= object.limit {
            return MustWait(Wait::Put(queue, value), timeout);
        }
        object.items.push_back(value);
        Answered(Answer::Ok)
    }

    fn get(&mut self, queue: usize, timeout: Option<u64>) -> Outcome {
        let Some(value) = self.objects[queue].items.pop_front() else {
            return MustWait(Wait::Get(queue), timeout);
        };
        let sender = self.choose(|wait| matches!(wait, Wait::Put(it, _) if it == queue));
        if let Some(sender) = sender
            && let Some(Wait::Put(_, theirs)) = self.wait_of(sender)
        {
            self.objects[queue].items.push_back(theirs);
            self.wake(sender, Some(Answer::Ok));
        }
        Answered(Answer::Value(value))
    }

    /// Sets flags, then wakes waiter after waiter that they satisfy. One that is
    /// passed over stays unsatisfied: flags are only cleared from then on.
    fn set(&mut self, flags: usize, bits: u32) -> Outcome {
        self.objects[flags].bits |= bits;
        loop {
            let set = self.objects[flags].bits;
            let satisfied = self.choose(|wait| {
                matches!(wait, Wait::Flags(it, mode, bits) if it == flags && matching(set, mode, bits).is_some())
            });
            let Some(task) = satisfied else { return Done };
            if let Some(Wait::Flags(_, mode, bits)) = self.wait_of(task) {
                let answer = self.take_flags(flags, mode, bits);
                self.wake(task, answer);
            }
        }
    }

    fn wait(&mut self, flags: usize, mode: Mode, bits: u32, timeout: Option<u64>) -> Outcome {
        match self.take_flags(flags, mode, bits) {
            Some(answer) => Answered(answer),
            None => MustWait(Wait::Flags(flags, mode, bits), timeout),
        }
    }

    /// Clears the flags that were waited for, if they satisfy.
    fn take_flags(&mut self, flags: usize, mode: Mode, bits: u32) -> Option<Answer> {
        let matched = matching(self.objects[flags].bits, mode, bits)?;
        self.objects[flags].bits &= !bits;
        Some(Answer::Value(matched.into()))
    }
}

/// The bits of `set` that satisfy a wait for `bits`, if they do.
fn matching(set: u32, mode: Mode, bits: u32) -> Option<u32> {
    let matched = set & bits;
    let satisfied = match mode {
        Mode::Any => matched != 0,
        Mode::All => matched == bits,
    };
    satisfied.then_some(matched)
}

/// Tasks. An operation on one that has ended has no effect.
impl Model<'_> {
    fn prio(&mut self, target: usize, priority: u8) -> Outcome {
        if self.tasks[target].ended.is_none() {
            self.tasks[target].base = priority;
            self.settle();
        }
        Done
    }

    fn suspend(&mut self, target: usize) -> Outcome {
        let task = &mut self.tasks[target];
        if task.ended.is_none() && !task.suspended {
            task.suspended = true;
            self.stop(target);
        }
        Done
    }

    fn resume(&mut self, target: usize) -> Outcome {
        let task = &mut self.tasks[target];
        if task.ended.is_none() && core::mem::take(&mut task.suspended) {
            // One that waits goes on waiting.
            if self.wait_of(target).is_none() {
                self.make_ready(target);
            }
        }
        Done
    }

    fn kill(&mut self, target: usize) -> Outcome {
        if self.tasks[target].ended.is_none() {
            self.finish(target, Answer::Killed);
        }
        Done
    }

    fn join(&mut self, task: usize, target: usize, timeout: Option<u64>) -> Outcome {
        match self.tasks[target].ended {
            _ if task == target => Answered(Answer::SelfJoin),
            Some(answer) => Answered(answer),
            None => MustWait(Wait::Join(target), timeout),
        }
    }

    /// Ends a task: it leaves what it waits for, its mutexes are handed over as
    /// it acquired them, then its joiners are told `how`.
    pub(super) fn finish(&mut self, task: usize, how: Answer) {
        self.tasks[task].ended = Some(how);
        self.stop(task);
        self.leave(task);
        self.settle();
        while let Some(held) = self.held.iter().find(|held| held.owner == task) {
            self.hand_over(held.mutex, Answer::OwnerDead);
        }
        while let Some(joiner) = self.choose(|wait| matches!(wait, Wait::Join(it) if it == task)) {
            self.wake(joiner, Some(how));
        }
    }
}
