//! Tasks and the host: calls in flight, work in the background, clocks.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use cellule_guest::prelude::*;
use cellule_guest::task::{self, Builder, Priority};
use cellule_guest::time::{self, Duration};

/// Answered by the host when it likes.
#[host_function]
fn later(number: u32) -> Result<u32, HostError>;

/// Answered at once.
#[host_function]
fn now(number: u32) -> Result<u32, HostError>;

static TICKS: AtomicU64 = AtomicU64::new(0);

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap_or(Priority::LOWEST)
}

/// As many tasks as numbers call the host at once; returns what each was told.
#[guest_function]
fn ask_for_all(numbers: Vec<u32>, at_once: bool) -> Vec<Result<u32, String>> {
    let ask = |number| {
        move || {
            let answer = if at_once { now(number) } else { later(number) };
            answer.map_err(|error| error.to_string())
        }
    };
    let tasks: Vec<_> = numbers.into_iter().map(|n| task::spawn(ask(n)).unwrap()).collect();
    tasks.into_iter().map(|task| task.join().unwrap()).collect()
}

/// Counts, while this task waits for the host.
#[guest_function]
fn count_while_waiting(number: u32) -> (u32, u64) {
    TICKS.store(0, Ordering::Relaxed);
    let counter = Builder::new().priority(priority(2)).spawn(|| {
        loop {
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    let answer = later(number).unwrap_or(0);
    let counted = TICKS.load(Ordering::Relaxed);
    counter.unwrap().task().kill();
    (answer, counted)
}

/// A task that is killed while the host has its call, and calls after it.
#[guest_function]
fn kill_one_that_waits(number: u32) -> Vec<u32> {
    let victim = task::spawn(move || later(number)).unwrap();
    task::yield_now();
    victim.task().kill();
    (1..=3).map(|n| later(n).unwrap_or(0)).collect()
}

/// Tasks that are killed when the host has answered them and they have not run
/// yet: more than the ring has entries. Then one call that should be answered.
#[guest_function]
fn kill_those_that_were_answered(count: u32) -> u32 {
    for number in 0..count {
        let victim = Builder::new().priority(priority(2)).spawn(move || later(number)).unwrap();
        time::sleep(Duration::from_micros(300)).unwrap();
        time::work(Duration::from_millis(12));
        victim.task().kill();
    }
    later(7).unwrap_or(0)
}

/// Starts a task that counts a tick each `period_ns`, for ever.
#[guest_function]
fn start_ticking(period_ns: u64) {
    TICKS.store(0, Ordering::Relaxed);
    let ticking = Builder::new().priority(priority(20)).name("ticking").spawn(move || {
        let mut due = time::now();
        loop {
            due = due + Duration::from_nanos(period_ns);
            if time::sleep_until(due).is_err() {
                break;
            }
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    ticking.unwrap();
}

/// Starts a task that never waits.
#[guest_function(priority = 31)]
fn start_spinning(of_priority: u8) {
    let spinning = Builder::new().priority(priority(of_priority)).name("spinning");
    let spinning = spinning.spawn(|| {
        loop {
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
    spinning.unwrap();
}

/// How often it ticked.
#[guest_function(priority = 30)]
fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// As `ticks`, less urgent than what spins.
#[guest_function(priority = 1)]
fn ticks_patiently() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// The guest's clocks: monotonic and wall, in nanoseconds.
#[guest_function]
fn clocks() -> (u64, u64) {
    let wall = u64::try_from(time::wall().as_nanos()).unwrap_or(0);
    (time::now().as_nanos(), wall)
}

/// Waits for what never comes.
#[guest_function]
fn wait_for_ever() {
    use cellule_guest::sync::{Semaphore, Timeout};
    static NEVER: Semaphore = Semaphore::new(0, 1);
    let _ = NEVER.take(Timeout::Forever);
}

/// Kills the task that serves this very call.
#[guest_function]
fn kill_myself() {
    task::current().kill();
}
