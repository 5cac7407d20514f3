//! All eight tests, for a very short time: what they count and not how fast.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::process::{Command, Output};
use std::time::Duration;

use cellule::Backend;
use thread_metric::{Running, TESTS, image};

/// Real time, as a virtual clock stands still while tasks run. Long enough for
/// the guest to get the processor on a busy machine.
const INTERVAL: Duration = Duration::from_millis(200);

/// The guest is left to arm the clock, for the alarm itself, and to return; an
/// alarm that is early is armed again.
const MOST_EXITS: u64 = 10;

/// Whether there is a backend; says on one line which. If there is none, checks
/// that the program says so.
fn there_is_a_backend() -> bool {
    let missing = match Backend::for_development().probe() {
        Ok(backend) => {
            println!("backends: {backend}");
            return true;
        }
        Err(missing) => missing,
    };
    println!("backends: none, so this test checks only that thread-metric says so: {missing}");
    let output = program(&["--interval", "0.01"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("thread-metric: {missing}\n"));
    false
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thread-metric")).args(arguments).output().expect("it runs")
}

#[test]
fn every_test_advances_and_passes_its_self_checks() {
    if !there_is_a_backend() {
        return;
    }
    let image = image().unwrap();
    for test in TESTS {
        let mut running = Running::start(&image, test).unwrap();
        for interval in 1..=2 {
            let report = running.interval(INTERVAL).unwrap();
            assert_eq!(report.errors, [""; 0], "{}, interval {interval}", test.name);
            assert!(report.total > 0, "{} should advance in interval {interval}", test.name);
            assert!(report.exits <= MOST_EXITS, "{}: {report:?}", test.name);
        }
    }
}

#[test]
fn a_report_is_the_relative_time_and_the_total_of_the_period() {
    if !there_is_a_backend() {
        return;
    }
    let output = program(&["--interval", "0.1", "--intervals", "2", "--test", "synchronization"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let title = "Thread-Metric Synchronization Processing    Relative Time: ";
    let times: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(title)).collect();
    assert_eq!(times, ["0.1", "0.2"]);
    assert_eq!(text.matches("Time Period Total: ").count(), 2, "{text}");
    assert!(!text.contains("ERROR"), "{text}");
}

#[test]
fn a_command_line_that_makes_no_sense_is_status_2_and_one_line() {
    for arguments in [
        &["--test", "speed"][..],
        &["--interval", "0"],
        &["--interval", "-1"],
        &["--intervals", "0"],
        &["--interval"],
        &["--fast", "1"],
    ] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
