//! Arithmetic without the scheduler, and the scheduler without objects.

use core::sync::atomic::{AtomicU64, Ordering};

use cellule_guest::task::{self, SpawnError, Task};

use crate::counter::COUNTERS;
use crate::forever;

/// The priority of a test's only task, or of its least urgent.
const PRIORITY: u8 = 10;

/// Basic processing: a pass over 1024 words, in which nothing of the kernel takes
/// part. What all other scores are compared with.
pub(crate) fn basic() -> Result<usize, SpawnError> {
    // Atomics, so that each word is read and written for itself, as the volatile
    // words of a C program are, and not many with one vector instruction.
    static WORDS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
    let [passes, ..] = &COUNTERS;
    forever("basic", PRIORITY, || {
        let pass = passes.value();
        for word in &WORDS {
            let before = word.load(Ordering::Relaxed);
            word.store(before.wrapping_add(pass) ^ before, Ordering::Relaxed);
        }
        passes.count();
    })?;
    Ok(1)
}

/// Cooperative scheduling: five tasks of one priority, each of which counts and
/// lets the next one run.
pub(crate) fn cooperative() -> Result<usize, SpawnError> {
    for (place, counter) in COUNTERS.iter().enumerate() {
        forever(["a", "b", "c", "d", "e"][place], PRIORITY, || {
            counter.count();
            task::yield_now();
        })?;
    }
    Ok(COUNTERS.len())
}

/// Preemptive scheduling: five tasks, all but the least urgent suspended. Each
/// resumes the next more urgent one, which preempts it; then it counts and
/// suspends itself.
pub(crate) fn preemptive() -> Result<usize, SpawnError> {
    let mut above: Option<Task> = None;
    // From the most urgent task down: each has to know the one above it.
    for (place, counter) in COUNTERS.iter().enumerate().rev() {
        let next = above.take();
        let mut this = None;
        let priority = PRIORITY + u8::try_from(place).unwrap_or(0);
        let task = forever(["a", "b", "c", "d", "e"][place], priority, move || {
            if let Some(next) = &next {
                next.resume();
            }
            counter.count();
            if place > 0 {
                this.get_or_insert_with(task::current).suspend();
            }
        })?;
        if place > 0 {
            task.suspend();
        }
        above = Some(task);
    }
    Ok(COUNTERS.len())
}
