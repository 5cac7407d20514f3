//! What host calls use up: counters of a guest call, buckets of a window of time.
//!
//! Pure state: who asks says what time it is. There is one [`Meter`] for each
//! import and one for all of them together; a call must pass both.

use std::time::Duration;

use cellule_abi::HostError;

use crate::policy::{Bucket, OnDenial, Policy, Recorded, Rules};

/// What the rules of one function, or of all of them, leave over.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Rules,
    calls: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Calls in a guest call, and which one that is.
    counted: (u64, u64),
    in_flight: u32,
    denials: u64,
}

/// What a host call asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) argument_bytes: u64,
    /// Whether it may be in flight.
    pub(crate) deferred: bool,
    /// The number of the guest call in which it is.
    pub(crate) guest_call: u64,
    pub(crate) now: Duration,
}

/// How the calls of one function are treated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    pub(crate) deadline: Option<Duration>,
    pub(crate) on_denial: OnDenial,
    pub(crate) record_arguments: Recorded,
    pub(crate) record_results: Recorded,
}

type Check = fn(&mut Meter, &Ask) -> bool;

/// What a call must pass, in this order: what can never be comes first.
const CHECKS: [(Check, HostError); 5] = [
    (Meter::fits, HostError::ArgumentsTooLarge),
    (Meter::has_place, HostError::OverBudget),
    (Meter::has_calls, HostError::OverBudget),
    (Meter::has_calls_now, HostError::OverBudget),
    (Meter::has_bytes_now, HostError::OverBudget),
];

/// Judges a call: each check is asked of the function first, then of all. What is
/// refused uses up nothing.
pub(crate) fn judge([own, all]: [&mut Meter; 2], ask: &Ask) -> Result<(), HostError> {
    let failed = CHECKS.iter().find(|(check, _)| !(check(own, ask) && check(all, ask)));
    failed.map_or(Ok(()), |(_, code)| Err(*code))
}

/// Takes a result's bytes out of both windows, or out of none.
pub(crate) fn judge_result(
    [own, all]: [&mut Meter; 2],
    bytes: u64,
    now: Duration,
) -> Result<(), HostError> {
    if [&own, &all].iter().any(|meter| meter.limits.result_bytes.is_some_and(|most| bytes > most)) {
        return Err(HostError::ResultTooLarge);
    }
    let now_ns = nanoseconds(now);
    let both = [&mut own.bytes, &mut all.bytes];
    if !both.into_iter().flatten().all(|bucket| bucket.holds(bytes, now_ns)) {
        return Err(HostError::OverBudget);
    }
    own.take_bytes(bytes, now_ns);
    all.take_bytes(bytes, now_ns);
    Ok(())
}

impl Meter {
    /// A meter at the sandbox's beginning.
    pub(crate) fn new(limits: Rules) -> Self {
        Self {
            limits,
            calls: limits.calls.map(|rate| Bucket::full(rate, 0)),
            bytes: limits.bytes.map(|rate| Bucket::full(rate, 0)),
            counted: (0, 0),
            in_flight: 0,
            denials: 0,
        }
    }

    /// Lowers the limits of arguments and results.
    pub(crate) fn limit_messages(&mut self, most: u64) {
        for bytes in [&mut self.limits.argument_bytes, &mut self.limits.result_bytes] {
            *bytes = Some(bytes.unwrap_or(most).min(most));
        }
    }

    /// Sets how much may be in flight.
    pub(crate) fn set_in_flight(&mut self, most: u32) {
        self.limits.in_flight = Some(most);
    }

    /// A call begins that was judged with this.
    pub(crate) fn begin(&mut self, ask: &Ask) {
        let now_ns = nanoseconds(ask.now);
        self.counted = (ask.guest_call, self.calls_in(ask.guest_call).saturating_add(1));
        if let Some(calls) = &mut self.calls {
            calls.take(1, now_ns);
        }
        self.take_bytes(ask.argument_bytes, now_ns);
    }

    /// A deferred call is in flight.
    pub(crate) fn depart(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// A deferred call is over.
    pub(crate) fn land(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Counts a denial; returns how many there were if that calls for an alarm.
    pub(crate) fn deny(&mut self) -> Option<u64> {
        self.denials = self.denials.saturating_add(1);
        let every = self.limits.alarm_after.filter(|every| *every > 0)?;
        self.denials.is_multiple_of(every).then_some(self.denials)
    }

    fn fits(&mut self, ask: &Ask) -> bool {
        self.limits.argument_bytes.is_none_or(|most| ask.argument_bytes <= most)
    }

    fn has_place(&mut self, ask: &Ask) -> bool {
        !ask.deferred || self.limits.in_flight.is_none_or(|most| self.in_flight < most)
    }

    fn has_calls(&mut self, ask: &Ask) -> bool {
        let most = self.limits.calls_per_guest_call;
        most.is_none_or(|most| self.calls_in(ask.guest_call) < most)
    }

    fn has_calls_now(&mut self, ask: &Ask) -> bool {
        self.calls.as_mut().is_none_or(|calls| calls.holds(1, nanoseconds(ask.now)))
    }

    fn has_bytes_now(&mut self, ask: &Ask) -> bool {
        let now_ns = nanoseconds(ask.now);
        self.bytes.as_mut().is_none_or(|bytes| bytes.holds(ask.argument_bytes, now_ns))
    }

    fn calls_in(&self, guest_call: u64) -> u64 {
        let (counted_in, calls) = self.counted;
        if counted_in == guest_call { calls } else { 0 }
    }

    fn take_bytes(&mut self, bytes: u64, now_ns: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now_ns);
        }
    }
}

impl Terms {
    /// The terms of a function: its own word, or else that of all.
    pub(crate) fn of(policy: &Policy, function: &str) -> Self {
        let all = policy.all();
        let own = policy.rules(function).copied().unwrap_or_default();
        Self {
            deadline: own.deadline.or(all.deadline),
            on_denial: own.on_denial.or(all.on_denial).unwrap_or_default(),
            record_arguments: own.record_arguments.or(all.record_arguments).unwrap_or_default(),
            record_results: own.record_results.or(all.record_results).unwrap_or_default(),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
