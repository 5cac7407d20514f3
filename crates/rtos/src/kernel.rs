//! `Kernel`: all tasks of a guest, and the choice of the one that runs.
//!
//! ```text
//!              create            1 decide           2 wait, sleep, join
//!            ----------> Ready ----------> Running --------------------+
//!                         ^ ^                 |                        v
//!                         | +-----------------+ 3 decide, yield_now,  Waiting
//!                         |                       work                 |
//!                         +--------------------------------------------+
//!                           4 wake: an object, a deadline, cancel
//! ```
//!
//! [`Kernel::suspend`] stops a task in any of these; [`Kernel::end`] ends it.
//! The running task stands in no line. An operation that makes it wait leaves
//! nobody running until [`Kernel::decide`].

use alloc::vec::Vec;

use crate::priority::Priority;
use crate::ready::{Lines, Place};
use crate::slot::{Index, Kind, NIL, Outcome, Slot, State, TaskId};
use crate::timeout::Patience;
use crate::timers::Timers;
use crate::wait::{Handle, Record, WaitQueue};

/// All tasks, lines, wait queues and timers.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) slots: Vec<Slot>,
    pub(crate) records: Vec<Record>,
    pub(crate) lines: Lines,
    pub(crate) free_record: Index,
    pub(crate) timers: Timers,
    free_slot: Index,
    /// The running task; `NIL` after it stopped running and before `decide`.
    pub(crate) current: Index,
    pub(crate) current_id: TaskId,
    /// Counts whatever must be told apart by its order: waits, timers, locks.
    serial: u64,
    /// Counts tasks, futures and timers: 2^48 of them have different ids.
    made: u64,
    pub(crate) now: u64,
    /// How long a task runs before its equals' turn; zero for no such limit.
    slice: u64,
    /// Proxies and timers of which the shell has not heard yet.
    pub(crate) notices: (Index, Index),
    observer: Option<fn(Event)>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The running task goes on.
    Stay,
    /// This task runs.
    Run(TaskId),
    /// No task is ready.
    Idle,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// It returned.
    Returned = 0,
    /// It was killed.
    Killed = 1,
    /// It failed: a panic or a fault.
    Failed = 2,
}

/// The first step of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinStep {
    /// It has ended already.
    Ended,
    /// It would wait for itself.
    SelfJoin,
    /// It has not ended, and there is no patience.
    Busy,
    /// The running task waits; the outcome's number is the [`End`].
    Waits,
}

/// There is no room for another task, future or timer: see [`Kernel::reserve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl core::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no room for another task")
    }
}

impl core::error::Error for NoRoom {}

/// Something that happened to a task, for a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was made.
    Created(TaskId, Priority),
    /// It can run.
    Ready(TaskId, Priority),
    /// It waits.
    Waits(TaskId),
    /// It ended.
    Ended(TaskId, End),
}

/// A task as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskView {
    /// Which.
    pub id: TaskId,
    /// What it does.
    pub state: State,
    /// Its own priority.
    pub base: Priority,
    /// That, or a higher one that it inherits.
    pub effective: Priority,
}

/// The most slots: the last number means none.
const MOST: usize = NIL as usize;

impl Kernel {
    /// No tasks, at time zero.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            records: Vec::new(),
            lines: Lines::new(),
            timers: Timers::new(),
            free_slot: NIL,
            free_record: NIL,
            current: NIL,
            current_id: TaskId::NONE,
            serial: 0,
            made: 0,
            now: 0,
            slice: 0,
            notices: (NIL, NIL),
            observer: None,
        }
    }

    /// Has `observer` told what happens to tasks.
    pub fn observe(&mut self, observer: Option<fn(Event)>) {
        self.observer = observer;
    }

    /// Makes room for `more` tasks, futures and timers: the only allocation.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if memory is short, or there would be more than 65535.
    pub fn reserve(&mut self, more: usize) -> Result<(), NoRoom> {
        let mut free = self.free_slot;
        let mut missing = more;
        while free != NIL && missing > 0 {
            (free, missing) = (self.slots[usize::from(free)].next, missing - 1);
        }
        let total = self.slots.len().checked_add(missing);
        let total = total.filter(|total| *total <= MOST).ok_or(NoRoom)?;
        self.slots.try_reserve(missing).map_err(|_| NoRoom)?;
        self.records.try_reserve(missing).map_err(|_| NoRoom)?;
        if !self.timers.reserve(total) {
            return Err(NoRoom);
        }
        for _ in 0..missing {
            #[expect(clippy::cast_possible_truncation, reason = "fewer than 65535, see above")]
            let index = self.slots.len() as Index;
            self.slots.push(Slot { next: self.free_slot, ..Slot::FREE });
            self.free_slot = index;
            self.records.push(Record { next: self.free_record, ..Record::FREE });
            self.free_record = index;
        }
        Ok(())
    }

    /// How many tasks, futures and timers there is room for, those in use included.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Whether a task is ready besides the running one.
    #[inline]
    pub fn has_ready(&self) -> bool {
        self.lines.top().is_some()
    }

    /// Makes a task, ready at once or at `start`. O(1), or O(log n).
    ///
    /// # Errors
    ///
    /// [`NoRoom`]
    pub fn create(&mut self, priority: Priority, start: Option<u64>) -> Result<TaskId, NoRoom> {
        let (index, id) = self.allot(Kind::Task, priority)?;
        self.tell(Event::Created(id, priority));
        match start {
            Some(deadline) => {
                self.slots[usize::from(index)].waiting = true;
                self.arm(index, deadline);
            }
            None => self.make_ready(index),
        }
        Ok(id)
    }

    /// Makes a task that runs already: the one that the program began with.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]
    pub fn adopt(&mut self, priority: Priority) -> Result<TaskId, NoRoom> {
        let (index, id) = self.allot(Kind::Task, priority)?;
        self.tell(Event::Created(id, priority));
        (self.current, self.current_id) = (index, id);
        Ok(id)
    }

    /// The task that runs, or that ran last.
    #[inline]
    pub const fn current(&self) -> TaskId {
        self.current_id
    }

    /// The living task, future or timer with this number.
    pub fn id_at(&self, number: u16) -> TaskId {
        self.slots.get(usize::from(number)).map_or(TaskId::NONE, |slot| slot.id)
    }

    /// Whether a task has not ended.
    #[inline]
    pub fn is_alive(&self, id: TaskId) -> bool {
        self.find(id).is_some()
    }

    /// How a task is.
    pub fn view(&self, id: TaskId) -> Option<TaskView> {
        let index = self.find(id)?;
        let slot = &self.slots[usize::from(index)];
        let state = match slot {
            Slot { suspended: true, .. } => State::Suspended,
            Slot { waiting: true, .. } => State::Waiting,
            _ if self.current == index => State::Running,
            _ => State::Ready,
        };
        Some(TaskView { id, state, base: slot.base, effective: slot.effective })
    }

    /// All tasks that have not ended.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> {
        let tasks = self.slots.iter().filter(|slot| slot.kind == Kind::Task);
        tasks.filter_map(|slot| self.view(slot.id))
    }

    // The choice.

    /// Whether the running task is the one that [`Kernel::decide`] would choose.
    #[inline]
    pub fn is_settled(&self) -> bool {
        let current = self.slots.get(usize::from(self.current));
        current.is_some_and(|slot| self.lines.top().is_none_or(|top| top <= slot.effective))
    }

    /// Chooses who runs now. O(1).
    #[inline]
    pub fn decide(&mut self) -> Decision {
        if self.current != NIL {
            let current = self.slots[usize::from(self.current)].effective;
            if self.lines.top().is_none_or(|top| top <= current) {
                return Decision::Stay;
            }
            self.lines.insert(&mut self.slots, self.current, Place::Front);
        }
        match self.lines.pop(&mut self.slots) {
            Some(task) => {
                self.current = task;
                self.current_id = self.slots[usize::from(task)].id;
                Decision::Run(self.current_id)
            }
            None => {
                self.current = NIL;
                Decision::Idle
            }
        }
    }

    /// Sends the running task behind its equals. O(1).
    #[inline]
    pub fn yield_now(&mut self) {
        if self.current != NIL {
            self.slots[usize::from(self.current)].count = 0;
            self.lines.insert(&mut self.slots, self.current, Place::End);
            self.current = NIL;
        }
    }

    /// [`Kernel::yield_now`] and [`Kernel::decide`] in one, for the usual case: the
    /// next of the same line. O(1).
    #[inline]
    pub fn rotate(&mut self) -> Decision {
        let Some(slot) = self.slots.get_mut(usize::from(self.current)) else {
            return self.decide();
        };
        slot.count = 0;
        let level = slot.effective;
        match self.lines.top() {
            None => Decision::Stay,
            Some(top) if top < level => Decision::Stay,
            Some(top) if top > level => {
                self.yield_now();
                self.decide()
            }
            Some(_) => {
                self.current = self.lines.rotate(&mut self.slots, self.current, level);
                self.current_id = self.slots[usize::from(self.current)].id;
                Decision::Run(self.current_id)
            }
        }
    }

    /// Sets how long a task runs before its equals' turn; zero for no limit.
    pub fn set_slice(&mut self, nanos: u64) {
        self.slice = nanos;
    }

    /// How long that is; zero for no limit.
    #[inline]
    pub const fn slice(&self) -> u64 {
        self.slice
    }

    /// How much is left of the running task's slice, if another task waits for
    /// its end.
    pub fn slice_left(&self) -> Option<u64> {
        let slot = self.slots.get(usize::from(self.current))?;
        let contested = self.slice != 0 && self.lines.has(slot.effective);
        contested.then(|| self.slice.saturating_sub(slot.count))
    }

    /// Counts time that the running task has run, and ends its slice if it is over.
    pub fn charge(&mut self, nanos: u64) {
        let Some(slot) = self.slots.get_mut(usize::from(self.current)) else { return };
        if self.slice == 0 {
            return;
        }
        slot.count = slot.count.saturating_add(nanos);
        if slot.count >= self.slice {
            slot.count = 0;
            if self.lines.has(slot.effective) {
                self.yield_now();
            }
        }
    }

    /// Lets the running task work in virtual time, for at most `nanos`, up to the
    /// next moment at which something may happen; returns how long it worked.
    pub fn work(&mut self, nanos: u64) -> u64 {
        let Some(slot) = self.slots.get(usize::from(self.current)) else { return 0 };
        let mut step = nanos.min(u64::MAX - self.now);
        // Until the shell has heard the notices, nothing more happens.
        if !self.has_notices()
            && let Some(next) = self.timers.next()
        {
            step = step.min(next.saturating_sub(self.now).max(1));
        }
        if self.slice != 0 {
            step = step.min(self.slice.saturating_sub(slot.count).max(1));
        }
        self.advance(self.now + step);
        self.charge(step);
        step
    }

    // Time.

    /// The time that the kernel was last told.
    #[inline]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Tells the time, and wakes what is due, up to the first of which
    /// [`Kernel::next_notice`] tells: what the shell does then comes before what
    /// is due later, also in the same moment. See [`Kernel::catch_up`]. O(log n)
    /// for each.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while !self.has_notices()
            && let Some((slot, deadline)) = self.timers.take_due(&mut self.slots, self.now)
        {
            match self.slots[usize::from(slot)].kind {
                Kind::Free => {}
                Kind::Task => self.wake(slot, Outcome::TimedOut),
                Kind::Proxy => self.notify(slot),
                Kind::Timer => self.expire(slot, deadline),
            }
        }
    }

    /// Goes on where [`Kernel::advance`] stopped, once the shell has done what it
    /// was told of; whether there is more to do for it. O(log n) for each.
    #[inline]
    pub fn catch_up(&mut self) -> bool {
        if self.timers.next().is_some_and(|next| next <= self.now) {
            self.advance(self.now);
        }
        self.has_notices()
    }

    /// When something is next due.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// When something is due after that; a periodic timer counts with its next.
    pub fn following_deadline(&self) -> Option<u64> {
        let second = self.timers.following();
        let (first, deadline) = self.timers.first()?;
        let slot = &self.slots[usize::from(first)];
        let periodic = slot.kind == Kind::Timer && slot.period != 0;
        let again = if periodic { deadline.checked_add(slot.period) } else { None };
        second.map_or(again, |second| Some(again.map_or(second, |again| again.min(second))))
    }

    /// Makes the running task wait for a point in time only.
    pub fn sleep_until(&mut self, deadline: u64) {
        self.wait_for(Patience::Until(deadline), None, 0);
    }

    // Life.

    /// Ends a task. Mutexes that it holds are handed over: `mutex` is told each
    /// that others wait for, in the order in which they were acquired, and calls
    /// [`crate::Mutex::owner_died`]. Tells whether there was such a task.
    pub fn end(&mut self, id: TaskId, end: End, mutex: &mut dyn FnMut(&mut Self, Handle)) -> bool {
        let Some(task) = self.find(id) else { return false };
        self.tell(Event::Ended(id, end));
        if self.current == task {
            self.current = NIL;
        }
        self.leave(task);
        while let Some(index) = self.first_owned(task) {
            let handle = self.records[usize::from(index)].handle;
            mutex(self, handle);
            if self.records[usize::from(index)].owner == task {
                // The shell did not: at least nobody inherits from there.
                self.disown(index);
            }
        }
        while self.slots[usize::from(task)].clients != NIL {
            self.conclude(self.slots[usize::from(task)].clients, Outcome::PeerDied);
        }
        let joiners = core::mem::take(&mut self.slots[usize::from(task)].joiners);
        while let Some(joiner) = self.best(joiners) {
            self.wake(joiner, Outcome::Granted(end as u64));
        }
        self.free(task);
        true
    }

    /// Stops a task until it is resumed. O(1).
    pub fn suspend(&mut self, id: TaskId) {
        let Some(task) = self.find(id) else { return };
        if self.slots[usize::from(task)].in_line {
            self.lines.remove(&mut self.slots, task);
        }
        if self.current == task {
            self.current = NIL;
        }
        let slot = &mut self.slots[usize::from(task)];
        (slot.suspended, slot.count) = (true, 0);
    }

    /// Undoes any number of suspends. O(1).
    pub fn resume(&mut self, id: TaskId) {
        let Some(task) = self.find(id) else { return };
        let slot = &mut self.slots[usize::from(task)];
        if core::mem::replace(&mut slot.suspended, false) && !slot.waiting {
            self.make_ready(task);
        }
    }

    /// Changes a task's own priority.
    pub fn set_priority(&mut self, id: TaskId, priority: Priority) {
        if let Some(task) = self.find(id) {
            self.slots[usize::from(task)].base = priority;
            self.reprioritise(task);
        }
    }

    /// Makes the running task wait for another one's end.
    pub fn join(&mut self, id: TaskId, patience: Patience) -> JoinStep {
        let Some(task) = self.find(id) else { return JoinStep::Ended };
        if id == self.current_id {
            return JoinStep::SelfJoin;
        }
        if patience == Patience::None {
            return JoinStep::Busy;
        }
        let mut joiners = self.slots[usize::from(task)].joiners;
        self.wait_for(patience, Some(&mut joiners), 0);
        self.slots[usize::from(task)].joiners = joiners;
        JoinStep::Waits
    }

    /// Ends a task's wait, whatever for; whether it was waiting.
    pub fn cancel(&mut self, id: TaskId) -> bool {
        let waits = self.find(id).filter(|task| self.slots[usize::from(*task)].waiting);
        waits.inspect(|task| self.wake(*task, Outcome::Cancelled)).is_some()
    }

    /// How the running task's last wait ended.
    #[inline]
    pub fn outcome(&self) -> Outcome {
        let current = self.slots.get(usize::from(self.current_id.number()));
        current.map_or(Outcome::Cancelled, |slot| slot.outcome)
    }

    // Waiting and waking, for the objects.

    /// Makes the running task wait, in `queue` if there is one.
    pub(crate) fn wait_for(
        &mut self,
        patience: Patience,
        queue: Option<&mut WaitQueue>,
        want: u64,
    ) -> Index {
        let task = core::mem::replace(&mut self.current, NIL);
        let since = self.next_serial();
        let slot = &mut self.slots[usize::from(task)];
        (slot.waiting, slot.count, slot.since, slot.want) = (true, 0, since, want);
        self.tell(Event::Waits(self.current_id));
        if let Patience::Until(deadline) = patience {
            self.arm(task, deadline);
        }
        queue.map_or(NIL, |queue| self.enqueue(queue, task))
    }

    /// Makes the running task wait without a queue or a deadline: for whoever
    /// calls [`Kernel::release`].
    pub fn block(&mut self) {
        self.wait_for(Patience::Forever, None, 0);
    }

    /// Ends a [`Kernel::block`]; whether the task was waiting at all.
    pub fn release(&mut self, id: TaskId, number: u64) -> bool {
        let waits = self.find(id).filter(|task| self.slots[usize::from(*task)].waiting);
        waits.inspect(|task| self.wake(*task, Outcome::Granted(number))).is_some()
    }

    /// Ends a task's wait. O(log n), and what inheritance takes.
    pub(crate) fn wake(&mut self, task: Index, outcome: Outcome) {
        self.leave(task);
        let slot = &mut self.slots[usize::from(task)];
        (slot.waiting, slot.outcome) = (false, outcome);
        if !slot.suspended {
            self.make_ready(task);
        }
    }

    /// Takes a slot out of everything in which it stands.
    pub(crate) fn leave(&mut self, index: Index) {
        if self.slots[usize::from(index)].in_line {
            self.lines.remove(&mut self.slots, index);
        }
        self.timers.disarm(&mut self.slots, index);
        self.dequeue(index);
        self.leave_server(index);
    }

    fn make_ready(&mut self, task: Index) {
        self.lines.insert(&mut self.slots, task, Place::End);
        let slot = &self.slots[usize::from(task)];
        self.tell(Event::Ready(slot.id, slot.effective));
    }

    // Slots.

    /// The slot of a task that has not ended.
    #[inline]
    pub(crate) fn find(&self, id: TaskId) -> Option<Index> {
        self.find_kind(id, Kind::Task)
    }

    #[inline]
    pub(crate) fn find_kind(&self, id: TaskId, kind: Kind) -> Option<Index> {
        let slot = self.slots.get(usize::from(id.number()))?;
        (slot.id == id && slot.kind == kind).then_some(id.number())
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn arm(&mut self, slot: Index, deadline: u64) {
        let order = self.next_serial();
        self.timers.arm(&mut self.slots, slot, deadline, order);
    }

    pub(crate) fn allot(
        &mut self,
        kind: Kind,
        priority: Priority,
    ) -> Result<(Index, TaskId), NoRoom> {
        let index = self.free_slot;
        if index == NIL {
            return Err(NoRoom);
        }
        self.made += 1;
        let id = TaskId::new(index, self.made);
        let slot = &mut self.slots[usize::from(index)];
        self.free_slot = slot.next;
        *slot = Slot { id, kind, base: priority, effective: priority, ..Slot::FREE };
        Ok((index, id))
    }

    pub(crate) fn free(&mut self, index: Index) {
        self.slots[usize::from(index)] = Slot { next: self.free_slot, ..Slot::FREE };
        self.free_slot = index;
    }

    #[inline]
    pub(crate) fn tell(&self, event: Event) {
        if let Some(observer) = self.observer {
            observer(event);
        }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}
