//! The eight tests of the Thread-Metric suite, each in a sandbox of its own.
//!
//! Thread-Metric is the benchmark of real-time kernels that Express Logic made
//! and Eclipse ThreadX maintains. This is none of its code: the tests were written
//! anew, for Cellule's tasks, from the public description of what each does. A
//! score is how often a test did what it does in an interval; it may be compared
//! with the scores of another kernel on the same processor, and with the test
//! `basic`, which is the processor alone. `guest/src/interrupts.rs` says in what
//! the interrupts of two of the tests differ from those of hardware.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use cellule::{Backend, Image, LoadError, Sandbox};

/// The guest in `guest/`, as this package's build script compiled it.
const GUEST: &[u8] = include_bytes!(env!("CELLULE_GUEST_THREAD_METRIC_GUEST"));

/// A test of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// What the guest and the command line call it.
    pub name: &'static str,
    /// What the suite calls it.
    pub title: &'static str,
    score: Score,
}

/// Which counters are a test's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Score {
    /// All tasks' together.
    Sum,
    /// The interrupt handler's, which is the last one.
    Last,
}

/// The suite, in its order.
pub const TESTS: [Test; 8] = [
    Test::new("basic", "Basic Processing", Score::Sum),
    Test::new("cooperative", "Cooperative Scheduling", Score::Sum),
    Test::new("preemptive", "Preemptive Scheduling", Score::Sum),
    Test::new("interrupt", "Interrupt Processing", Score::Last),
    Test::new("interrupt-preemption", "Interrupt Preemption Processing", Score::Last),
    Test::new("message", "Message Processing", Score::Sum),
    Test::new("synchronization", "Synchronization Processing", Score::Sum),
    Test::new("memory", "Memory Allocation Processing", Score::Sum),
];

/// What a test did in an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The time-period total: how often the test did what it does.
    pub total: u64,
    /// What the self-checks found, one sentence each.
    pub errors: Vec<String>,
    /// How often the guest was left for the host.
    pub exits: u64,
}

/// Loads the guest.
///
/// # Errors
///
/// None that a user could mend: it was compiled with this program.
pub fn image() -> Result<Image, LoadError> {
    Image::from_bytes(GUEST)
}

/// A test that was started. It runs in [`Running::interval`] only, and stands
/// still in between.
#[derive(Debug)]
pub struct Running {
    test: Test,
    sandbox: Sandbox,
    /// How many counters the test uses.
    counters: usize,
    /// The score and the faults at the end of the last interval.
    before: (u64, u64),
}

impl Running {
    /// Starts a test in a new sandbox.
    ///
    /// # Errors
    ///
    /// What may go wrong with a sandbox; or the guest does not know the test.
    pub fn start(image: &Image, test: Test) -> Result<Self, Box<dyn Error>> {
        let mut sandbox = Sandbox::builder(image).backend(Backend::for_development()).build()?;
        let counters: Result<u32, String> = sandbox.call("start", (test.name,))?;
        let counters = usize::try_from(counters?)?;
        Ok(Self { test, sandbox, counters, before: (0, 0) })
    }

    /// Lets the test run for an interval, in real time.
    ///
    /// # Errors
    ///
    /// What may go wrong with a sandbox. What the self-checks find is in the report.
    pub fn interval(&mut self, interval: Duration) -> Result<Report, Box<dyn Error>> {
        let exits = self.sandbox.stats().exits;
        let outcome: Result<(Vec<u64>, u64), String> = self.sandbox.call("report", (interval,))?;
        let (counters, faults) = outcome?;
        let counters = counters.get(..self.counters).unwrap_or(&counters);
        let score = self.test.score.of(counters);
        let (score_before, faults_before) = std::mem::replace(&mut self.before, (score, faults));
        let (total, faults) = (score - score_before, faults - faults_before);
        let errors = self_check(counters, total, faults);
        Ok(Report { total, errors, exits: self.sandbox.stats().exits - exits })
    }
}

impl Test {
    const fn new(name: &'static str, title: &'static str, score: Score) -> Self {
        Self { name, title, score }
    }

    /// The test of this name.
    pub fn named(name: &str) -> Option<Self> {
        TESTS.into_iter().find(|test| test.name == name)
    }
}

impl Score {
    fn of(self, counters: &[u64]) -> u64 {
        match self {
            Self::Sum => counters.iter().sum(),
            Self::Last => counters.last().copied().unwrap_or(0),
        }
    }
}

/// What is wrong: the test got nowhere in the interval, an operation failed, or
/// some task or handler had more turns than another. The one that was stopped for
/// the report may have had one turn more or less.
fn self_check(counters: &[u64], total: u64, faults: u64) -> Vec<String> {
    let mut errors = Vec::new();
    if total == 0 {
        errors.push("the counters did not change".to_owned());
    }
    if faults > 0 {
        errors.push(format!("{faults} operations failed"));
    }
    let (least, most) = (counters.iter().min(), counters.iter().max());
    if most.zip(least).is_some_and(|(most, least)| most - least > 1) {
        errors.push(format!("the counters should not differ by more than 1: {counters:?}"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_may_differ_by_one_and_no_more() {
        assert!(self_check(&[8, 8, 7], 23, 0).is_empty());
        let errors = self_check(&[9, 8, 7], 24, 0);
        assert_eq!(errors, ["the counters should not differ by more than 1: [9, 8, 7]"]);
    }

    #[test]
    fn a_test_that_gets_nowhere_and_one_that_fails_are_found() {
        assert_eq!(self_check(&[7], 0, 0), ["the counters did not change"]);
        assert_eq!(self_check(&[7], 7, 3), ["3 operations failed"]);
    }

    #[test]
    fn the_score_of_interrupts_is_the_handlers_and_else_the_sum() {
        assert_eq!(Score::Sum.of(&[1, 2, 3]), 6);
        assert_eq!(Score::Last.of(&[1, 2, 3]), 3);
    }
}
