//! A control loop, and a logger that must not disturb it.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use cellule_guest::prelude::*;
use cellule_guest::sync::{Queue, Timeout};
use cellule_guest::task::{Builder, Priority};
use cellule_guest::time::{self, Duration};
use cellule_guest::timer::{Action, Watchdog};

/// Writes a line to the host's log. The host takes its time.
#[host_function]
fn write_log(line: &str) -> Result<(), HostError>;

/// Periods to be logged; zero says that no more comes. The loop never waits for room.
static REPORTS: Queue<u32, 64> = Queue::new();
/// How often the loop did not finish a period for too long.
static STALLS: AtomicU32 = AtomicU32::new(0);
/// Expects the loop to finish a period every 10 ms at least.
static WATCHDOG: Watchdog = Watchdog::new(Duration::from_millis(10), Action::Call(bite));

fn bite() {
    STALLS.fetch_add(1, Ordering::Relaxed);
}

/// Runs the loop and the logger. Returns how late each period began, how many
/// ended after their deadline, how often the watchdog bit, and how many lines
/// were written.
#[guest_function]
fn run(
    period: Duration,
    periods: u32,
    deadline: Duration,
) -> Result<(Vec<Duration>, u32, u32, u32), String> {
    let urgent = Priority::new(20).map_err(|error| error.to_string())?;
    let logger = Builder::new().name("logger").spawn(log).map_err(|error| error.to_string())?;
    let control = Builder::new().name("control").priority(urgent);
    let control = control.spawn(move || control_loop(period, periods, deadline));
    let ended = control.map_err(|error| error.to_string())?.join();
    let (lateness, missed) = ended.map_err(|error| error.to_string())?;
    REPORTS.send(0, Timeout::Forever).map_err(|error| error.to_string())?;
    let written = logger.join().map_err(|error| error.to_string())?;
    Ok((lateness, missed, STALLS.load(Ordering::Relaxed), written))
}

fn control_loop(period: Duration, periods: u32, deadline: Duration) -> (Vec<Duration>, u32) {
    let (mut lateness, mut missed) = (Vec::with_capacity(periods as usize), 0);
    // Each period begins where the last one should have: nothing adds up.
    let mut begin = time::now();
    for number in 1..=periods {
        begin = begin + period;
        let _ = time::sleep_until(begin);
        lateness.push(time::now().saturating_since(begin));
        time::work(Duration::from_micros(50)); // read a sensor, move an actuator
        missed += u32::from(time::now() > begin + deadline);
        if !WATCHDOG.feed() {
            // It does not watch yet, or has bitten.
            let _ = WATCHDOG.start();
        }
        if number % 50 == 0 {
            let _ = REPORTS.try_send(number);
        }
    }
    WATCHDOG.stop();
    (lateness, missed)
}

/// Waits for something to log, and then for the host: the loop goes on meanwhile.
fn log() -> u32 {
    let mut written = 0;
    while let Ok(number @ 1..) = REPORTS.receive(Timeout::Forever) {
        written += u32::from(write_log(&format!("{number} periods")).is_ok());
    }
    written
}
