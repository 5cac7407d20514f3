//! The record of what a sandbox asked for and got.
//!
//! A host call is recorded before its effect. If the record cannot be taken,
//! the call does not happen.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cellule_abi::HostError;

use crate::policy::Verdict;

/// One entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts from 0 in each sandbox, without gaps.
    pub sequence: u64,
    /// The sandbox's number in this process.
    pub sandbox: u64,
    /// Since the sandbox was created.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The sandbox was created on this backend.
    Created {
        /// The backend's name.
        backend: &'static str,
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
        /// What the policy says.
        verdict: Verdict,
    },
    /// A host call is over.
    HostCallClosed {
        /// The request's id.
        request: u64,
        /// What came of it.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// The sandbox takes no more calls.
    Poisoned {
        /// Why, in a word.
        cause: &'static str,
    },
    /// The sandbox is gone.
    Dropped,
}

/// Why a guest that was left to run stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Every task waits.
    Idle,
    /// The time is over that it was given.
    TimeOver,
}

/// A processor exception in a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest gets a result of so many bytes.
    Replied {
        /// The result's length in bytes.
        bytes: u64,
    },
    /// The guest gets a code.
    Refused(HostError),
    /// The host function panicked. The guest gets nothing and is poisoned.
    Panicked,
    /// The arguments were not where the guest said. It is poisoned.
    BadArguments,
    /// The sandbox was gone before the answer came.
    Abandoned,
}

/// Where records go.
///
/// A sink of your own may write them anywhere; it is called on the thread that
/// runs the sandbox, and its time is the call's.
///
/// ```
/// use cellule_channel::{Record, Sink, SinkRefused};
///
/// /// Takes so many records and no more: then nothing can be called.
/// struct Quota(u32);
///
/// impl Sink for Quota {
///     fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
///         self.0 = self.0.checked_sub(1).ok_or(SinkRefused)?;
///         Ok(println!("{record}"))
///     }
/// }
/// ```
pub trait Sink: Send {
    /// Takes one record.
    ///
    /// # Errors
    ///
    /// [`SinkRefused`] if it cannot: then the recorded call does not happen.
    fn take(&mut self, record: &Record) -> Result<(), SinkRefused>;
}

/// A sink could not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit sink cannot take a record")]
pub struct SinkRefused;

/// Numbers records and hands them to a sink.
pub(crate) struct Audit {
    sink: Box<dyn Sink>,
    sandbox: u64,
    next: u64,
    start: Instant,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Audit {
    pub(crate) fn new(sink: Box<dyn Sink>, sandbox: u64) -> Self {
        Self { sink, sandbox, next: 0, start: Instant::now() }
    }

    pub(crate) fn record(&mut self, event: Event) -> Result<(), SinkRefused> {
        let at = self.start.elapsed();
        let record = Record { sequence: self.next, sandbox: self.sandbox, at, event };
        self.sink.take(&record)?;
        self.next += 1;
        Ok(())
    }
}

/// Keeps the latest records in memory; made by [`MemorySink::new`] with the
/// [`Trail`] that reads them.
#[derive(Debug)]
pub struct MemorySink(Arc<Mutex<Latest>>);

/// Reads what a [`MemorySink`] keeps, from any thread, also after the sandbox is gone.
#[derive(Debug, Clone)]
pub struct Trail(Arc<Mutex<Latest>>);

#[derive(Debug)]
struct Latest {
    records: VecDeque<Record>,
    capacity: usize,
    forgotten: u64,
}

impl MemorySink {
    /// A sink for at most `capacity` records: the latest ones. Older ones are
    /// forgotten, and counted.
    ///
    /// ```
    /// let (sink, trail) = cellule_channel::MemorySink::new(1000);
    /// // Give the sink to a sandbox's builder, and read what it did:
    /// assert!(trail.records().is_empty() && trail.forgotten() == 0);
    /// # drop(sink);
    /// ```
    pub fn new(capacity: usize) -> (Self, Trail) {
        let latest = Latest { records: VecDeque::new(), capacity, forgotten: 0 };
        let latest = Arc::new(Mutex::new(latest));
        (Self(Arc::clone(&latest)), Trail(latest))
    }
}

impl Sink for MemorySink {
    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.records.len() >= latest.capacity {
            latest.records.pop_front();
            latest.forgotten += 1;
        }
        if latest.capacity > 0 {
            latest.records.push_back(record.clone());
        }
        Ok(())
    }
}

impl Trail {
    /// Returns the records that are kept, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.iter().cloned().collect()
    }

    /// How many records were forgotten for want of room.
    pub fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands records to `tracing`, target `cellule::audit`: denials and poisonings
/// as warnings, all else as debug events.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingSink;

impl Sink for TracingSink {
    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        match &record.event {
            Event::HostCallOpened { verdict: Verdict::Deny(_), .. }
            | Event::HostCallClosed {
                outcome: Outcome::Panicked | Outcome::BadArguments, ..
            }
            | Event::CallFailed { .. }
            | Event::RunFailed { .. }
            | Event::TaskFaulted { .. }
            | Event::Poisoned { .. } => tracing::warn!(target: "cellule::audit", %record),
            Event::Created { .. }
            | Event::CallBegan { .. }
            | Event::CallReturned { .. }
            | Event::RunBegan { .. }
            | Event::RunEnded { .. }
            | Event::HostCallOpened { .. }
            | Event::HostCallClosed { .. }
            | Event::Dropped => tracing::debug!(target: "cellule::audit", %record),
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_micros();
        write!(f, "#{} sandbox {} +{micros}us {}", self.sequence, self.sandbox, self.event)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { backend } => write!(f, "created on {backend}"),
            Self::CallBegan { call, function } => write!(f, "call {call}: {function}"),
            Self::CallReturned { call, result_bytes } => {
                write!(f, "call {call}: returned {result_bytes} bytes")
            }
            Self::CallFailed { call, reason } => write!(f, "call {call}: failed: {reason}"),
            Self::RunBegan { limit: Some(limit) } => write!(f, "runs for {limit:?}"),
            Self::RunBegan { limit: None } => f.write_str("runs until idle"),
            Self::RunEnded { stop: Stop::Idle } => f.write_str("idle"),
            Self::RunEnded { stop: Stop::TimeOver } => f.write_str("its time is over"),
            Self::RunFailed { reason } => write!(f, "run failed: {reason}"),
            Self::TaskFaulted { task, fault } => write!(f, "task {task} failed: {fault}"),
            Self::HostCallOpened { request, task, function, argument_bytes, verdict } => {
                write!(f, "host call {request} by task {task}: {function}, ")?;
                write!(f, "{argument_bytes} argument bytes: {verdict}")
            }
            Self::HostCallClosed { request, outcome, took } => {
                write!(f, "host call {request}: {outcome} after {}us", took.as_micros())
            }
            Self::Poisoned { cause } => write!(f, "poisoned: {cause}"),
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

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replied { bytes } => write!(f, "replied {bytes} bytes"),
            Self::Refused(code) => write!(f, "refused ({code})"),
            Self::Panicked => f.write_str("the host function panicked"),
            Self::BadArguments => f.write_str("the arguments are not the guest's memory"),
            Self::Abandoned => f.write_str("abandoned with the sandbox"),
        }
    }
}
