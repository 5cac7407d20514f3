//! What the services of the kernel cost, in cycles of the time-stamp counter.

#![no_std]
#![no_main]

use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicBool, Ordering};

use cellule_guest::prelude::*;
use cellule_guest::sync::{Mutex, Semaphore, Timeout};
use cellule_guest::task::{self, Builder, Priority};

/// Repetitions within one sample.
const BATCH: u64 = 16;

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has both.
    unsafe {
        _mm_lfence();
        let now = _rdtsc();
        _mm_lfence();
        now
    }
}

/// Measures `operation`, `BATCH` times a sample; cycles for each, in sixteenths.
fn sample(samples: u32, mut operation: impl FnMut()) -> Vec<u32> {
    (0..BATCH).for_each(|_| operation());
    let mut cycles = Vec::with_capacity(samples as usize);
    for _ in 0..samples {
        let start = counter();
        for _ in 0..BATCH {
            operation();
        }
        cycles.push((counter() - start) as u32);
    }
    cycles
}

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap_or(Priority::LOWEST)
}

static STOP: AtomicBool = AtomicBool::new(false);

/// What an empty measurement shows.
#[guest_function]
fn nothing(samples: u32) -> Vec<u32> {
    sample(samples, || ())
}

/// Two tasks of the same priority yield to each other: two switches each.
#[guest_function]
fn two_switches(samples: u32) -> Vec<u32> {
    STOP.store(false, Ordering::Relaxed);
    let other = task::spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            task::yield_now();
        }
    });
    let cycles = sample(samples, task::yield_now);
    STOP.store(true, Ordering::Relaxed);
    other.unwrap().join().unwrap();
    cycles
}

/// Gives and takes a unit that nobody waits for.
#[guest_function]
fn give_and_take(samples: u32) -> Vec<u32> {
    static UNIT: Semaphore = Semaphore::new(0, 10);
    sample(samples, || {
        let _ = UNIT.give();
        let _ = UNIT.take(Timeout::Forever);
    })
}

/// Locks and unlocks a mutex that nobody else wants.
#[guest_function]
fn lock_and_unlock(samples: u32) -> Vec<u32> {
    static VALUE: Mutex<u64> = Mutex::new(0);
    sample(samples, || {
        if let Ok(mut value) = VALUE.lock(Timeout::Forever) {
            *value += 1;
        }
    })
}

/// Gives to a more urgent task that waits, which runs and waits again.
#[guest_function]
fn hand_over(samples: u32) -> Vec<u32> {
    static UNIT: Semaphore = Semaphore::new(0, 10);
    STOP.store(false, Ordering::Relaxed);
    let urgent = Builder::new().priority(priority(20)).spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            let _ = UNIT.take(Timeout::Forever);
        }
    });
    let cycles = sample(samples, || {
        let _ = UNIT.give();
    });
    STOP.store(true, Ordering::Relaxed);
    let _ = UNIT.give();
    urgent.unwrap().join().unwrap();
    cycles
}

/// Keeps the linker from dropping what a guest may want to know.
#[guest_function]
fn processor() -> u32 {
    // SAFETY: every x86-64 processor has it.
    __cpuid(1).eax
}
