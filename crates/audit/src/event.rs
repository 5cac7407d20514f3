//! What is recorded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use cellule_abi::HostError;
use serde::{Deserialize, Serialize};

use crate::chain::Digest;
use crate::code;

/// What happened.
///
/// Its text form, and its form in a log file, are in `AUDIT.md`. Text that a guest
/// wrote is as it came: [`crate::Printable`] and [`Event`]'s own `Display` escape it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The sandbox was created on this backend.
    Created {
        /// The backend's name.
        backend: Cow<'static, str>,
    },
    /// The host calls a guest function.
    CallBegan {
        /// The call's number in this sandbox.
        call: u64,
        /// The guest function's name.
        function: Arc<str>,
    },
    /// The guest function came back.
    CallReturned {
        /// The call's number.
        call: u64,
        /// The result's length in bytes.
        result_bytes: u64,
    },
    /// The call ended in another way.
    CallFailed {
        /// The call's number.
        call: u64,
        /// How.
        reason: String,
    },
    /// The host lets the guest's tasks run, without a call.
    RunBegan {
        /// For how long, or until all of them wait.
        #[serde(rename = "limit_ns", with = "code::some_nanoseconds")]
        limit: Option<Duration>,
    },
    /// The guest stands still again.
    RunEnded {
        /// Why.
        stop: Stop,
    },
    /// The guest ended in that run.
    RunFailed {
        /// How.
        reason: String,
    },
    /// An interrupt ended a call or a run, or kept one from its start.
    Interrupted {
        /// Whether the guest had started to run.
        started: bool,
    },
    /// A task of the guest's failed, and the guest is to end that task alone.
    TaskFaulted {
        /// The task, as the guest says.
        task: u32,
        /// What it did.
        fault: TaskFault,
    },
    /// A host call was judged; if it was allowed, it happens next.
    HostCallOpened {
        /// The request's id, as the guest chose it.
        request: u64,
        /// The task that calls, as the guest says.
        task: u32,
        /// The host function's name; empty if the guest named none.
        function: Arc<str>,
        /// The arguments' length in bytes, as the guest says.
        argument_bytes: u64,
        /// What is kept of the arguments.
        arguments: Kept,
        /// What the policy says.
        verdict: Verdict,
    },
    /// A host call is over.
    HostCallClosed {
        /// The request's id.
        request: u64,
        /// What came of it.
        outcome: Outcome,
        /// What is kept of the result.
        result: Kept,
        /// How long it took.
        #[serde(rename = "took_ns", with = "code::nanoseconds")]
        took: Duration,
    },
    /// So many host calls were denied that somebody should know.
    Alarm {
        /// The host function's name; empty if it is all denials of the sandbox.
        function: Arc<str>,
        /// How many there were since the sandbox was created.
        denials: u64,
    },
    /// The sandbox takes no more calls.
    Poisoned {
        /// Why, in a word.
        cause: Cow<'static, str>,
    },
    /// The sandbox is gone.
    Dropped,
}

/// Whether a host call may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not; the guest is told this code.
    Deny(#[serde(with = "code::host_error")] HostError),
}

/// What a record keeps of arguments or of a result.
///
/// ```
/// use cellule_audit::{Digest, Kept};
/// let kept = Kept::digest([b"ab", b"c"]);
/// assert_eq!(kept, Kept::Digest(Digest::of(b"abc")));
/// let kept = Kept::bytes([b"ab", b"cd"], 3);
/// assert_eq!(kept, Kept::Bytes { bytes: (*b"abc").into(), cut: true });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Nothing.
    #[default]
    Nothing,
    /// Their SHA-256.
    Digest(Digest),
    /// The bytes themselves, or so many of the first.
    Bytes {
        /// They.
        #[serde(with = "code::hexadecimal")]
        bytes: Arc<[u8]>,
        /// Whether there were more.
        cut: bool,
    },
}

/// Why a guest that was left to run stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Every task waits.
    Idle,
    /// The time is over that it was given.
    TimeOver,
}

/// A processor exception in a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFault {
    /// The exception's number.
    pub vector: u8,
    /// Its error code.
    pub error_code: u32,
    /// The instruction's address.
    pub rip: u64,
    /// For a page fault: the address that was accessed.
    pub address: Option<u64>,
}

/// What came of a host call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest gets a result of so many bytes.
    Replied {
        /// The result's length in bytes.
        bytes: u64,
    },
    /// The guest gets a code.
    Refused(#[serde(with = "code::host_error")] HostError),
    /// The host function panicked. The guest gets nothing and is poisoned.
    Panicked,
    /// The arguments were not where the guest said. It is poisoned.
    BadArguments,
    /// The sandbox was gone before the answer came.
    Abandoned,
    /// It took longer than its deadline. The guest gets a code, and no answer that
    /// comes later.
    TimedOut,
}

impl Kept {
    /// Keeps the digest of bytes that lie in two segments.
    pub fn digest(segments: [&[u8]; 2]) -> Self {
        Self::Digest(Digest::of_segments(segments))
    }

    /// Keeps at most so many of the first bytes. A record takes up to
    /// [`MOST_RECORD_BYTES`](crate::MOST_RECORD_BYTES) in all: a longer one is refused.
    pub fn bytes([head, tail]: [&[u8]; 2], most: usize) -> Self {
        let bytes: Arc<[u8]> = head.iter().chain(tail).take(most).copied().collect();
        Self::Bytes { cut: bytes.len() < head.len() + tail.len(), bytes }
    }
}

impl Event {
    /// What kind of event it is: one word, as in a log file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::CallBegan { .. } => "call_began",
            Self::CallReturned { .. } => "call_returned",
            Self::CallFailed { .. } => "call_failed",
            Self::RunBegan { .. } => "run_began",
            Self::RunEnded { .. } => "run_ended",
            Self::RunFailed { .. } => "run_failed",
            Self::Interrupted { .. } => "interrupted",
            Self::TaskFaulted { .. } => "task_faulted",
            Self::HostCallOpened { .. } => "host_call_opened",
            Self::HostCallClosed { .. } => "host_call_closed",
            Self::Alarm { .. } => "alarm",
            Self::Poisoned { .. } => "poisoned",
            Self::Dropped => "dropped",
        }
    }

    /// The function that it names, if it names one.
    pub fn function(&self) -> Option<&str> {
        match self {
            Self::CallBegan { function, .. }
            | Self::HostCallOpened { function, .. }
            | Self::Alarm { function, .. } => Some(function),
            _ => None,
        }
    }
}
