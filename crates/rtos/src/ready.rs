//! The lines of the ready tasks: one for each priority.

use crate::priority::{LEVELS, Priority};
use crate::slot::{Index, NIL, Slot};

/// Doubly linked lines through the slots, and a bit for each that is not empty.
#[derive(Debug)]
pub(crate) struct Lines {
    levels: u32,
    first: [Index; LEVELS],
    last: [Index; LEVELS],
}

/// Where in its line a task is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Front,
    End,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Self { levels: 0, first: [NIL; LEVELS], last: [NIL; LEVELS] }
    }

    /// The priority of the most urgent ready task.
    pub(crate) fn top(&self) -> Option<Priority> {
        Priority::highest_of(self.levels)
    }

    /// Whether a ready task has this priority.
    pub(crate) fn has(&self, level: Priority) -> bool {
        self.levels & level.bit() != 0
    }

    /// Puts a task into the line of its effective priority. O(1).
    pub(crate) fn insert(&mut self, slots: &mut [Slot], task: Index, place: Place) {
        let slot = &mut slots[usize::from(task)];
        let level = slot.effective;
        slot.in_line = true;
        let (first, last) = (&mut self.first[level.index()], &mut self.last[level.index()]);
        self.levels |= level.bit();
        if *first == NIL {
            (slot.next, slot.prev) = (NIL, NIL);
            (*first, *last) = (task, task);
            return;
        }
        match place {
            Place::End => {
                (slot.next, slot.prev) = (NIL, *last);
                slots[usize::from(*last)].next = task;
                *last = task;
            }
            Place::Front => {
                (slot.next, slot.prev) = (*first, NIL);
                slots[usize::from(*first)].prev = task;
                *first = task;
            }
        }
    }

    /// Takes a task out of its line. O(1).
    pub(crate) fn remove(&mut self, slots: &mut [Slot], task: Index) {
        let slot = &mut slots[usize::from(task)];
        let (level, next, prev) = (slot.effective, slot.next, slot.prev);
        (slot.in_line, slot.next, slot.prev) = (false, NIL, NIL);
        match prev {
            NIL => self.first[level.index()] = next,
            _ => slots[usize::from(prev)].next = next,
        }
        match next {
            NIL => self.last[level.index()] = prev,
            _ => slots[usize::from(next)].prev = prev,
        }
        if self.first[level.index()] == NIL {
            self.levels &= !level.bit();
        }
    }

    /// Puts a task at the end of a line that is not empty, and takes the first. O(1).
    #[inline]
    pub(crate) fn rotate(&mut self, slots: &mut [Slot], task: Index, level: Priority) -> Index {
        let (first, last) = (self.first[level.index()], self.last[level.index()]);
        self.last[level.index()] = task;
        slots[usize::from(last)].next = task;
        let slot = &mut slots[usize::from(task)];
        (slot.in_line, slot.next, slot.prev) = (true, NIL, last);
        let slot = &mut slots[usize::from(first)];
        let second = core::mem::replace(&mut slot.next, NIL);
        slot.in_line = false;
        self.first[level.index()] = second;
        slots[usize::from(second)].prev = NIL;
        first
    }

    /// Takes the first task of the most urgent line. O(1).
    pub(crate) fn pop(&mut self, slots: &mut [Slot]) -> Option<Index> {
        let level = self.top()?;
        let task = self.first[level.index()];
        let slot = &mut slots[usize::from(task)];
        let next = slot.next;
        (slot.in_line, slot.next) = (false, NIL);
        self.first[level.index()] = next;
        match next {
            NIL => {
                self.last[level.index()] = NIL;
                self.levels &= !level.bit();
            }
            _ => slots[usize::from(next)].prev = NIL,
        }
        Some(task)
    }
}
