//! A bounded queue, without the items: it says which item goes where.
//!
//! The shell has a ring of `capacity` places, and moves items between these and
//! the tasks that wait, whose ids it is told.

use crate::kernel::Kernel;
use crate::slot::{Outcome, TaskId};
use crate::timeout::Patience;
use crate::wait::WaitQueue;

/// How many items there are, where the first is, and who waits.
#[derive(Debug)]
pub struct Queue {
    first: u32,
    len: u32,
    senders: WaitQueue,
    receivers: WaitQueue,
}

/// What is to be done with an item that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It goes into this place.
    Store(u32),
    /// It goes to this task, which waited for it.
    Deliver(TaskId),
    /// There is no room, and no patience.
    Busy,
    /// The running task waits; whoever makes room takes the item from it.
    Waits,
}

/// Where an item that is got comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Get {
    /// From this place; and if there is a second part, that task's item goes
    /// into that place, as the last.
    Take(u32, Option<(TaskId, u32)>),
    /// There is none, and no patience.
    Busy,
    /// The running task waits; whoever puts gives the item to it.
    Waits,
}

impl Queue {
    /// An empty queue.
    pub const fn new() -> Self {
        let (senders, receivers) = (WaitQueue::new(), WaitQueue::new());
        Self { first: 0, len: 0, senders, receivers }
    }

    /// How many items there are.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Finds the place for an item. O(1); O(log w) if somebody waits.
    #[inline]
    pub fn put(&mut self, kernel: &mut Kernel, capacity: u32, patience: Patience) -> Put {
        if let Some(best) = kernel.best_of(&mut self.receivers) {
            if !kernel.is_proxy(best) {
                kernel.wake(best, Outcome::Granted(0));
                return Put::Deliver(kernel.slots[usize::from(best)].id);
            }
            kernel.notify(best);
        }
        if self.len < capacity {
            return Put::Store(self.append(capacity));
        }
        if patience == Patience::None {
            return Put::Busy;
        }
        kernel.wait_for(patience, Some(&mut self.senders), 0);
        Put::Waits
    }

    /// Finds the first item. O(1); O(log w) if somebody waits.
    #[inline]
    pub fn get(&mut self, kernel: &mut Kernel, capacity: u32, patience: Patience) -> Get {
        if self.len == 0 {
            if patience == Patience::None {
                return Get::Busy;
            }
            kernel.wait_for(patience, Some(&mut self.receivers), 0);
            return Get::Waits;
        }
        let first = self.first;
        self.first = if first + 1 == capacity { 0 } else { first + 1 };
        self.len -= 1;
        let Some(best) = kernel.best_of(&mut self.senders) else { return Get::Take(first, None) };
        if kernel.is_proxy(best) {
            kernel.notify(best);
            return Get::Take(first, None);
        }
        kernel.wake(best, Outcome::Granted(0));
        let sender = kernel.slots[usize::from(best)].id;
        Get::Take(first, Some((sender, self.append(capacity))))
    }

    fn append(&mut self, capacity: u32) -> u32 {
        let room = capacity - self.first;
        let place = if self.len < room { self.first + self.len } else { self.len - room };
        self.len += 1;
        place
    }

    /// Those who wait to put, for futures.
    pub fn senders(&mut self) -> &mut WaitQueue {
        &mut self.senders
    }

    /// Those who wait to get, for futures.
    pub fn receivers(&mut self) -> &mut WaitQueue {
        &mut self.receivers
    }

    /// A notified future that waited to get has gone. If the next in line is a
    /// task, it is to be given the item at the place. To be called until it
    /// returns `None`: a sender's item may take that one's place.
    pub fn pass_item_on(&mut self, kernel: &mut Kernel, capacity: u32) -> Option<(TaskId, Get)> {
        if self.len == 0 {
            return None;
        }
        let best = kernel.best_of(&mut self.receivers)?;
        if kernel.is_proxy(best) {
            kernel.notify(best);
            return None;
        }
        kernel.wake(best, Outcome::Granted(0));
        let receiver = kernel.slots[usize::from(best)].id;
        Some((receiver, self.get(kernel, capacity, Patience::None)))
    }

    /// A notified future that waited to put has gone. If the next in line is a
    /// task, its item is to go where the second part says: into a place, or to a
    /// task that waited for it. To be called until it returns `None`: in the
    /// latter case, there still is room.
    pub fn pass_room_on(&mut self, kernel: &mut Kernel, capacity: u32) -> Option<(TaskId, Put)> {
        if self.len == capacity {
            return None;
        }
        let best = kernel.best_of(&mut self.senders)?;
        if kernel.is_proxy(best) {
            kernel.notify(best);
            return None;
        }
        kernel.wake(best, Outcome::Granted(0));
        let sender = kernel.slots[usize::from(best)].id;
        Some((sender, self.put(kernel, capacity, Patience::None)))
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}
