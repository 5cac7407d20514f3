//! Priority inheritance: a task is as urgent as the most urgent task that waits
//! for a mutex it holds, transitively, at every moment.
//!
//! Every contended mutex (a record with an owner) gives its owner the priority
//! of its first waiter; the owner counts what it is given by level, so that its
//! effective priority is found in O(1). A change travels from owner to owner
//! along the chain, and stops at the first owner that it does not change.
//!
//! On a cycle of owners, a deadlock, the members hold each other's priority up;
//! there the priority is computed anew from what comes from outside.

use crate::kernel::Kernel;
use crate::priority::Priority;
use crate::ready::Place;
use crate::slot::{Index, NIL, Slot};
use crate::wait::Handle;

impl Kernel {
    /// Makes `owner` the one who inherits from a record's waiters.
    pub(crate) fn own(&mut self, index: Index, owner: Index, acquired: u64, handle: Handle) {
        self.disown(index);
        let first = self.slots[usize::from(owner)].owned;
        let record = &mut self.records[usize::from(index)];
        (record.owner, record.acquired, record.handle) = (owner, acquired, handle);
        (record.next, record.prev) = (first, NIL);
        if first != NIL {
            self.records[usize::from(first)].prev = index;
        }
        self.slots[usize::from(owner)].owned = index;
        self.inherit(index);
    }

    /// Ends inheritance from a record's waiters.
    pub(crate) fn disown(&mut self, index: Index) {
        let record = &mut self.records[usize::from(index)];
        let (owner, next, prev) = (record.owner, record.next, record.prev);
        if owner == NIL {
            return;
        }
        let top = record.top.take();
        (record.owner, record.next, record.prev) = (NIL, NIL, NIL);
        match prev {
            NIL => self.slots[usize::from(owner)].owned = next,
            _ => self.records[usize::from(prev)].next = next,
        }
        if next != NIL {
            self.records[usize::from(next)].prev = prev;
        }
        count(&mut self.slots[usize::from(owner)], top, None);
        self.reprioritise(owner);
    }

    /// The mutex that a task acquired first among those it holds and others wait
    /// for. O(h).
    pub(crate) fn first_owned(&self, owner: Index) -> Option<Index> {
        let mut first: Option<Index> = None;
        let mut index = self.slots[usize::from(owner)].owned;
        while index != NIL {
            let record = &self.records[usize::from(index)];
            if first.is_none_or(|f| record.acquired < self.records[usize::from(f)].acquired) {
                first = Some(index);
            }
            index = record.next;
        }
        first
    }

    /// Passes on a change among a record's waiters, also if the first of them is
    /// as urgent as before: on a cycle that may be what it has from the owner.
    pub(crate) fn inherit(&mut self, index: Index) {
        self.count_top(index);
        let owner = self.records[usize::from(index)].owner;
        if owner != NIL {
            self.reprioritise(owner);
        }
    }

    /// Makes a task's effective priority what it must be, and its owner's, and so on.
    pub(crate) fn reprioritise(&mut self, task: Index) {
        let mut task = task;
        loop {
            let due = self.slots[usize::from(task)].due_priority();
            if due == self.slots[usize::from(task)].effective {
                if self.is_on_cycle(task) {
                    self.settle(task);
                }
                return;
            }
            self.set_effective(task, due);
            let owner = self.owner_of(task);
            if owner == NIL {
                return;
            }
            self.count_top(self.slots[usize::from(task)].queue);
            task = owner;
        }
    }

    /// Counts a record's first waiter anew.
    fn count_top(&mut self, index: Index) {
        let record = &mut self.records[usize::from(index)];
        let top = self.slots.get(usize::from(record.root)).map(|slot| slot.effective);
        if record.owner == NIL || record.top == top {
            return;
        }
        let old = core::mem::replace(&mut record.top, top);
        count(&mut self.slots[usize::from(record.owner)], old, top);
    }

    fn set_effective(&mut self, task: Index, effective: Priority) {
        if self.slots[usize::from(task)].in_line {
            self.lines.remove(&mut self.slots, task);
            self.slots[usize::from(task)].effective = effective;
            self.slots[usize::from(task)].count = 0;
            self.lines.insert(&mut self.slots, task, Place::End);
        } else {
            self.slots[usize::from(task)].effective = effective;
            self.reposition(task);
        }
    }

    /// Who owns the mutex that a task waits for.
    fn owner_of(&self, task: Index) -> Index {
        let record = self.slots.get(usize::from(task)).map_or(NIL, |slot| slot.queue);
        self.records.get(usize::from(record)).map_or(NIL, |record| record.owner)
    }

    /// Whether following the owners leads back. R. W. Floyd's two walkers: a
    /// cycle that the task only waits for has no end either.
    fn is_on_cycle(&self, task: Index) -> bool {
        let (mut slow, mut fast) = (task, task);
        loop {
            for _ in 0..2 {
                fast = self.owner_of(fast);
                if fast == NIL || fast == task {
                    return fast == task;
                }
            }
            slow = self.owner_of(slow);
            if slow == fast {
                return false;
            }
        }
    }

    /// Gives all tasks of a cycle the highest priority that any of them has of
    /// its own or from a waiter outside of it. O(c log w) for c tasks.
    fn settle(&mut self, start: Index) {
        let mut highest = Priority::LOWEST;
        self.around(start, |kernel, task| {
            highest = highest.max(kernel.priority_but_for(kernel.owner_of(task), task));
        });
        self.around(start, |kernel, task| {
            if kernel.slots[usize::from(task)].effective != highest {
                kernel.set_effective(task, highest);
            }
        });
        self.around(start, |kernel, task| {
            let record = kernel.slots[usize::from(task)].queue;
            kernel.count_top(record);
        });
    }

    fn around(&mut self, start: Index, mut visit: impl FnMut(&mut Self, Index)) {
        let mut task = start;
        loop {
            visit(self, task);
            task = self.owner_of(task);
            if task == start {
                return;
            }
        }
    }

    /// An owner's own priority and what it inherits, but for one waiter.
    fn priority_but_for(&self, owner: Index, but: Index) -> Priority {
        let mut highest = self.slots[usize::from(owner)].base;
        let mut index = self.slots[usize::from(owner)].owned;
        while index != NIL {
            let record = &self.records[usize::from(index)];
            let root = record.root;
            let Slot { left, right, .. } = self.slots[usize::from(root)];
            let best = if root == but { [left, right] } else { [root, NIL] };
            for slot in best.iter().filter_map(|slot| self.slots.get(usize::from(*slot))) {
                highest = highest.max(slot.effective);
            }
            index = record.next;
        }
        highest
    }
}

/// Changes one thing that a task inherits.
fn count(slot: &mut Slot, old: Option<Priority>, new: Option<Priority>) {
    if let Some(level) = old {
        let number = &mut slot.inherited[level.index()];
        *number -= 1;
        if *number == 0 {
            slot.inherited_levels &= !level.bit();
        }
    }
    if let Some(level) = new {
        slot.inherited[level.index()] += 1;
        slot.inherited_levels |= level.bit();
    }
}
