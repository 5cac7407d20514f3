//! The machine: a script's objects and tasks, made of the SDK's.
//!
//! A tick is a nanosecond of virtual time. An operation and its entry in the
//! trace are one step: both happen in a critical section, in which no task
//! preempts this one. Only an operation that has to wait leaves it.

use cellule_guest::alloc::sync::Arc;
use cellule_guest::prelude::*;
use cellule_guest::sync::{
    EventFlags, FlagsError, HeapQueue, LockError, Mutex, Semaphore, Timeout, WaitError,
};
use cellule_guest::task::{self, Builder, End, JoinError, Priority, Task};
use cellule_guest::time::{self, Duration, Instant};
use cellule_litmus::{Action, Answer, Item, Kind, Mode, Operation, Script, Trace};

/// What the tasks of a script share.
struct Machine {
    script: Script,
    objects: Vec<Object>,
    tasks: Mutex<Vec<Task>>,
    trace: Mutex<Trace>,
    start: Instant,
}

enum Object {
    Semaphore(Semaphore),
    Mutex(Mutex<()>),
    Queue(HeapQueue<u64>),
    Flags(EventFlags),
}

/// What an operation came to.
enum Step {
    Answer(Answer),
    /// It must wait.
    Waits,
    /// It answers nothing.
    Done,
}

/// Runs a script to its end: all tasks have ended, or none ever will.
pub(crate) fn run(script: Script) -> Result<Trace, String> {
    let objects = script.objects.iter().map(|object| make(&script, object.kind));
    let objects = objects.collect::<Result<Vec<_>, _>>()?;
    task::set_time_slice(script.slice.map(|slice| ticks(slice.get())));
    let machine = Arc::new(Machine {
        objects,
        tasks: Mutex::new(Vec::new()),
        trace: Mutex::new(Trace::default()),
        start: time::now(),
        script,
    });
    for index in 0..machine.script.tasks.len() {
        let task = spawn(&machine, index)?;
        locked(&machine.tasks, |tasks| tasks.push(task));
    }
    task::settle().map_err(|error| error.to_string())?;
    let tick = machine.now();
    let all_ended = locked(&machine.tasks, |tasks| tasks.iter().all(|task| task.ended().is_some()));
    machine.record(if all_ended { Item::End { tick } } else { Item::Deadlock { tick } });
    Ok(locked(&machine.trace, core::mem::take))
}

fn make(script: &Script, kind: Kind) -> Result<Object, String> {
    Ok(match kind {
        Kind::Semaphore { initial, limit } => Object::Semaphore(Semaphore::new(initial, limit)),
        Kind::Mutex => Object::Mutex(Mutex::new(())),
        Kind::Flags => Object::Flags(EventFlags::new()),
        Kind::Queue { capacity } => {
            // There are never more items than the script puts.
            let operations: usize = script.tasks.iter().map(|task| task.operations.len()).sum();
            let capacity = usize::try_from(capacity).unwrap_or(usize::MAX).min(operations + 1);
            Object::Queue(HeapQueue::new(capacity).map_err(|error| error.to_string())?)
        }
    })
}

fn spawn(machine: &Arc<Machine>, index: usize) -> Result<Task, String> {
    let task = &machine.script.tasks[index];
    let priority = Priority::new(task.priority).map_err(|error| error.to_string())?;
    let mut builder = Builder::new().name(task.name.clone()).priority(priority);
    if task.at > 0 {
        builder = builder.start_at(machine.start + ticks(task.at));
    }
    let of_task = Arc::clone(machine);
    let handle = builder.spawn(move || of_task.perform(index));
    handle.map(|handle| handle.task().clone()).map_err(|error| error.to_string())
}

const fn ticks(number: u64) -> Duration {
    Duration::from_nanos(number)
}

const fn timeout(ticks: Option<u64>) -> Timeout {
    match ticks {
        None => Timeout::Forever,
        Some(ticks) => Timeout::After(Duration::from_nanos(ticks)),
    }
}

/// Uses what only this machine locks, and never while it waits.
fn locked<T, R>(mutex: &Mutex<T>, user: impl FnOnce(&mut T) -> R) -> R {
    match mutex.try_lock() {
        Ok(mut value) => user(&mut value),
        Err(LockError::OwnerDied(mut value)) => user(&mut value),
        Err(error) => panic!("the machine's own lock: {error}"),
    }
}

impl Machine {
    fn now(&self) -> u64 {
        time::now().as_nanos() - self.start.as_nanos()
    }

    fn record(&self, item: Item) {
        locked(&self.trace, |trace| trace.0.push(item));
    }

    fn task(&self, index: usize) -> Task {
        locked(&self.tasks, |tasks| tasks[index].clone())
    }

    /// Performs a task's operations, one after the other.
    fn perform(&self, index: usize) {
        for operation in &self.script.tasks[index].operations {
            let step = critical_section::with(|_| {
                let step = self.begin(&operation.action);
                self.note(operation, &step);
                step
            });
            if let Step::Waits = step {
                let step = self.wait(&operation.action);
                self.note(operation, &step);
            }
        }
    }

    fn note(&self, operation: &Operation, step: &Step) {
        if let (Some(label), Step::Answer(answer)) = (&operation.label, step) {
            let (label, answer) = (label.clone(), *answer);
            self.record(Item::Answer { label, answer, tick: self.now() });
        }
    }

    /// Does what can be done without waiting.
    fn begin(&self, action: &Action) -> Step {
        match *action {
            Action::Mark { ref label } => {
                self.record(Item::Mark { label: label.clone(), tick: self.now() });
            }
            Action::Prio { task, priority } => {
                self.task(task).set_priority(Priority::new(priority).unwrap_or(Priority::LOWEST));
            }
            Action::Resume { task } => self.task(task).resume(),
            Action::Suspend { task } => self.task(task).suspend(),
            Action::Kill { task } => self.task(task).kill(),
            Action::Set { flags, bits } => self.flags(flags).set(bits),
            Action::Clear { flags, bits } => self.flags(flags).clear(bits),
            Action::Work { .. } | Action::Sleep { .. } | Action::Yield => return Step::Waits,
            Action::Give { semaphore } => {
                let given = self.semaphore(semaphore).give();
                return Step::Answer(given.map_or(Answer::Full, |()| Answer::Ok));
            }
            Action::Unlock { mutex } => return Step::Answer(unlock(self.mutex(mutex))),
            Action::Take { timeout, .. }
            | Action::Lock { timeout, .. }
            | Action::Put { timeout, .. }
            | Action::Get { timeout, .. }
            | Action::Wait { timeout, .. }
            | Action::Join { timeout, .. } => {
                return match self.attempt(action, Timeout::Now) {
                    Step::Answer(Answer::Busy) if timeout != Some(0) => Step::Waits,
                    step => step,
                };
            }
        }
        Step::Done
    }

    /// Does what takes time, or waits for as long as the operation says.
    fn wait(&self, action: &Action) -> Step {
        match *action {
            Action::Work { ticks: number } => time::work(ticks(number)),
            Action::Sleep { ticks: number } => drop(time::sleep(ticks(number))),
            Action::Yield => task::yield_now(),
            Action::Take { timeout: limit, .. }
            | Action::Lock { timeout: limit, .. }
            | Action::Put { timeout: limit, .. }
            | Action::Get { timeout: limit, .. }
            | Action::Wait { timeout: limit, .. }
            | Action::Join { timeout: limit, .. } => return self.attempt(action, timeout(limit)),
            _ => {}
        }
        Step::Done
    }

    /// An operation that may have to wait.
    fn attempt(&self, action: &Action, timeout: Timeout) -> Step {
        Step::Answer(match *action {
            Action::Take { semaphore, .. } => {
                self.semaphore(semaphore).take(timeout).map_or_else(refused, |()| Answer::Ok)
            }
            Action::Lock { mutex, .. } => lock(self.mutex(mutex), timeout),
            Action::Put { queue, value, .. } => {
                let sent = self.queue(queue).send(value, timeout);
                sent.map_or_else(|error| refused(error.reason), |()| Answer::Ok)
            }
            Action::Get { queue, .. } => {
                self.queue(queue).receive(timeout).map_or_else(refused, Answer::Value)
            }
            Action::Wait { flags, mode, bits, .. } => {
                let matched = match mode {
                    Mode::Any => self.flags(flags).wait_any(bits, timeout),
                    Mode::All => self.flags(flags).wait_all(bits, timeout),
                };
                match matched {
                    Ok(bits) => Answer::Value(bits.into()),
                    Err(FlagsError::Wait(error)) => refused(error),
                    Err(error) => panic!("a wait for flags: {error}"),
                }
            }
            Action::Join { task, .. } => match self.task(task).join(timeout) {
                Ok(End::Returned) => Answer::Ok,
                Ok(End::Killed | End::Failed) => Answer::Killed,
                Err(JoinError::SelfJoin) => Answer::SelfJoin,
                Err(JoinError::Wait(error)) => refused(error),
                Err(error) => panic!("join: {error}"),
            },
            _ => return Step::Done,
        })
    }

    fn semaphore(&self, index: usize) -> &Semaphore {
        match &self.objects[index] {
            Object::Semaphore(semaphore) => semaphore,
            _ => unreachable!("the parser knows the kinds"),
        }
    }

    fn mutex(&self, index: usize) -> &Mutex<()> {
        match &self.objects[index] {
            Object::Mutex(mutex) => mutex,
            _ => unreachable!("the parser knows the kinds"),
        }
    }

    fn queue(&self, index: usize) -> &HeapQueue<u64> {
        match &self.objects[index] {
            Object::Queue(queue) => queue,
            _ => unreachable!("the parser knows the kinds"),
        }
    }

    fn flags(&self, index: usize) -> &EventFlags {
        match &self.objects[index] {
            Object::Flags(flags) => flags,
            _ => unreachable!("the parser knows the kinds"),
        }
    }
}

fn lock(mutex: &Mutex<()>, timeout: Timeout) -> Answer {
    // Forgotten guards: a script unlocks where it says, or never.
    match mutex.lock(timeout) {
        Ok(guard) => {
            core::mem::forget(guard);
            Answer::Ok
        }
        Err(LockError::OwnerDied(guard)) => {
            core::mem::forget(guard);
            Answer::OwnerDead
        }
        Err(LockError::Recursive) => Answer::Recursive,
        Err(LockError::Wait(error)) => refused(error),
        Err(error) => panic!("lock: {error}"),
    }
}

fn unlock(mutex: &Mutex<()>) -> Answer {
    // SAFETY: every guard was forgotten (`lock`).
    unsafe { mutex.unlock() }.map_or(Answer::NotOwner, |()| Answer::Ok)
}

fn refused(error: WaitError) -> Answer {
    match error {
        WaitError::WouldBlock => Answer::Busy,
        WaitError::TimedOut => Answer::Timeout,
        error => panic!("a wait: {error}"),
    }
}
