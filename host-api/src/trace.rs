//! What a sandbox's tasks did and when: the guest's trace, and the host's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_abi::doorbell::Doorbell;
use cellule_abi::tasks::{TraceEvent as TaskEvent, TraceRecord};
use cellule_hv::{Exit, GuestSlice, Gva, Memory};
use zerocopy::FromBytes;

use crate::chrome;
use crate::clock::Time;
use crate::tasks::GuestTasks;
use crate::text::printable;

/// The most entries of a trace, the guest's and the host's each.
pub(crate) const MOST_ENTRIES: u32 = 65536;

/// What a sandbox did lately: its tasks, its exits, its host calls. A copy, made
/// by [`Sandbox::trace`](crate::Sandbox::trace).
///
/// What tasks did is the guest's own account: to be shown, not relied upon.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub(crate) events: Vec<TraceEvent>,
    pub(crate) names: BTreeMap<u16, String>,
    lost: u64,
    skipped: u64,
}

/// One event of a [`Trace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// When, by the guest's monotonic clock.
    pub at: Duration,
    /// What happened.
    pub what: Traced,
}

/// What a [`TraceEvent`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traced {
    /// Something happened to a task, says the guest.
    Task {
        /// The task's number.
        task: u16,
        /// What happened.
        event: TaskEvent,
        /// A number that goes with it: see [`TaskEvent`].
        detail: u32,
    },
    /// The guest was left for the host.
    Exit {
        /// Why.
        why: ExitKind,
        /// How long it stood still by its own clock, waits included.
        took: Duration,
    },
    /// The host diverted the guest to its upcall entry.
    Upcall,
    /// A host call was opened.
    HostCall {
        /// The request's id.
        request: u64,
        /// The task that called, as the guest says.
        task: u32,
        /// The host function's name; empty if the guest named none.
        function: Arc<str>,
    },
    /// A host call was closed.
    HostReply {
        /// The request's id.
        request: u64,
        /// The task that called, as the guest says.
        task: u32,
    },
}

/// Why the guest was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It had requests.
    Submit,
    /// It had nothing to do, or returned from a call.
    Wait,
    /// It rang the doorbell for something else.
    Doorbell,
    /// An alarm, a reply or an interrupt stopped it.
    Kicked,
    /// It faulted.
    Fault,
    /// Something else.
    Other,
}

impl ExitKind {
    pub(crate) fn of(exit: &Exit) -> Self {
        match exit {
            Exit::Doorbell(value) => match Doorbell::try_from(*value) {
                Ok(Doorbell::Submit) => Self::Submit,
                Ok(Doorbell::Wait) => Self::Wait,
                Ok(Doorbell::Abort | Doorbell::Extend) | Err(_) => Self::Doorbell,
            },
            Exit::Kicked => Self::Kicked,
            Exit::Fault(_) => Self::Fault,
            Exit::Unexpected(_) => Self::Other,
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Wait => "wait",
            Self::Doorbell => "doorbell",
            Self::Kicked => "kicked",
            Self::Fault => "fault",
            Self::Other => "other",
        }
    }
}

impl Trace {
    /// The events, by time.
    pub fn events(&self) -> &[TraceEvent] {
        &self.events
    }

    /// The names of tasks by their numbers, as far as the trace still knows. The
    /// text is the guest's, with control characters escaped.
    pub fn task_names(&self) -> impl Iterator<Item = (u16, &str)> {
        self.names.iter().map(|(task, name)| (*task, name.as_str()))
    }

    /// How many events were forgotten for want of room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How many of the guest's records made no sense and were left out.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The trace in the Chrome trace event format, which <https://ui.perfetto.dev>
    /// and `chrome://tracing` load: one track for each task, one for the exits, and
    /// the host calls.
    ///
    /// ```
    /// use cellule::{Image, Sandbox};
    ///
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// let mut sandbox = Sandbox::builder(&image)
    ///     .trace(1024)
    /// #   .backend(cellule::Backend::for_development())
    ///     .build()?;
    /// sandbox.call::<i32>("add", (2, 3))?;
    /// let json = sandbox.trace().to_chrome_json();
    /// assert!(json.contains(r#""name":"wait""#), "the exit in which `add` returned");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_chrome_json(&self) -> String {
        chrome::json(self)
    }

    /// Adds the guest's records: all that is in its ring, oldest first.
    pub(crate) fn add_guest(&mut self, memory: &Memory, tasks: &GuestTasks) {
        let block = tasks.block();
        let (entries, written) = (block.trace_entries, block.trace_written);
        if !entries.is_power_of_two() || entries > MOST_ENTRIES {
            return;
        }
        let len = u64::from(entries) * size_of::<TraceRecord>() as u64;
        let Ok(bytes) = memory.copy_out(GuestSlice { gva: Gva(block.trace_gva), len }) else {
            return;
        };
        let Ok(records) = <[TraceRecord]>::ref_from_bytes(&bytes) else { return };
        let kept = written.min(u64::from(entries));
        self.lost += written - kept;
        for index in written - kept..written {
            // In bounds: the remainder is less than the ring's length.
            let at = usize::try_from(index % u64::from(entries)).unwrap_or(0);
            if let Some(record) = records.get(at) {
                self.add_record(record);
            }
        }
    }

    fn add_record(&mut self, record: &TraceRecord) {
        let Ok(event) = TaskEvent::try_from(record.event) else {
            self.skipped += 1;
            return;
        };
        if event == TaskEvent::Created {
            let name = record.name.split(|byte| *byte == 0).next().unwrap_or_default();
            self.names.insert(record.task, printable(name));
        }
        let what = Traced::Task { task: record.task, event, detail: record.detail };
        self.events.push(TraceEvent { at: Duration::from_nanos(record.at_ns), what });
    }

    /// Adds the host's events and brings all in order.
    pub(crate) fn add_host(&mut self, recorder: &Recorder) {
        self.events.extend(recorder.events.iter().cloned());
        self.lost += recorder.lost;
        self.events.sort_by_key(|event| event.at);
    }
}

/// The host's own events, the latest ones. There is none unless a trace is asked for.
#[derive(Debug)]
pub(crate) struct Recorder {
    events: VecDeque<TraceEvent>,
    capacity: usize,
    lost: u64,
    time: Time,
    /// The guest's time at a moment of the host's.
    anchor: (Duration, Instant),
    /// The exit under way.
    left: Option<(Duration, ExitKind)>,
}

impl Recorder {
    pub(crate) fn new(entries: u32, time: Time) -> Self {
        Self {
            events: VecDeque::new(),
            capacity: usize::try_from(entries).unwrap_or(0),
            lost: 0,
            time,
            anchor: (Duration::ZERO, Instant::now()),
            left: None,
        }
    }

    /// Learns the guest's time.
    pub(crate) fn set_time(&mut self, now_ns: u64) {
        self.anchor = (Duration::from_nanos(now_ns), Instant::now());
    }

    /// The guest was left, at the time that was set last.
    pub(crate) fn exit(&mut self, why: ExitKind) {
        self.left = Some((self.anchor.0, why));
    }

    /// The exit is over.
    pub(crate) fn entry(&mut self) {
        if let Some((at, why)) = self.left.take() {
            let took = self.now().saturating_sub(at);
            self.push(at, Traced::Exit { why, took });
        }
    }

    /// Something happens now.
    pub(crate) fn add(&mut self, what: Traced) {
        self.push(self.now(), what);
    }

    fn push(&mut self, at: Duration, what: Traced) {
        if self.events.len() >= self.capacity {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(TraceEvent { at, what });
    }

    fn now(&self) -> Duration {
        let (then, at) = self.anchor;
        match self.time {
            Time::Real => then.saturating_add(at.elapsed()),
            Time::Virtual => then,
        }
    }
}
