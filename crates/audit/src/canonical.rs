//! The one form of a record in bytes, which the chain digests.
//!
//! `AUDIT.md`, "Canonical bytes", is the specification. Numbers are little-endian;
//! texts and byte strings have their length, a u64, in front.

use std::time::Duration;

use crate::code::as_ns;
use crate::event::{Event, Kept, Outcome, Stop, TaskFault, Verdict};
use crate::record::Record;

/// The version of the form: its first byte.
pub const VERSION: u8 = 1;

/// Appends the canonical form of a record, all but its link.
///
/// No two records that differ have the same form.
pub fn canonical(record: &Record, to: &mut Vec<u8>) {
    let Record { sequence, sandbox, generation, at, wall_ns, event, link: _ } = record;
    to.push(VERSION);
    for number in [*sequence, *sandbox, *generation, as_ns(*at), *wall_ns] {
        put(to, number);
    }
    put_event(to, event);
}

fn put_event(to: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Created { backend } => put_text(kind(to, 1), backend),
        Event::CallBegan { call, function } => {
            put(kind(to, 2), *call);
            put_text(to, function);
        }
        Event::CallReturned { call, result_bytes } => {
            put(kind(to, 3), *call);
            put(to, *result_bytes);
        }
        Event::CallFailed { call, reason } => {
            put(kind(to, 4), *call);
            put_text(to, reason);
        }
        Event::RunBegan { limit } => put_option(kind(to, 5), limit.map(as_ns)),
        Event::RunEnded { stop: Stop::Idle } => kind(to, 6).push(1),
        Event::RunEnded { stop: Stop::TimeOver } => kind(to, 6).push(2),
        Event::RunFailed { reason } => put_text(kind(to, 7), reason),
        Event::Interrupted { started } => kind(to, 8).push(u8::from(*started)),
        Event::TaskFaulted { task, fault } => {
            kind(to, 9).extend(task.to_le_bytes());
            put_fault(to, fault);
        }
        Event::HostCallOpened { request, task, function, argument_bytes, arguments, verdict } => {
            put(kind(to, 10), *request);
            to.extend(task.to_le_bytes());
            put_text(to, function);
            put(to, *argument_bytes);
            put_kept(to, arguments);
            put_verdict(to, *verdict);
        }
        Event::HostCallClosed { request, outcome, result, took } => {
            put(kind(to, 11), *request);
            put_outcome(to, *outcome);
            put_kept(to, result);
            put_time(to, *took);
        }
        Event::Poisoned { cause } => put_text(kind(to, 12), cause),
        Event::Dropped => {
            kind(to, 13);
        }
        Event::Alarm { function, denials } => {
            put_text(kind(to, 14), function);
            put(to, *denials);
        }
    }
}

fn kind(to: &mut Vec<u8>, kind: u8) -> &mut Vec<u8> {
    to.push(kind);
    to
}

fn put(to: &mut Vec<u8>, number: u64) {
    to.extend(number.to_le_bytes());
}

fn put_time(to: &mut Vec<u8>, time: Duration) {
    put(to, as_ns(time));
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len() as u64);
    to.extend(bytes);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put_bytes(to, text.as_bytes());
}

fn put_option(to: &mut Vec<u8>, number: Option<u64>) {
    to.push(u8::from(number.is_some()));
    number.into_iter().for_each(|number| put(to, number));
}

fn put_fault(to: &mut Vec<u8>, fault: &TaskFault) {
    let TaskFault { vector, error_code, rip, address } = fault;
    to.push(*vector);
    to.extend(error_code.to_le_bytes());
    put(to, *rip);
    put_option(to, *address);
}

fn put_verdict(to: &mut Vec<u8>, verdict: Verdict) {
    // 0 is the code of success.
    let code = match verdict {
        Verdict::Allow => 0,
        Verdict::Deny(code) => code.code(),
    };
    to.extend(code.to_le_bytes());
}

fn put_outcome(to: &mut Vec<u8>, outcome: Outcome) {
    match outcome {
        Outcome::Replied { bytes } => put(kind(to, 1), bytes),
        Outcome::Refused(code) => kind(to, 2).extend(code.code().to_le_bytes()),
        Outcome::Panicked => to.push(3),
        Outcome::BadArguments => to.push(4),
        Outcome::Abandoned => to.push(5),
        Outcome::TimedOut => to.push(6),
    }
}

fn put_kept(to: &mut Vec<u8>, kept: &Kept) {
    match kept {
        Kept::Nothing => to.push(0),
        Kept::Digest(digest) => kind(to, 1).extend(digest.0),
        Kept::Bytes { bytes, cut } => {
            kind(to, 2).push(u8::from(*cut));
            put_bytes(to, bytes);
        }
    }
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
