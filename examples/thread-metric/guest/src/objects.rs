//! One task, and an object that it uses without ever having to wait.

use core::mem::MaybeUninit;

use cellule_guest::sync::{Pool, Queue, Semaphore, Timeout};
use cellule_guest::task::SpawnError;

use crate::counter::{COUNTERS, FAULTS};
use crate::forever;

/// The priority of the task.
const PRIORITY: u8 = 10;

/// Message processing: a message of 16 bytes goes into a queue and comes out again.
pub(crate) fn message() -> Result<usize, SpawnError> {
    static QUEUE: Queue<[u32; 4], 10> = Queue::new();
    let mut message = [0_u32, 1, 2, 3];
    let [messages, ..] = &COUNTERS;
    forever("message", PRIORITY, move || {
        message = message.map(|word| word.wrapping_add(1));
        let sent = QUEUE.try_send(message).is_ok();
        if !sent || QUEUE.try_receive() != Ok(message) {
            FAULTS.count();
        }
        messages.count();
    })?;
    Ok(1)
}

/// Synchronization processing: the only unit of a semaphore is taken and given back.
pub(crate) fn synchronization() -> Result<usize, SpawnError> {
    static SEMAPHORE: Semaphore = Semaphore::new(1, 1);
    let [pairs, ..] = &COUNTERS;
    forever("synchronization", PRIORITY, || {
        let taken = SEMAPHORE.try_take().is_ok();
        if !taken || SEMAPHORE.give().is_err() {
            FAULTS.count();
        }
        pairs.count();
    })?;
    Ok(1)
}

/// Memory allocation processing: a block of 128 bytes is taken from a pool and
/// given back.
pub(crate) fn memory() -> Result<usize, SpawnError> {
    /// A block whose bytes nobody writes: the suite measures the allocation.
    type Block = MaybeUninit<[u8; 128]>;
    static POOL: Pool<Block, 16> = Pool::new();
    let [blocks, ..] = &COUNTERS;
    forever("memory", PRIORITY, || {
        match POOL.allocate(Block::uninit(), Timeout::Now) {
            Ok(block) => drop(block),
            Err(_) => FAULTS.count(),
        }
        blocks.count();
    })?;
    Ok(1)
}
