//! A machine that runs a script's tasks on the kernel, without stacks.

use cellule_litmus::{Action, Answer, Item, Kind, Mode, Operation, Script, Trace};
use cellule_rtos::{
    Decision, End, Flags, Get, Handle, JoinStep, Kernel, Lock, Match, Mutex, Outcome, Patience,
    Priority, Put, Queue, Semaphore, Take, TaskId, Want,
};

enum Object {
    Semaphore(Semaphore),
    Mutex(Mutex),
    Queue { queue: Queue, capacity: u32, ring: Vec<u64> },
    Flags(Flags),
}

struct Task {
    id: TaskId,
    next: usize,
    /// Ticks of `work` still to do.
    left: Option<u64>,
    /// Whether the operation `next` waits for its outcome.
    waits: bool,
    /// An item on its way from or to this task.
    item: u64,
    ended: Option<End>,
}

struct Machine<'a> {
    script: &'a Script,
    kernel: Kernel,
    objects: Vec<Object>,
    tasks: Vec<Task>,
    trace: Trace,
}

pub(crate) fn run(script: &Script) -> Trace {
    let mut machine = Machine::new(script);
    while machine.step() {}
    machine.trace
}

/// What an operation came to.
enum Step {
    Done,
    Answer(Answer),
    Waits,
    /// It goes on at the next step.
    Again,
}

impl<'a> Machine<'a> {
    fn new(script: &'a Script) -> Self {
        let mut kernel = Kernel::new();
        kernel.reserve(script.tasks.len()).unwrap();
        kernel.set_slice(script.slice.map_or(0, |slice| slice.get()));
        let tasks = script.tasks.iter().map(|task| Task {
            id: kernel
                .create(Priority::new(task.priority).unwrap(), (task.at > 0).then_some(task.at))
                .unwrap(),
            next: 0,
            left: None,
            waits: false,
            item: 0,
            ended: None,
        });
        let tasks = tasks.collect();
        let objects = script.objects.iter().map(|object| match object.kind {
            Kind::Semaphore { initial, limit } => Object::Semaphore(Semaphore::new(initial, limit)),
            Kind::Mutex => Object::Mutex(Mutex::new()),
            Kind::Queue { capacity } => {
                let capacity = u32::try_from(capacity.min(10_000)).unwrap();
                Object::Queue { queue: Queue::new(), capacity, ring: vec![0; capacity as usize] }
            }
            Kind::Flags => Object::Flags(Flags::new()),
        });
        let objects = objects.collect();
        Self { script, kernel, objects, tasks, trace: Trace::default() }
    }

    /// Does one thing; `false` after the end.
    fn step(&mut self) -> bool {
        match self.kernel.decide() {
            Decision::Idle => return self.idle(),
            Decision::Stay | Decision::Run(_) => {}
        }
        let id = self.kernel.current();
        let index = self.tasks.iter().position(|task| task.id == id).unwrap();
        let script = self.script;
        let Some(operation) = script.tasks[index].operations.get(self.tasks[index].next) else {
            self.end(index, End::Returned);
            return true;
        };
        let step = match std::mem::take(&mut self.tasks[index].waits) {
            true => self.outcome(index, operation),
            false => self.begin(index, &operation.action),
        };
        match step {
            Step::Waits => self.tasks[index].waits = true,
            Step::Again => {}
            Step::Done => self.tasks[index].next += 1,
            Step::Answer(answer) => {
                self.tasks[index].next += 1;
                if let Some(label) = &operation.label {
                    let tick = self.kernel.now();
                    self.trace.0.push(Item::Answer { label: label.clone(), answer, tick });
                }
            }
        }
        true
    }

    fn idle(&mut self) -> bool {
        let tick = self.kernel.now();
        if self.tasks.iter().all(|task| task.ended.is_some()) {
            self.trace.0.push(Item::End { tick });
            return false;
        }
        match self.kernel.next_deadline() {
            Some(next) => self.kernel.advance(next),
            None => self.trace.0.push(Item::Deadlock { tick }),
        }
        !matches!(self.trace.0.last(), Some(Item::Deadlock { .. }))
    }

    fn end(&mut self, index: usize, end: End) {
        let objects = &mut self.objects;
        let mutex = &mut |kernel: &mut Kernel, Handle(at)| match &mut objects[at] {
            Object::Mutex(mutex) => mutex.owner_died(kernel),
            _ => panic!("object {at} is no mutex"),
        };
        if self.kernel.end(self.tasks[index].id, end, mutex) {
            self.tasks[index].ended = Some(end);
        }
    }

    fn task_of(&self, id: TaskId) -> usize {
        self.tasks.iter().position(|task| task.id == id).unwrap()
    }

    fn patience(&self, timeout: Option<u64>) -> Patience {
        match timeout {
            None => Patience::Forever,
            Some(0) => Patience::None,
            Some(ticks) => Patience::Until(self.kernel.now().saturating_add(ticks)),
        }
    }

    fn begin(&mut self, index: usize, action: &Action) -> Step {
        match *action {
            Action::Mark { ref label } => {
                self.trace.0.push(Item::Mark { label: label.clone(), tick: self.kernel.now() });
            }
            Action::Work { ticks } => {
                let left = self.tasks[index].left.unwrap_or(ticks);
                let left = left - self.kernel.work(left);
                self.tasks[index].left = (left > 0).then_some(left);
                if left > 0 {
                    return Step::Again;
                }
            }
            Action::Sleep { ticks } => {
                self.kernel.sleep_until(self.kernel.now().saturating_add(ticks));
                return Step::Waits;
            }
            Action::Yield => self.kernel.yield_now(),
            Action::Prio { task, priority } => {
                self.kernel.set_priority(self.tasks[task].id, Priority::new(priority).unwrap());
            }
            Action::Suspend { task } => self.kernel.suspend(self.tasks[task].id),
            Action::Resume { task } => self.kernel.resume(self.tasks[task].id),
            Action::Kill { task } => self.end(task, End::Killed),
            Action::Join { task, timeout } => return self.join(task, timeout),
            _ => return self.object(index, action),
        }
        Step::Done
    }

    fn join(&mut self, task: usize, timeout: Option<u64>) -> Step {
        let patience = self.patience(timeout);
        match self.kernel.join(self.tasks[task].id, patience) {
            JoinStep::Ended => Step::Answer(ended(self.tasks[task].ended.unwrap())),
            JoinStep::SelfJoin => Step::Answer(Answer::SelfJoin),
            JoinStep::Busy => Step::Answer(Answer::Busy),
            JoinStep::Waits => Step::Waits,
        }
    }

    fn object(&mut self, index: usize, action: &Action) -> Step {
        let (at, timeout) = match *action {
            Action::Take { semaphore, timeout } => (semaphore, timeout),
            Action::Lock { mutex, timeout } => (mutex, timeout),
            Action::Put { queue, timeout, .. } | Action::Get { queue, timeout } => (queue, timeout),
            Action::Wait { flags, timeout, .. } => (flags, timeout),
            Action::Give { semaphore } => (semaphore, None),
            Action::Unlock { mutex } => (mutex, None),
            Action::Set { flags, .. } | Action::Clear { flags, .. } => (flags, None),
            _ => panic!("not an object's operation"),
        };
        let patience = self.patience(timeout);
        let kernel = &mut self.kernel;
        match (&mut self.objects[at], action) {
            (Object::Semaphore(semaphore), Action::Take { .. }) => {
                match semaphore.take(kernel, patience) {
                    Take::Taken => Step::Answer(Answer::Ok),
                    Take::Busy => Step::Answer(Answer::Busy),
                    Take::Waits => Step::Waits,
                }
            }
            (Object::Semaphore(semaphore), Action::Give { .. }) => {
                Step::Answer(semaphore.give(kernel).map_or(Answer::Full, |()| Answer::Ok))
            }
            (Object::Mutex(mutex), Action::Lock { .. }) => {
                match mutex.lock(kernel, Handle(at), patience) {
                    Lock::Locked => Step::Answer(Answer::Ok),
                    Lock::OwnerDied => Step::Answer(Answer::OwnerDead),
                    Lock::Recursive => Step::Answer(Answer::Recursive),
                    Lock::Busy => Step::Answer(Answer::Busy),
                    Lock::Waits => Step::Waits,
                }
            }
            (Object::Mutex(mutex), Action::Unlock { .. }) => {
                Step::Answer(mutex.unlock(kernel).map_or(Answer::NotOwner, |()| Answer::Ok))
            }
            (Object::Queue { queue, capacity, ring }, Action::Put { value, .. }) => {
                match queue.put(kernel, *capacity, patience) {
                    Put::Store(place) => ring[place as usize] = *value,
                    Put::Deliver(to) => {
                        let to = self.task_of(to);
                        self.tasks[to].item = *value;
                    }
                    Put::Busy => return Step::Answer(Answer::Busy),
                    Put::Waits => {
                        self.tasks[index].item = *value;
                        return Step::Waits;
                    }
                }
                Step::Answer(Answer::Ok)
            }
            (Object::Queue { queue, capacity, ring }, Action::Get { .. }) => {
                match queue.get(kernel, *capacity, patience) {
                    Get::Take(place, more) => {
                        let item = ring[place as usize];
                        if let Some((from, place)) = more {
                            let from = self.tasks.iter().find(|task| task.id == from).unwrap();
                            ring[place as usize] = from.item;
                        }
                        Step::Answer(Answer::Value(item))
                    }
                    Get::Busy => Step::Answer(Answer::Busy),
                    Get::Waits => Step::Waits,
                }
            }
            (Object::Flags(flags), Action::Wait { mode, bits, .. }) => {
                let of = if *mode == Mode::Any { Match::Any } else { Match::All };
                match flags.wait(kernel, Want { bits: *bits, of }, patience) {
                    Ok(bits) => Step::Answer(Answer::Value(bits.into())),
                    Err(Take::Busy) => Step::Answer(Answer::Busy),
                    Err(_) => Step::Waits,
                }
            }
            (Object::Flags(flags), Action::Set { bits, .. }) => {
                flags.set(kernel, *bits);
                Step::Done
            }
            (Object::Flags(flags), Action::Clear { bits, .. }) => {
                flags.clear(*bits);
                Step::Done
            }
            _ => panic!("an operation on an object of another kind"),
        }
    }

    /// The end of a wait.
    fn outcome(&mut self, index: usize, operation: &Operation) -> Step {
        let item = self.tasks[index].item;
        Step::Answer(match (self.kernel.outcome(), &operation.action) {
            (_, Action::Sleep { .. }) => return Step::Done,
            (Outcome::TimedOut, _) => Answer::Timeout,
            (Outcome::OwnerDied, Action::Lock { .. }) => Answer::OwnerDead,
            (Outcome::Granted(_), Action::Get { .. }) => Answer::Value(item),
            (Outcome::Granted(bits), Action::Wait { .. }) => Answer::Value(bits),
            (Outcome::Granted(end), Action::Join { .. }) => {
                ended(if end == End::Returned as u64 { End::Returned } else { End::Killed })
            }
            (Outcome::Granted(_), _) => Answer::Ok,
            (outcome, action) => panic!("{outcome:?} of {action:?}"),
        })
    }
}

fn ended(end: End) -> Answer {
    match end {
        End::Returned => Answer::Ok,
        End::Killed | End::Failed => Answer::Killed,
    }
}
