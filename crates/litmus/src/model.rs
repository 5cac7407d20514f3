//! The reference model: the rules of scheduling, word for word.
//!
//! Everything that can be computed is computed anew each time: effective
//! priorities are a least fixpoint over all waiters, the next waiter, the next
//! timer and the next task are found by looking at all of them. What remains is
//! four lists whose order is the rule:
//!
//! * `ready`: the lines, one behind the other. Of two tasks with the same
//!   effective priority the one that stands first in the list stands first in
//!   its line, so one list holds the lines of all priorities.
//! * `waiting`: who waits for what, in the order in which they began.
//! * `timers`: in the order in which they were armed.
//! * `held`: who owns which mutex, in the order in which they acquired them.
//!
//! This file is the state and the scheduler's choice; `lines` is who stands
//! where and who is chosen, `time` is work, slices and timers, and `operations`
//! is what tasks do to objects and to each other.
//!
//! # What the rules leave open
//!
//! * Time stops at `u64::MAX`: deadlines saturate there. Work goes on without
//!   the clock, and a timer armed then is due at the next tick of work.
//! * A moment is one step of an operation or one timer: two timers of the same
//!   tick are two moments, and so are a killed task's leaving what it waits for
//!   and the hand-over of each mutex. Priorities are settled after each.
//! * Whatever sends a ready task to the end of its line starts its slice anew,
//!   a changed effective priority too.
//! * `suspend` on a suspended task has no effect.
//! * A task that ends or is killed arms no timer any more, whatever it waited
//!   for: a deadlock is reported when it is one.
//! * A script without tasks ends at once.

#![allow(
    clippy::indexing_slicing,
    reason = "the parser resolved all indices; a script made by hand may panic, as documented"
)]

mod lines;
mod operations;
mod time;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::script::{Kind, Mode, Script};
use crate::trace::{Answer, Item, Trace};

/// Runs a script by the rules and returns its trace.
///
/// Every script ends: it has no loops. The clock jumps from event to event, so
/// the ticks themselves cost nothing; each slice that tasks share is an event.
///
/// ```
/// use cellule_litmus::{Script, run};
/// let script = Script::parse("task A 1\nwork 1000000000000\nmark a\nend")?;
/// assert_eq!(run(&script).to_string(), "a@1000000000000 end@1000000000000");
/// # Ok::<(), cellule_litmus::ParseError>(())
/// ```
///
/// # Panics
///
/// If an operation's index is not that of an object or a task, which
/// [`Script::parse`] makes sure of.
#[must_use]
pub fn run(script: &Script) -> Trace {
    let mut model = Model::new(script);
    while let Some(event) = model.decide() {
        match event {
            Event::Run(task) => model.advance(task),
            Event::Idle { until } => {
                model.clock = model.clock.max(until);
                model.fire_timers();
            }
        }
    }
    model.trace
}

/// The state of a run.
struct Model<'s> {
    script: &'s Script,
    clock: u64,
    running: Option<usize>,
    ready: Vec<usize>,
    waiting: Vec<Waiter>,
    timers: Vec<Timer>,
    held: Vec<Held>,
    tasks: Vec<Task>,
    objects: Vec<Object>,
    /// The effective priorities as they last were, to see which ones change.
    settled: Vec<u8>,
    trace: Trace,
}

/// What a task is, besides its places in the lists.
struct Task {
    base: u8,
    /// The operation that comes next.
    next: usize,
    /// What the current `work` still needs.
    work_left: u64,
    /// Ticks of the current slice.
    worked: u64,
    suspended: bool,
    /// What to record when it next runs: its wait is over.
    owed: Option<Answer>,
    /// What its joiners are told, once it has ended.
    ended: Option<Answer>,
}

/// An object: each kind uses its own fields. One type for each would make every
/// rule take it apart first.
struct Object {
    /// A semaphore's count.
    count: u64,
    /// A semaphore's limit or a queue's capacity.
    limit: u64,
    /// A queue's items.
    items: VecDeque<u64>,
    /// The flags that are set.
    bits: u32,
    /// A mutex that is free because its owner ended.
    orphaned: bool,
}

/// A task that waits.
struct Waiter {
    task: usize,
    wait: Wait,
}

/// What a task waits for; the numbers are objects, or the joined task.
#[derive(Clone, Copy)]
enum Wait {
    Start,
    Sleep,
    Take(usize),
    Lock(usize),
    Put(usize, u64),
    Get(usize),
    Flags(usize, Mode, u32),
    Join(usize),
}

struct Timer {
    task: usize,
    deadline: u64,
}

struct Held {
    mutex: usize,
    owner: usize,
}

/// What happens next.
enum Event {
    Run(usize),
    Idle { until: u64 },
}

impl<'s> Model<'s> {
    /// The state before the first task runs.
    fn new(script: &'s Script) -> Self {
        let mut model = Self {
            script,
            clock: 0,
            running: None,
            ready: vec![],
            waiting: vec![],
            timers: vec![],
            held: vec![],
            tasks: script.tasks.iter().map(|task| Task::new(task.priority)).collect(),
            objects: script.objects.iter().map(|object| Object::new(object.kind)).collect(),
            settled: script.tasks.iter().map(|task| task.priority).collect(),
            trace: Trace::default(),
        };
        for (index, task) in script.tasks.iter().enumerate() {
            match task.at {
                0 => model.make_ready(index),
                at => model.block(index, Wait::Start, Some(at)),
            }
        }
        model
    }

    /// Chooses what happens next, or ends the trace.
    fn decide(&mut self) -> Option<Event> {
        self.preempt();
        if self.running.is_none() {
            self.running = self.most_urgent_ready();
            self.ready.retain(|task| Some(*task) != self.running);
        }
        let tick = self.clock;
        match (self.running, self.next_deadline()) {
            (Some(task), _) => return Some(Event::Run(task)),
            _ if self.tasks.iter().all(|task| task.ended.is_some()) => {
                self.trace.0.push(Item::End { tick });
            }
            (None, Some(until)) => return Some(Event::Idle { until }),
            (None, None) => self.trace.0.push(Item::Deadlock { tick }),
        }
        None
    }

    /// Puts the running task at the front of its line if a ready one is more
    /// urgent.
    fn preempt(&mut self) {
        let effective = self.effective();
        if let (Some(task), Some(rival)) = (self.running, self.most_urgent_ready())
            && effective[rival] > effective[task]
        {
            self.running = None;
            self.ready.insert(0, task);
        }
    }

    /// The first task in the line of the highest priority.
    fn most_urgent_ready(&self) -> Option<usize> {
        self.first_of_highest(self.ready.iter().copied())
    }

    /// Lets the running task do its next thing: say that its wait is over, do a
    /// stretch of its work, begin its next operation, or end.
    fn advance(&mut self, task: usize) {
        let script = self.script;
        let operations = &script.tasks[task].operations;
        if let Some(answer) = self.tasks[task].owed.take() {
            self.record(task, answer);
        } else if self.tasks[task].work_left > 0 {
            self.work(task);
        } else if let Some(operation) = operations.get(self.tasks[task].next) {
            self.tasks[task].next += 1;
            self.perform(task, &operation.action);
        } else {
            self.finish(task, Answer::Ok);
        }
    }

    /// Appends the answer of a task's latest operation, if it has a label.
    fn record(&mut self, task: usize, answer: Answer) {
        let latest = &self.script.tasks[task].operations[self.tasks[task].next - 1];
        if let Some(label) = latest.label.clone() {
            self.trace.0.push(Item::Answer { label, answer, tick: self.clock });
        }
    }
}

impl Task {
    fn new(base: u8) -> Self {
        Self { base, next: 0, work_left: 0, worked: 0, suspended: false, owed: None, ended: None }
    }
}

impl Object {
    fn new(kind: Kind) -> Self {
        let (count, limit) = match kind {
            Kind::Semaphore { initial, limit } => (initial, limit),
            Kind::Queue { capacity } => (0, capacity),
            Kind::Mutex | Kind::Flags => (0, 0),
        };
        Self { count, limit, items: VecDeque::new(), bits: 0, orphaned: false }
    }
}
