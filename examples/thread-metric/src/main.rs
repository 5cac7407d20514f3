//! Runs the Thread-Metric suite in sandboxes and prints its scores.
//!
//! `cargo run --release -p thread-metric -- --interval 1`
//!
//! * `--interval SECONDS`: how long a report's interval is; 30 unless said
//!   otherwise, and fractions are fine.
//! * `--intervals N`: how many reports each test makes; one unless said otherwise.
//! * `--test NAME`: runs one test, and not all eight.
//!
//! Each interval's lines are the suite's: the relative time and the time-period
//! total. A self-check that fails is a line that begins with `ERROR`, and makes
//! the exit status 1. That of a command line that makes no sense is 2.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use cellule::Image;
use thread_metric::{Running, TESTS, Test, image};

/// What is to be run.
struct Order {
    interval: Duration,
    intervals: u32,
    tests: Vec<Test>,
}

/// What came of a test: a line of the table.
struct Line {
    test: Test,
    total: u64,
    exits: u64,
    errors: usize,
}

fn main() -> ExitCode {
    let order = match Order::parse(std::env::args().skip(1)) {
        Ok(order) => order,
        Err(wrong) => {
            eprintln!("thread-metric: {wrong}");
            return ExitCode::from(2);
        }
    };
    match suite(&order) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("thread-metric: {errors} self-checks failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("thread-metric: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Order {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut order =
            Self { interval: Duration::from_secs(30), intervals: 1, tests: TESTS.to_vec() };
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--interval" => order.interval = interval(&value)?,
                "--intervals" => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    order.intervals =
                        count.ok_or_else(|| format!("{value} is no number of them"))?;
                }
                "--test" => order.tests = vec![Test::named(&value).ok_or_else(|| unknown(&value))?],
                _ => return Err(format!("there is no option {option}")),
            }
        }
        Ok(order)
    }
}

fn interval(value: &str) -> Result<Duration, String> {
    let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero()).ok_or_else(|| format!("{value} is no interval"))
}

fn unknown(name: &str) -> String {
    format!("there is no test {name}: there are {}", TESTS.map(|test| test.name).join(", "))
}

/// Runs what was ordered; returns how many self-checks failed.
fn suite(order: &Order) -> Result<usize, Box<dyn Error>> {
    let image = image()?;
    let run = |test: &Test| run(&image, *test, order);
    let lines = order.tests.iter().map(run).collect::<Result<Vec<_>, _>>()?;
    print_table(&lines, order.interval * order.intervals);
    Ok(lines.iter().map(|line| line.errors).sum())
}

/// Runs one test and prints each interval's report.
fn run(image: &Image, test: Test, order: &Order) -> Result<Line, Box<dyn Error>> {
    let mut running = Running::start(image, test)?;
    let mut line = Line { test, total: 0, exits: 0, errors: 0 };
    for number in 1..=order.intervals {
        let report = running.interval(order.interval)?;
        let time = (order.interval * number).as_secs_f64();
        println!("Thread-Metric {}    Relative Time: {time}", test.title);
        for error in &report.errors {
            println!("ERROR: {}: {error}", test.name);
        }
        println!("Time Period Total: {}", report.total);
        let million = per_million(report.exits, report.total);
        println!("VM exits: {}, {million:.3} per million\n", report.exits);
        line.total += report.total;
        line.exits += report.exits;
        line.errors += report.errors.len();
    }
    Ok(line)
}

fn print_table(lines: &[Line], time: Duration) {
    let seconds = time.as_secs_f64();
    println!(
        "{:<32}{:>14}{:>14}{:>10}{:>14}  checks",
        "", "total", "per second", "ns each", "exits/million"
    );
    for Line { test, total, exits, errors } in lines {
        let per_second = *total as f64 / seconds;
        let each = 1e9 / per_second;
        let million = per_million(*exits, *total);
        let checks = if *errors == 0 { "ok" } else { "ERROR" };
        println!(
            "{:<32}{total:>14}{per_second:>14.0}{each:>10.1}{million:>14.3}  {checks}",
            test.title
        );
    }
}

fn per_million(exits: u64, total: u64) -> f64 {
    exits as f64 * 1e6 / total as f64
}
