//! What the services of the kernel cost, in cycles of the time-stamp counter.

#![no_std]
#![no_main]

use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicBool, Ordering};

use cellule_guest::message::Port;
use cellule_guest::prelude::*;
use cellule_guest::sync::{Mutex, Queue, Semaphore, Timeout};
use cellule_guest::task::{self, Builder, Priority};
use cellule_guest::time::{self, Duration};

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

/// Sends and receives an item of 16 bytes, which nobody waits for.
#[guest_function]
fn send_and_receive(samples: u32) -> Vec<u32> {
    static ITEMS: Queue<(u64, u64), 8> = Queue::new();
    sample(samples, || {
        let _ = ITEMS.send((1, 2), Timeout::Forever);
        let _ = core::hint::black_box(ITEMS.receive(Timeout::Forever));
    })
}

/// Sends a message to another task, which receives it and replies.
#[guest_function]
fn message_round_trip(samples: u32) -> Vec<u32> {
    static PORT: Port<u64, u64> = Port::new();
    STOP.store(false, Ordering::Relaxed);
    let server = Builder::new().priority(priority(20)).spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            if let Ok((message, reply)) = PORT.receive(Timeout::Forever) {
                let _ = reply.reply(message + 1);
            }
        }
    });
    let cycles = sample(samples, || {
        let _ = core::hint::black_box(PORT.send(1, Timeout::Forever));
    });
    STOP.store(true, Ordering::Relaxed);
    let _ = PORT.send(1, Timeout::Forever);
    server.unwrap().join().unwrap();
    cycles
}

/// The time-stamp counter.
#[guest_function]
fn counter_now() -> u64 {
    counter()
}

/// How long after its time a more urgent task runs, in nanoseconds, while this
/// one spins.
#[guest_function]
fn lateness_while_busy(samples: u32, sleep_ns: u64) -> Vec<u32> {
    STOP.store(false, Ordering::Relaxed);
    let urgent = Builder::new().priority(priority(20)).spawn(move || {
        let mut late = Vec::with_capacity(samples as usize);
        for _ in 0..samples {
            let due = time::now() + Duration::from_nanos(sleep_ns);
            if time::sleep_until(due).is_ok() {
                late.push(time::now().saturating_since(due).as_nanos() as u32);
            }
        }
        STOP.store(true, Ordering::Relaxed);
        late
    });
    while !STOP.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    urgent.unwrap().join().unwrap()
}
