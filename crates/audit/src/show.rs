//! Records as text for people. Text that a guest may have written is escaped.

use std::fmt;

use crate::event::{Event, Kept, Outcome, Stop, TaskFault, Verdict};
use crate::record::Record;
use crate::text::{Hex, Printable};

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_micros();
        write!(f, "#{} sandbox {} +{micros}us {}", self.sequence, self.sandbox, self.event)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { backend } => write!(f, "created on {}", Printable(backend)),
            Self::CallBegan { call, function } => write!(f, "call {call}: {}", Printable(function)),
            Self::CallReturned { call, result_bytes } => {
                write!(f, "call {call}: returned {result_bytes} bytes")
            }
            Self::CallFailed { call, reason } => {
                write!(f, "call {call}: failed: {}", Printable(reason))
            }
            Self::RunBegan { limit: Some(limit) } => write!(f, "runs for {limit:?}"),
            Self::RunBegan { limit: None } => f.write_str("runs until idle"),
            Self::RunEnded { stop: Stop::Idle } => f.write_str("idle"),
            Self::RunEnded { stop: Stop::TimeOver } => f.write_str("its time is over"),
            Self::RunFailed { reason } => write!(f, "run failed: {}", Printable(reason)),
            Self::Interrupted { started: true } => f.write_str("interrupted"),
            Self::Interrupted { started: false } => f.write_str("interrupted before it started"),
            Self::TaskFaulted { task, fault } => write!(f, "task {task} failed: {fault}"),
            Self::HostCallOpened {
                request,
                task,
                function,
                argument_bytes,
                arguments,
                verdict,
            } => {
                write!(f, "host call {request} by task {task}: {}, ", Printable(function))?;
                write!(f, "{argument_bytes} argument bytes{arguments}: {verdict}")
            }
            Self::HostCallClosed { request, outcome, result, took } => {
                write!(f, "host call {request}: {outcome}{result} after {}us", took.as_micros())
            }
            Self::Alarm { function, denials } if function.is_empty() => {
                write!(f, "alarm: {denials} host calls were denied")
            }
            Self::Alarm { function, denials } => {
                write!(f, "alarm: {denials} host calls of {} were denied", Printable(function))
            }
            Self::Poisoned { cause } => write!(f, "poisoned: {}", Printable(cause)),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}

impl fmt::Display for TaskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vector, error_code, rip, address } = self;
        write!(f, "exception {vector} (error code {error_code:#x}) at {rip:#x}")?;
        match address {
            Some(address) => write!(f, ", accessing {address:#x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allowed"),
            Self::Deny(code) => write!(f, "denied ({code})"),
        }
    }
}

/// In brackets, behind what it is of; nothing for nothing.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Digest(digest) => write!(f, " [sha256 {digest}]"),
            Self::Bytes { bytes, cut: false } => write!(f, " [{}]", Hex(bytes)),
            Self::Bytes { bytes, cut: true } => write!(f, " [{} and more]", Hex(bytes)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replied { bytes } => write!(f, "replied {bytes} bytes"),
            Self::Refused(code) => write!(f, "refused ({code})"),
            Self::Panicked => f.write_str("the host function panicked"),
            Self::BadArguments => f.write_str("the arguments are not the guest's memory"),
            Self::Abandoned => f.write_str("abandoned with the sandbox"),
            Self::TimedOut => f.write_str("not answered by its deadline"),
        }
    }
}
