//! Wait queues: who waits for one object, the most urgent first, among equals
//! the one that has waited longest.
//!
//! A queue exists only while somebody waits. The object keeps a [`WaitQueue`],
//! a number and a generation; the kernel has as many records as slots, so that
//! there is always one for the first waiter. The waiters of a queue are a
//! leftist heap through the slots (C. A. Crane, 1972): the best is at the root,
//! and joining, leaving and changing one's priority are O(log w).

use crate::kernel::Kernel;
use crate::priority::Priority;
use crate::slot::{Index, Kind, NIL, Slot};

/// Who waits for an object: empty until somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitQueue {
    /// The record's index, plus one; zero for none.
    record: u16,
    generation: u32,
}

impl WaitQueue {
    /// Nobody.
    pub const fn new() -> Self {
        Self { record: 0, generation: 0 }
    }

    /// Whether nobody has waited since this was last looked at. `false` does not
    /// say that somebody does: they may have given up.
    pub(crate) const fn is_quiet(self) -> bool {
        self.record == 0
    }
}

/// What a shell calls an object of its own, a mutex, so that it finds it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub usize);

/// One queue that somebody waits in.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) generation: u32,
    pub(crate) root: Index,
    /// How many wait.
    pub(crate) len: Index,
    /// Whose mutex it is, if it is one: that task inherits from the root.
    pub(crate) owner: Index,
    /// What the owner inherits from here at the moment.
    pub(crate) top: Option<Priority>,
    /// When the owner acquired the mutex, and which it is.
    pub(crate) acquired: u64,
    pub(crate) handle: Handle,
    /// Among the owner's records, or among the free ones.
    pub(crate) next: Index,
    pub(crate) prev: Index,
}

impl Record {
    pub(crate) const FREE: Self = Self {
        generation: 0,
        root: NIL,
        len: 0,
        owner: NIL,
        top: None,
        acquired: 0,
        handle: Handle(0),
        next: NIL,
        prev: NIL,
    };
}

impl Kernel {
    /// The record behind a queue that is not empty.
    pub(crate) fn live(&self, queue: WaitQueue) -> Option<Index> {
        let index = queue.record.checked_sub(1)?;
        let record = self.records.get(usize::from(index))?;
        (record.generation == queue.generation && record.root != NIL).then_some(index)
    }

    /// The queue behind a record that somebody waits in; for [`NIL`], an empty one.
    pub(crate) fn queue_at(&self, index: Index) -> WaitQueue {
        let record = self.records.get(usize::from(index));
        record.map_or(WaitQueue::new(), |record| WaitQueue {
            record: index + 1,
            generation: record.generation,
        })
    }

    /// Who is next, and stays in the queue. O(1).
    pub(crate) fn best(&self, queue: WaitQueue) -> Option<Index> {
        self.live(queue).map(|record| self.records[usize::from(record)].root)
    }

    /// As [`Kernel::best`], but makes a queue that all have left quiet again.
    #[inline]
    pub(crate) fn best_of(&self, queue: &mut WaitQueue) -> Option<Index> {
        if queue.is_quiet() { None } else { self.best_or_quiet(queue) }
    }

    fn best_or_quiet(&self, queue: &mut WaitQueue) -> Option<Index> {
        let best = self.best(*queue);
        if best.is_none() {
            *queue = WaitQueue::new();
        }
        best
    }

    /// How many wait. O(1).
    pub(crate) fn waiters(&self, queue: WaitQueue) -> usize {
        self.live(queue).map_or(0, |index| usize::from(self.records[usize::from(index)].len))
    }

    /// Puts a slot that waits into a queue, and returns its record. O(log w).
    pub(crate) fn enqueue(&mut self, queue: &mut WaitQueue, slot: Index) -> Index {
        let index = self.live(*queue).unwrap_or_else(|| {
            let index = self.free_record;
            let record = &mut self.records[usize::from(index)];
            self.free_record = record.next;
            let generation = record.generation.wrapping_add(1);
            *record = Record { generation, ..Record::FREE };
            *queue = WaitQueue { record: index + 1, generation };
            index
        });
        self.slots[usize::from(slot)].queue = index;
        self.records[usize::from(index)].len += 1;
        self.add_to_heap(index, slot);
        index
    }

    /// Takes a slot out of the queue that it stands in, if any. O(log w), and
    /// what inheritance takes.
    pub(crate) fn dequeue(&mut self, slot: Index) {
        let index = core::mem::replace(&mut self.slots[usize::from(slot)].queue, NIL);
        if index == NIL {
            return;
        }
        self.take_from_heap(index, slot);
        self.records[usize::from(index)].len -= 1;
        if self.records[usize::from(index)].root != NIL {
            self.inherit(index);
            return;
        }
        // Nobody may inherit from a record without waiters, not for a moment:
        // the owner may be on a cycle, which is looked through at each change.
        self.disown(index);
        let record = &mut self.records[usize::from(index)];
        (record.next, self.free_record) = (self.free_record, index);
    }

    /// Finds the right place for a slot whose effective priority has changed.
    pub(crate) fn reposition(&mut self, slot: Index) {
        let index = self.slots[usize::from(slot)].queue;
        if index != NIL {
            self.take_from_heap(index, slot);
            self.add_to_heap(index, slot);
        }
    }

    fn add_to_heap(&mut self, index: Index, slot: Index) {
        let entry = &mut self.slots[usize::from(slot)];
        (entry.left, entry.right, entry.parent, entry.rank) = (NIL, NIL, NIL, 1);
        let record = &mut self.records[usize::from(index)];
        record.root = merge(&mut self.slots, record.root, slot);
        self.slots[usize::from(record.root)].parent = NIL;
    }

    fn take_from_heap(&mut self, index: Index, slot: Index) {
        let Slot { left, right, parent, .. } = self.slots[usize::from(slot)];
        let heir = merge(&mut self.slots, left, right);
        if heir != NIL {
            self.slots[usize::from(heir)].parent = parent;
        }
        if parent == NIL {
            self.records[usize::from(index)].root = heir;
            return;
        }
        let above = &mut self.slots[usize::from(parent)];
        if above.left == slot {
            above.left = heir;
        } else {
            above.right = heir;
        }
        lean(&mut self.slots, parent);
    }

    /// Whether a slot is a future's place and not a task.
    pub(crate) fn is_proxy(&self, slot: Index) -> bool {
        self.slots[usize::from(slot)].kind == Kind::Proxy
    }
}

/// Whether `a` is to be chosen before `b`.
fn before(a: &Slot, b: &Slot) -> bool {
    match a.effective.cmp(&b.effective) {
        core::cmp::Ordering::Equal => a.since < b.since,
        order => order.is_gt(),
    }
}

fn rank(slots: &[Slot], slot: Index) -> u8 {
    slots.get(usize::from(slot)).map_or(0, |slot| slot.rank)
}

/// Merges two heaps; their right spines, and so the recursion, are O(log w) deep.
fn merge(slots: &mut [Slot], a: Index, b: Index) -> Index {
    if a == NIL {
        return b;
    }
    if b == NIL {
        return a;
    }
    let a_first = before(&slots[usize::from(a)], &slots[usize::from(b)]);
    let (top, other) = if a_first { (a, b) } else { (b, a) };
    let right = merge(slots, slots[usize::from(top)].right, other);
    slots[usize::from(right)].parent = top;
    slots[usize::from(top)].right = right;
    straighten(slots, top);
    top
}

/// Makes the left side the one of higher rank, and the rank right; tells
/// whether the rank has changed.
fn straighten(slots: &mut [Slot], slot: Index) -> bool {
    let Slot { left, right, rank: old, .. } = slots[usize::from(slot)];
    let (of_left, of_right) = (rank(slots, left), rank(slots, right));
    let entry = &mut slots[usize::from(slot)];
    if of_left < of_right {
        (entry.left, entry.right) = (right, left);
    }
    entry.rank = of_left.min(of_right) + 1;
    entry.rank != old
}

/// Straightens upwards, as far as ranks change.
fn lean(slots: &mut [Slot], mut slot: Index) {
    while slot != NIL && straighten(slots, slot) {
        slot = slots[usize::from(slot)].parent;
    }
}
