//! What the kernel knows of a task, of a waiting future, and of a timer.

use crate::priority::{LEVELS, Priority};
use crate::wait::WaitQueue;

/// A task, also after it ended: no two tasks ever have the same.
///
/// The low 16 bits are the task's number, which is used again after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// No task.
    pub const NONE: Self = Self(0);

    pub(crate) const fn new(slot: Index, serial: u64) -> Self {
        Self(serial << 16 | slot as u64)
    }

    /// The task's number: small, and unique among the living.
    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are the number")]
    pub const fn number(self) -> u16 {
        self.0 as u16
    }

    /// The id as a word.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The id of such a word.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// An index into a table of the kernel's.
pub(crate) type Index = u16;
/// No index.
pub(crate) const NIL: Index = u16::MAX;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It could run.
    Ready,
    /// It waits for an object, a point in time, or both.
    Waiting,
    /// It is not to run until it is resumed; it may be waiting besides.
    Suspended,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With what was waited for. The number is the object's.
    Granted(u64),
    /// With what was waited for, whose last owner died with it.
    OwnerDied,
    /// The time was up.
    TimedOut,
    /// The other side ended.
    PeerDied,
    /// The wait was called off.
    Cancelled,
}

/// What a slot is in use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Free,
    Task,
    /// A future's place in a wait queue: it is notified, and tries again.
    Proxy,
    Timer,
}

/// One entry of the kernel's table.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) id: TaskId,
    pub(crate) kind: Kind,
    pub(crate) base: Priority,
    /// The highest of the base and what is inherited.
    pub(crate) effective: Priority,
    /// Whether it waits; a task that does not is ready or runs.
    pub(crate) waiting: bool,
    pub(crate) suspended: bool,
    /// Whether it stands in a line; `next` and `prev` are the line's then.
    pub(crate) in_line: bool,
    /// In a line, among a server's clients, or among free slots.
    pub(crate) next: Index,
    pub(crate) prev: Index,

    /// The wait queue in which it stands, and its place in the heap.
    pub(crate) queue: Index,
    pub(crate) since: u64,
    pub(crate) left: Index,
    pub(crate) right: Index,
    pub(crate) parent: Index,
    pub(crate) rank: u8,
    /// What it waits for, in the object's terms.
    pub(crate) want: u64,
    pub(crate) outcome: Outcome,
    /// Where it stood, if it is a future that was notified.
    pub(crate) line: WaitQueue,

    /// Its place among the timers.
    pub(crate) timer: Index,
    /// A timer's period and how often it expired since it was last asked; for a
    /// task, how long it has run of its slice.
    pub(crate) period: u64,
    pub(crate) count: u64,

    /// Whose reply it waits for, and the first of those who wait for its own.
    pub(crate) server: Index,
    pub(crate) clients: Index,
    /// Those who wait for its end.
    pub(crate) joiners: WaitQueue,
    /// The first contended mutex that it holds.
    pub(crate) owned: Index,
    /// How many contended mutexes that it holds have a most urgent waiter of
    /// each priority, and which of these numbers are not zero.
    pub(crate) inherited: [u16; LEVELS],
    pub(crate) inherited_levels: u32,
}

impl Slot {
    pub(crate) const FREE: Self = Self {
        id: TaskId::NONE,
        kind: Kind::Free,
        base: Priority::LOWEST,
        effective: Priority::LOWEST,
        waiting: false,
        suspended: false,
        in_line: false,
        next: NIL,
        prev: NIL,
        queue: NIL,
        since: 0,
        left: NIL,
        right: NIL,
        parent: NIL,
        rank: 0,
        want: 0,
        outcome: Outcome::Cancelled,
        line: WaitQueue::new(),
        timer: NIL,
        period: 0,
        count: 0,
        server: NIL,
        clients: NIL,
        joiners: WaitQueue::new(),
        owned: NIL,
        inherited: [0; LEVELS],
        inherited_levels: 0,
    };

    /// What the effective priority must be.
    pub(crate) fn due_priority(&self) -> Priority {
        match Priority::highest_of(self.inherited_levels) {
            Some(inherited) if inherited > self.base => inherited,
            _ => self.base,
        }
    }
}
