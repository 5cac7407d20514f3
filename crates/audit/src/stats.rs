//! What a trail says of host functions, in numbers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::code::as_ns;
use crate::event::{Event, Outcome, Verdict};
use crate::record::Record;

/// How many functions are told apart, and how many calls in flight: a log may be made
/// up to have any number.
const MOST: usize = 1 << 16;

/// Buckets of durations in each power of two: none is wider than 1/16 of its time.
const STEPS: u64 = 16;

/// Host calls, counted by function.
///
/// ```
/// use cellule_audit::{Audit, Digest, Event, MemorySink, stats::Stats};
/// let (sink, trail) = MemorySink::new(10);
/// Audit::new(Box::new(sink), 1, Digest::default()).record(Event::Dropped)?;
/// let mut stats = Stats::default();
/// trail.records().iter().for_each(|record| stats.add(record));
/// assert_eq!((stats.records(), stats.functions().count()), (1, 0));
/// # Ok::<(), cellule_audit::SinkRefused>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stats {
    records: u64,
    left_out: u64,
    functions: BTreeMap<Arc<str>, Calls>,
    /// Sandbox and request of what was opened and is not closed. A guest may use a
    /// request's id twice: the last counts.
    open: HashMap<(u64, u64), Arc<str>>,
}

/// The calls of one host function.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// How many were allowed.
    pub allowed: u64,
    /// How many were denied.
    pub denied: u64,
    /// How many were allowed, and did not give the guest a value.
    pub failed: u64,
    /// Bytes of arguments of those allowed, as the guest says.
    pub argument_bytes: u64,
    /// Bytes of results.
    pub result_bytes: u64,
    durations: BTreeMap<u64, u64>,
}

impl Stats {
    /// Counts a record.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        match &record.event {
            Event::HostCallOpened { request, function, argument_bytes, verdict, .. } => {
                self.opened((record.sandbox, *request), function, *argument_bytes, *verdict);
            }
            Event::HostCallClosed { request, outcome, took, .. } => {
                self.closed((record.sandbox, *request), *outcome, *took);
            }
            _ => {}
        }
    }

    /// How many records were counted.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many calls were left out, for want of room or of a record of their start.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The functions that were called, by name.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &Calls)> {
        self.functions.iter().map(|(name, calls)| (&**name, calls))
    }

    fn opened(&mut self, key: (u64, u64), function: &Arc<str>, bytes: u64, verdict: Verdict) {
        let is_room = self.functions.len() < MOST || self.functions.contains_key(function);
        if !is_room || (self.open.len() >= MOST && verdict == Verdict::Allow) {
            self.left_out += 1;
            return;
        }
        let calls = self.functions.entry(Arc::clone(function)).or_default();
        match verdict {
            Verdict::Deny(_) => calls.denied += 1,
            Verdict::Allow => {
                calls.allowed += 1;
                calls.argument_bytes = calls.argument_bytes.saturating_add(bytes);
                self.open.insert(key, Arc::clone(function));
            }
        }
    }

    fn closed(&mut self, key: (u64, u64), outcome: Outcome, took: Duration) {
        let Some(calls) = self.open.remove(&key).and_then(|name| self.functions.get_mut(&name))
        else {
            self.left_out += 1;
            return;
        };
        match outcome {
            Outcome::Replied { bytes } => {
                calls.result_bytes = calls.result_bytes.saturating_add(bytes);
            }
            Outcome::Refused(_)
            | Outcome::Panicked
            | Outcome::BadArguments
            | Outcome::Abandoned
            | Outcome::TimedOut => calls.failed += 1,
        }
        *calls.durations.entry(bucket(as_ns(took))).or_default() += 1;
    }
}

impl Calls {
    /// What so many of 100 closed calls did not exceed, to 1/16; `None` without any.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let count: u64 = self.durations.values().sum();
        let rank = (count.checked_sub(1)?).saturating_mul(percent.min(100)) / 100;
        let mut before = 0;
        let found = self.durations.iter().find(|(_, calls)| {
            before += **calls;
            before > rank
        });
        found.map(|(bucket, _)| Duration::from_nanos(*bucket))
    }
}

/// The longest time of the bucket that a time is in.
fn bucket(ns: u64) -> u64 {
    let width = (1_u64 << (u64::BITS - 1 - ns.max(1).leading_zeros())) / STEPS;
    match width {
        0 | 1 => ns,
        width => (ns / width).saturating_mul(width).saturating_add(width - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_sixteenth_wide() {
        for ns in [0, 1, 15, 16, 31, 100, 12_345, 1_000_000_007, u64::MAX] {
            let top = bucket(ns);
            assert!(top >= ns && top - ns <= ns / STEPS, "{ns} -> {top}");
            assert_eq!(bucket(top), top);
        }
    }

    #[test]
    fn percentiles_are_at_their_rank() {
        let mut calls = Calls::default();
        assert_eq!(calls.percentile(50), None);
        (1..=10).for_each(|ns| *calls.durations.entry(ns).or_default() += 1);
        let at = |percent| calls.percentile(percent).map(|time| time.as_nanos());
        assert_eq!([at(0), at(50), at(99), at(100)], [Some(1), Some(5), Some(9), Some(10)]);
    }
}
