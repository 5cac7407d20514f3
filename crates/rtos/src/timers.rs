//! Deadlines, the earliest first: a binary heap whose entries know their places.

use alloc::vec::Vec;

use crate::slot::{Index, NIL, Slot};

/// One armed deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: u64,
    /// When it was armed: what decides between equal deadlines.
    armed: u64,
    slot: Index,
}

/// All armed deadlines. Every slot has at most one.
#[derive(Debug)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
}

impl Timers {
    pub(crate) const fn new() -> Self {
        Self { heap: Vec::new() }
    }

    /// Makes room for as many deadlines as there are slots.
    pub(crate) fn reserve(&mut self, slots: usize) -> bool {
        self.heap.try_reserve(slots.saturating_sub(self.heap.len())).is_ok()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// The slot with the earliest deadline.
    pub(crate) fn first(&self) -> Option<(Index, u64)> {
        self.heap.first().map(|entry| (entry.slot, entry.deadline))
    }

    /// The deadline after the earliest.
    pub(crate) fn following(&self) -> Option<u64> {
        let second = self.heap.get(1)?;
        let third = self.heap.get(2).unwrap_or(second);
        Some(second.deadline.min(third.deadline))
    }

    /// Arms a slot's deadline; `order` counts upwards. O(log n).
    pub(crate) fn arm(&mut self, slots: &mut [Slot], slot: Index, deadline: u64, order: u64) {
        self.disarm(slots, slot);
        self.heap.push(Entry { deadline, armed: order, slot });
        self.rise(slots, self.heap.len() - 1);
    }

    /// Forgets a slot's deadline, if it has one. O(log n).
    pub(crate) fn disarm(&mut self, slots: &mut [Slot], slot: Index) {
        let at = usize::from(slots[usize::from(slot)].timer);
        if slots[usize::from(slot)].timer == NIL {
            return;
        }
        slots[usize::from(slot)].timer = NIL;
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            let at = self.sink(slots, at);
            self.rise(slots, at);
        }
    }

    /// Takes the earliest slot whose deadline is not after `now`. O(log n).
    pub(crate) fn take_due(&mut self, slots: &mut [Slot], now: u64) -> Option<(Index, u64)> {
        let first = *self.heap.first().filter(|entry| entry.deadline <= now)?;
        self.disarm(slots, first.slot);
        Some((first.slot, first.deadline))
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 65535 slots")]
    fn place(&self, slots: &mut [Slot], at: usize) {
        slots[usize::from(self.heap[at].slot)].timer = at as Index;
    }

    fn rise(&mut self, slots: &mut [Slot], mut at: usize) {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            self.heap.swap(at, (at - 1) / 2);
            self.place(slots, at);
            at = (at - 1) / 2;
        }
        self.place(slots, at);
    }

    fn sink(&mut self, slots: &mut [Slot], mut at: usize) -> usize {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let Some(entry) = self.heap.get(left) else { break };
            let least = match self.heap.get(right) {
                Some(other) if other < entry => right,
                _ => left,
            };
            if self.heap[at] <= self.heap[least] {
                break;
            }
            self.heap.swap(at, least);
            self.place(slots, at);
            at = least;
        }
        self.place(slots, at);
        at
    }
}
