//! Random scripts whose tasks get in each other's way.
//!
//! A seed is a script, until this file changes: a failure is reproduced from its
//! number, and kept as the text that its script prints. Few objects, few
//! priorities and short times make tasks meet; each seed has its own manner
//! (what its tasks mostly do, how long they wait, whether they share slices),
//! because what is rare in the mean must be common in some scripts. Two habits
//! keep most of them from stopping at once: a task mostly unlocks what it
//! locked, and resumes what it suspended.

#![allow(
    clippy::indexing_slicing,
    reason = "all indices are drawn below the length of what they index"
)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU64;

use crate::script::{Action, Kind, Mode, Object, Operation, Script, TaskScript};

/// Makes the script of a seed.
///
/// It has 1 to 8 tasks of up to 12 operations, and is equal to its own text,
/// parsed.
///
/// ```
/// use cellule_litmus::{Script, generate};
/// let script = generate::script(7);
/// assert_eq!(script, generate::script(7));
/// assert_eq!(script, Script::parse(&script.to_string())?);
/// # Ok::<(), cellule_litmus::ParseError>(())
/// ```
#[must_use]
pub fn script(seed: u64) -> Script {
    let mut random = Random(seed);
    let manner = Manner::draw(&mut random);
    let mut script = Script { slice: manner.slice, ..Script::default() };
    add_objects(&mut random, &mut script.objects);
    // Rather more tasks than few.
    let tasks = 1 + random.index(8).max(random.index(8));
    let mut labels = 0;
    for index in 0..tasks {
        let author = Author {
            random: &mut random,
            manner: &manner,
            objects: &script.objects,
            tasks,
            labels: &mut labels,
            operations: vec![],
            held: vec![],
            stopped: vec![],
        };
        script.tasks.push(author.task(index));
    }
    script.renumber();
    script
}

fn add_objects(random: &mut Random, objects: &mut Vec<Object>) {
    for number in 0..random.index(3) {
        let limit = 1 + random.below(3);
        let initial = random.below(limit + 1);
        objects
            .push(Object { name: format!("s{number}"), kind: Kind::Semaphore { initial, limit } });
    }
    for number in 0..random.pick(&[0, 1, 2, 3, 3, 4]) {
        objects.push(Object { name: format!("m{number}"), kind: Kind::Mutex });
    }
    for number in 0..random.index(3) {
        let capacity = random.pick(&[1, 1, 2, 3]);
        objects.push(Object { name: format!("q{number}"), kind: Kind::Queue { capacity } });
    }
    for number in 0..random.index(2) {
        objects.push(Object { name: format!("f{number}"), kind: Kind::Flags });
    }
}

/// What operations can be about.
#[derive(Clone, Copy)]
enum Topic {
    Time,
    Yield,
    Semaphores,
    Mutexes,
    Queues,
    Flags,
    Priorities,
    Suspension,
    Kill,
    Join,
}

use Topic::{Flags, Join, Kill, Mutexes, Priorities, Queues, Semaphores, Suspension, Time, Yield};

/// How often tasks take up each topic. The first is a bit of everything; each
/// other one dwells on something.
const INTERESTS: [&[(Topic, u64)]; 6] = [
    &[
        (Time, 6),
        (Yield, 1),
        (Semaphores, 4),
        (Mutexes, 6),
        (Queues, 4),
        (Flags, 4),
        (Priorities, 1),
        (Suspension, 2),
        (Kill, 1),
        (Join, 1),
    ],
    &[(Time, 5), (Yield, 1), (Semaphores, 1), (Mutexes, 14), (Priorities, 2), (Kill, 1)],
    &[(Time, 6), (Semaphores, 2), (Mutexes, 5), (Priorities, 4), (Suspension, 6), (Join, 2)],
    &[(Time, 4), (Yield, 1), (Semaphores, 4), (Queues, 8), (Priorities, 1), (Suspension, 1)],
    &[(Time, 4), (Semaphores, 1), (Mutexes, 4), (Flags, 8), (Kill, 2), (Join, 3)],
    &[(Time, 12), (Yield, 3), (Mutexes, 3), (Priorities, 3), (Suspension, 2)],
];

/// What a task mostly begins with in a script where the more urgent come later:
/// it owns something when it is preempted, and wants what another owns.
const OPENING: [Topic; 3] = [Mutexes, Time, Mutexes];

/// How the tasks of one script behave. The percentages are those of a script.
struct Manner {
    slice: Option<NonZeroU64>,
    interests: &'static [(Topic, u64)],
    /// The base priorities that tasks have, and change to.
    priorities: Vec<u8>,
    /// Tasks that start later than others.
    late: u64,
    /// Whether the more urgent come later, and tasks have an [`OPENING`]: the
    /// way to inversions, and to chains of owners.
    staged: bool,
    /// Operations that wait for ever.
    patient: u64,
    /// Operations that do not wait, among the others.
    hasty: u64,
    /// Operations that a mark follows.
    marked: u64,
    /// Whether some times are long beyond counting.
    huge: bool,
}

impl Manner {
    fn draw(random: &mut Random) -> Self {
        let slice = NonZeroU64::new(random.pick(&[0, 0, 1, 2, 3]));
        let levels = 1 + random.index(6);
        let highest = random.pick(&[4, 9, 32]);
        let mut priorities: Vec<u8> = (0..levels).map(|_| random.below_u8(highest)).collect();
        priorities.sort_unstable();
        Self {
            slice,
            interests: INTERESTS[random.index(INTERESTS.len())],
            priorities,
            late: random.pick(&[0, 30, 60]),
            staged: random.percent(40),
            patient: random.pick(&[10, 30, 60]),
            hasty: random.pick(&[0, 20, 50]),
            marked: random.pick(&[10, 40]),
            // Tasks that share slices for so long would take as long to run.
            huge: slice.is_none() && random.percent(6),
        }
    }
}

/// Writes one task.
struct Author<'a> {
    random: &'a mut Random,
    manner: &'a Manner,
    objects: &'a [Object],
    tasks: usize,
    labels: &'a mut usize,
    operations: Vec<Operation>,
    /// The mutexes that the task has reason to think its own.
    held: Vec<usize>,
    /// The tasks that this one suspended and should resume.
    stopped: Vec<usize>,
}

impl Author<'_> {
    fn task(mut self, index: usize) -> TaskScript {
        let name = ["A", "B", "C", "D", "E", "F", "G", "H"][index % 8].to_string();
        let (priority, at) = self.priority_and_start();
        // The last turn may add a lock, its unlock and a mark: 12 at most.
        let enough = self.random.index(11);
        let mut topics = if self.manner.staged { &OPENING[..] } else { &[] }.iter();
        while self.operations.len() + self.held.len() + self.stopped.len() < enough {
            let opening = topics.next().filter(|_| self.random.percent(80));
            let topic =
                opening.copied().unwrap_or_else(|| self.random.weighted(self.manner.interests));
            let action = self.action(topic, index);
            self.write(action);
            if self.random.percent(self.manner.marked) {
                let label = self.new_label(&name.to_lowercase());
                self.write(Action::Mark { label });
            }
        }
        self.tidy_up();
        TaskScript { name, priority, at, operations: self.operations }
    }

    fn priority_and_start(&mut self) -> (u8, u64) {
        let level = self.random.index(self.manner.priorities.len());
        let at = if self.manner.staged {
            2 * level as u64 + self.random.below(3)
        } else if self.random.percent(self.manner.late) {
            self.random.below(10)
        } else {
            0
        };
        (self.manner.priorities[level], at)
    }

    /// Appends an operation, mostly with a label if it answers.
    fn write(&mut self, action: Action) {
        let labelled = action.has_result() && self.random.percent(85);
        let label = labelled.then(|| self.new_label("r"));
        self.operations.push(Operation { line: 0, action, label });
    }

    fn new_label(&mut self, prefix: &str) -> String {
        *self.labels += 1;
        format!("{prefix}{}", self.labels)
    }

    /// Mostly unlocks and resumes what is left.
    fn tidy_up(&mut self) {
        while let Some(task) = self.stopped.pop() {
            self.write(Action::Resume { task });
        }
        if self.random.percent(75) {
            while let Some(mutex) = self.held.pop() {
                self.write(Action::Unlock { mutex });
            }
        }
    }

    fn action(&mut self, topic: Topic, own: usize) -> Action {
        // A mutex that is held for a while is one that others wait for.
        let topic = if !self.held.is_empty() && self.random.percent(25) { Time } else { topic };
        let object = |author: &mut Self, wanted: fn(&Kind) -> bool| author.object(wanted);
        let action = match topic {
            Time => None,
            Yield => Some(Action::Yield),
            Semaphores => object(self, |kind| matches!(kind, Kind::Semaphore { .. }))
                .map(|s| self.semaphore(s)),
            Mutexes => object(self, |kind| matches!(kind, Kind::Mutex)).map(|m| self.mutex(m)),
            Queues => {
                object(self, |kind| matches!(kind, Kind::Queue { .. })).map(|q| self.queue(q))
            }
            Flags => object(self, |kind| matches!(kind, Kind::Flags)).map(|f| self.flags(f)),
            Priorities => Some(Action::Prio {
                task: self.any_task(),
                priority: self.random.pick(&self.manner.priorities),
            }),
            Suspension => Some(self.suspension(own)),
            Kill => Some(Action::Kill { task: self.any_task() }),
            Join => Some(Action::Join { task: self.any_task(), timeout: self.timeout() }),
        };
        action.unwrap_or_else(|| self.time())
    }

    /// One of the objects of a kind, if there is one.
    fn object(&mut self, wanted: fn(&Kind) -> bool) -> Option<usize> {
        let such: Vec<usize> =
            (0..self.objects.len()).filter(|index| wanted(&self.objects[*index].kind)).collect();
        (!such.is_empty()).then(|| self.random.pick(&such))
    }

    fn any_task(&mut self) -> usize {
        self.random.index(self.tasks)
    }

    fn time(&mut self) -> Action {
        let huge = self.manner.huge && self.random.percent(20);
        let unit = if huge { 1_000_000_000_000 } else { 1 };
        match self.random.percent(70) {
            true => Action::Work { ticks: unit * (1 + self.random.below(4)) },
            false => Action::Sleep { ticks: unit * (1 + self.random.below(6)) },
        }
    }

    fn timeout(&mut self) -> Option<u64> {
        if self.random.percent(self.manner.patient) {
            return None;
        }
        match self.random.percent(self.manner.hasty) {
            true => Some(0),
            false => Some(1 + self.random.below(8)),
        }
    }

    fn semaphore(&mut self, semaphore: usize) -> Action {
        match self.random.percent(50) {
            true => Action::Give { semaphore },
            false => Action::Take { semaphore, timeout: self.timeout() },
        }
    }

    /// Unlocks what is held, in one order or another, or locks one more;
    /// sometimes without a right to.
    fn mutex(&mut self, any: usize) -> Action {
        if self.random.percent(5) {
            return Action::Unlock { mutex: any };
        }
        if !self.held.is_empty() && self.random.percent(35) {
            let mutex = self.held.remove(self.random.index(self.held.len()));
            return Action::Unlock { mutex };
        }
        if self.held.contains(&any) && self.random.percent(80) {
            return self.time();
        }
        self.held.push(any);
        Action::Lock { mutex: any, timeout: self.timeout() }
    }

    fn queue(&mut self, queue: usize) -> Action {
        match self.random.percent(50) {
            true => Action::Put { queue, value: self.random.below(100), timeout: self.timeout() },
            false => Action::Get { queue, timeout: self.timeout() },
        }
    }

    fn flags(&mut self, flags: usize) -> Action {
        let bits = 1 + u32::from(self.random.below_u8(7));
        match self.random.below(10) {
            0 | 1 => Action::Clear { flags, bits },
            2..=5 => Action::Set { flags, bits },
            _ => {
                let mode = self.random.pick(&[Mode::Any, Mode::All]);
                Action::Wait { flags, mode, bits, timeout: self.timeout() }
            }
        }
    }

    /// Suspends a task, now and then itself, or resumes one that it suspended.
    fn suspension(&mut self, own: usize) -> Action {
        if let Some(task) = self.stopped.pop_if(|_| self.random.percent(50)) {
            return Action::Resume { task };
        }
        let task = self.any_task();
        if self.random.percent(30) || (task == own && self.random.percent(60)) {
            return Action::Resume { task };
        }
        if task != own && self.random.percent(80) {
            self.stopped.push(task);
        }
        Action::Suspend { task }
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", 2014): every seed is as good as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit that is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn below_u8(&mut self, limit: u8) -> u8 {
        let [low, ..] = self.next().to_le_bytes();
        low % limit
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of several, of which there is at least one.
    fn pick<T: Copy>(&mut self, several: &[T]) -> T {
        several[self.index(several.len())]
    }

    fn weighted(&mut self, topics: &[(Topic, u64)]) -> Topic {
        let mut left = self.below(topics.iter().map(|(_, weight)| weight).sum());
        for (topic, weight) in topics {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *topic,
            }
        }
        Time
    }
}
