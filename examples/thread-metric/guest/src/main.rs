//! The eight tests of the Thread-Metric suite, on the SDK's tasks.
//!
//! Every test is a few tasks that count what they do for as long as they are let.
//! The host starts one, and then asks for its counters, interval after interval:
//! the call that answers is the suite's reporting thread, more urgent than any
//! task of a test.
#![no_std]
#![no_main]

mod counter;
mod interrupts;
mod objects;
mod switches;

use cellule_guest::prelude::*;
use cellule_guest::task::{Builder, JoinHandle, Priority, SpawnError, Task};
use cellule_guest::time::{self, Duration};

use crate::counter::{COUNTERS, FAULTS};

/// Makes the tasks of a test, and returns how many counters they have.
type Test = fn() -> Result<usize, SpawnError>;

/// Makes the tasks of a test, and returns how many counters it has. More urgent
/// than the tasks: none of them runs before the first interval.
#[guest_function(priority = 25)]
fn start(test: &str) -> Result<u32, String> {
    let test: Test = match test {
        "basic" => switches::basic,
        "cooperative" => switches::cooperative,
        "preemptive" => switches::preemptive,
        "interrupt" => interrupts::processing,
        "interrupt-preemption" => interrupts::preemption,
        "message" => objects::message,
        "synchronization" => objects::synchronization,
        "memory" => objects::memory,
        other => return Err(format!("there is no test {other}")),
    };
    let counters = test().map_err(|error| error.to_string())?;
    u32::try_from(counters).map_err(|error| error.to_string())
}

/// Lets the test run for an interval. Returns all counters since the start, and
/// how many operations went wrong.
#[guest_function(priority = 25)]
fn report(interval: Duration) -> Result<(Vec<u64>, u64), String> {
    time::sleep(interval).map_err(|error| error.to_string())?;
    // One after the other, and yet of one moment: nothing else runs before this returns.
    Ok((COUNTERS.iter().map(counter::Counter::value).collect(), FAULTS.value()))
}

/// Makes a task that does the same thing for ever.
fn forever(
    name: &str,
    priority: u8,
    mut body: impl FnMut() + Send + 'static,
) -> Result<Task, SpawnError> {
    let priority = Priority::new(priority).unwrap_or(Priority::LOWEST);
    let task: JoinHandle<()> = Builder::new().name(name).priority(priority).spawn(move || {
        loop {
            body();
        }
    })?;
    Ok(task.task().clone())
}
