//! The run loop: the one place where a guest is entered and an exit is looked at.
//!
//! ```text
//!              +------------------ enter: take replies in, tell, arm
//!              v                     ^          ^
//!         guest runs                 |          |
//!          |   |  | doorbell         |          |
//!          |   |  +--> serve --------+          |
//!          |   |         | wait, nothing unread |
//!          |   |         +--> wait in the inbox +
//!          |   +-- kicked: alarm, nudge --------+
//!          +------ fault: restart, if one task ends alone
//! ```
//!
//! What the guest is *told* is that a deadline has passed or that a completion
//! is there which it has not looked for: by an upcall between two instructions,
//! or by its pending word if it is at the doorbell or masked.

use std::time::{Duration, Instant};

use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::TaskFaults;
use cellule_abi::tasks::NEVER;
use cellule_channel::{Event, TaskFault};
use cellule_hv::{Exit, Fault, Gva, Partition, Position, Registers, Start};
use cellule_kick::Alarm;

use crate::clock::{Time, Timekeeper};
use crate::error::{CallError, Exception, GuestFault, HostFailure};
use crate::exchange::{Exchange, Returned, page_lost};
use crate::image::Image;
use crate::page::ChannelPage;
use crate::tasks::{GuestTasks, push_return};
use crate::trace::{ExitKind, Trace, Traced};

/// A partition, the host's side of its channel, and how it is run.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) partition: Box<dyn Partition>,
    pub(crate) exchange: Exchange,
    clock: Timekeeper,
    task_faults: TaskFaults,
    /// For the names of functions.
    image: Image,
    place: Place,
    /// How many completions the guest has looked for or been told of.
    told: u64,
}

/// Where the guest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At a wait, or before its first instruction: it looks for completions next.
    Waiting,
    /// At another doorbell.
    Ringing,
    /// Between any two instructions.
    Midway,
}

/// What a run is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The guest returns from the call.
    Return {
        /// The time that it has for that.
        within: Option<(Duration, Instant)>,
    },
    /// Every task waits.
    Idle,
    /// A point in time comes, whatever the guest does.
    Until(Instant),
}

/// How a run came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// The guest returned from the call.
    Returned(Returned),
    /// Every task waits.
    Idle,
    /// The point in time has come.
    TimeOver,
}

/// What is armed in one run.
struct Armed {
    goal: Goal,
    /// Made when it is first needed: it costs system calls.
    alarm: Option<Alarm>,
    /// The guest's deadline, by both clocks.
    deadline: Option<(u64, Instant)>,
}

impl Goal {
    /// When the run ends, if the guest does not end it before.
    fn end(&self) -> Option<Instant> {
        match self {
            Self::Return { within } => within.map(|(_, end)| end),
            Self::Idle => None,
            Self::Until(end) => Some(*end),
        }
    }
}

impl Runner {
    pub(crate) fn new(
        partition: Box<dyn Partition>,
        exchange: Exchange,
        clock: Timekeeper,
        task_faults: TaskFaults,
        image: Image,
    ) -> Self {
        let place = Place::Waiting;
        Self { partition, exchange, clock, task_faults, image, place, told: 0 }
    }

    /// Runs the guest until the goal is reached.
    ///
    /// `clock_limit_ns` says how far a virtual clock may go meanwhile.
    pub(crate) fn run(&mut self, goal: Goal, clock_limit_ns: u64) -> Result<End, CallError> {
        self.publish_time(clock_limit_ns)?;
        self.trace_time()?;
        let end = self.run_to(goal);
        self.trace_entry();
        end
    }

    fn run_to(&mut self, goal: Goal) -> Result<End, CallError> {
        let mut armed = Armed { goal, alarm: None, deadline: None };
        let before = self.partition.counters().exits;
        loop {
            self.pay_for_exits(before)?;
            if let Some(end) = over(goal)? {
                return Ok(end);
            }
            self.enter(&mut armed)?;
            self.trace_entry();
            let exit = self.partition.run().map_err(HostFailure::Run)?;
            if let Some(end) = self.left(exit, &armed)? {
                return Ok(end);
            }
        }
    }

    /// Ends a guest that has left more often in this run than its policy allows.
    fn pay_for_exits(&self, before: u64) -> Result<(), GuestFault> {
        let Some(limit) = self.exchange.purse.call_exits else { return Ok(()) };
        let exits = self.partition.counters().exits - before;
        if exits < limit { Ok(()) } else { Err(GuestFault::TooManyExits { limit }) }
    }

    /// The earliest of the guest's deadlines, from now on.
    pub(crate) fn next_deadline(&mut self) -> Result<Option<Duration>, CallError> {
        let Some(tasks) = self.tasks()? else { return Ok(None) };
        let block = tasks.block();
        let next_ns = block.deadline_ns.min(block.following_ns);
        if next_ns == NEVER {
            return Ok(None);
        }
        Ok(Some(Duration::from_nanos(next_ns.saturating_sub(self.now_ns()?))))
    }

    pub(crate) fn time(&self) -> Time {
        self.clock.time()
    }

    /// The guest's monotonic time, by its own account if it is virtual.
    pub(crate) fn now_ns(&mut self) -> Result<u64, HostFailure> {
        let gva = self.exchange.page_gva();
        Ok(self.clock.now(&mut *self.partition, gva)?.ns)
    }

    /// A copy of what was traced so far. A guest that lies about its own trace has none.
    pub(crate) fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        if let Some(recorder) = &self.exchange.recorder {
            if let Ok(Some(tasks)) = self.tasks() {
                trace.add_guest(self.partition.memory(), &tasks);
            }
            trace.add_host(recorder);
        }
        trace
    }

    /// Lets the trace know the guest's time, if there is one.
    fn trace_time(&mut self) -> Result<(), CallError> {
        if self.exchange.recorder.is_some() {
            let now_ns = self.now_ns()?;
            if let Some(recorder) = &mut self.exchange.recorder {
                recorder.set_time(now_ns);
            }
        }
        Ok(())
    }

    /// The exit under way is over: the guest is entered, or stands still for good.
    fn trace_entry(&mut self) {
        if let Some(recorder) = &mut self.exchange.recorder {
            recorder.entry();
        }
    }

    fn page(&self) -> ChannelPage<'_> {
        ChannelPage { memory: self.partition.memory(), gva: self.exchange.page_gva() }
    }

    fn tasks(&self) -> Result<Option<GuestTasks>, CallError> {
        GuestTasks::read(self.page())
    }

    fn publish_time(&mut self, clock_limit_ns: u64) -> Result<(), CallError> {
        let gva = self.exchange.page_gva();
        match self.clock.time() {
            Time::Real => {
                let now = self.clock.now(&mut *self.partition, gva).map_err(HostFailure::Run)?;
                let page = ChannelPage { memory: self.partition.memory(), gva };
                self.clock.publish_wall(page, now)
            }
            Time::Virtual => {
                let page = ChannelPage { memory: self.partition.memory(), gva };
                self.clock.publish_limit(page, clock_limit_ns)
            }
        }
        .map_err(page_lost)
    }

    /// Prepares the next entry: late replies, deadlines, and what the guest is to
    /// be told of both.
    fn enter(&mut self, armed: &mut Armed) -> Result<(), CallError> {
        self.exchange.take_in(self.partition.memory())?;
        if self.place == Place::Waiting {
            self.told = self.exchange.posted();
        }
        let Some(tasks) = self.tasks()? else {
            return armed.set(earlier(armed.goal.end(), self.exchange.next_expiry()));
        };
        let passed = self.arm(armed, &tasks)?;
        if passed || self.told != self.exchange.posted() {
            self.tell(&tasks)?;
        }
        Ok(())
    }

    /// Arms the guest's next deadline and the end of the run; says whether a
    /// deadline has passed. An idle virtual clock moves by itself.
    fn arm(&mut self, armed: &mut Armed, tasks: &GuestTasks) -> Result<bool, CallError> {
        let (mut passed, mut next_ns, mut at) = (false, NEVER, None);
        if self.clock.time() == Time::Real && tasks.has_deadlines() {
            let gva = self.exchange.page_gva();
            let now = self.clock.now(&mut *self.partition, gva).map_err(HostFailure::Run)?;
            let deadlines = tasks.deadlines(now.ns);
            (passed, next_ns) = (deadlines.passed, deadlines.next_ns);
            at = match armed.deadline {
                // What is armed stays so, unless it rang early: the clocks drift.
                Some((ns, at)) if ns == next_ns && at > now.at => Some(at),
                _ if next_ns == NEVER => None,
                _ => now.instant(next_ns),
            };
        }
        tasks.tell_armed(self.partition.memory(), next_ns)?;
        armed.deadline = at.map(|at| (next_ns, at));
        let end = earlier(armed.goal.end(), self.exchange.next_expiry());
        armed.set(earlier(end, at))?;
        Ok(passed)
    }

    /// Tells the guest that there is something to look at.
    fn tell(&mut self, tasks: &GuestTasks) -> Result<(), CallError> {
        if self.place == Place::Midway && !tasks.is_masked() {
            return self.deliver(tasks);
        }
        tasks.tell_pending(self.partition.memory())?;
        self.told = self.exchange.posted();
        Ok(())
    }

    /// Diverts the guest to its upcall entry, as a kernel delivers a signal.
    fn deliver(&mut self, tasks: &GuestTasks) -> Result<(), CallError> {
        let Some(entry) = tasks.upcall_entry()? else {
            // It finds what there is at its next doorbell.
            return Ok(());
        };
        self.told = self.exchange.posted();
        let Some(at) = self.partition.position().map_err(HostFailure::Run)? else {
            // It is about to fault. If that ends one task, the others look then.
            return Ok(tasks.tell_pending(self.partition.memory())?);
        };
        match push_return(self.partition.memory(), at) {
            Ok(rsp) => {
                tasks.set_mask(self.partition.memory())?;
                let to = Position { rip: entry, rsp };
                self.partition.divert(to).map_err(HostFailure::Run)?;
                self.exchange.stats.upcalls += 1;
                self.exchange.trace(|| Traced::Upcall);
                Ok(())
            }
            Err(fault) => {
                tasks.tell_pending(self.partition.memory())?;
                self.fault(fault)
            }
        }
    }

    /// Looks at why the guest stopped; says if that ends the run.
    fn left(&mut self, exit: Exit, armed: &Armed) -> Result<Option<End>, CallError> {
        self.trace_time()?;
        if let Some(recorder) = &mut self.exchange.recorder {
            recorder.exit(ExitKind::of(&exit));
        }
        match exit {
            Exit::Doorbell(value) => self.doorbell(value, armed),
            Exit::Kicked => {
                self.exchange.stats.kicks += 1;
                self.place = Place::Midway;
                if self.partition.is_kicked() {
                    self.partition.clear_kick();
                    return Err(CallError::Interrupted { started: true });
                }
                // An alarm or a nudge: what it is for is looked at before the entry.
                Ok(None)
            }
            Exit::Fault(fault) => self.fault(fault).map(|()| None),
            Exit::Unexpected(what) => Err(GuestFault::Stopped(what).into()),
        }
    }

    fn doorbell(&mut self, value: u8, armed: &Armed) -> Result<Option<End>, CallError> {
        self.place = Place::Ringing;
        match Doorbell::try_from(value) {
            Ok(Doorbell::Submit) => {}
            Ok(Doorbell::Wait) => self.place = Place::Waiting,
            Ok(Doorbell::Abort) => return Err(self.exchange.abort(self.partition.memory())),
            Ok(Doorbell::Extend) => {
                self.partition.extend().map_err(HostFailure::Run)?;
                return Ok(None);
            }
            Err(value) => return Err(GuestFault::UnknownDoorbell { value }.into()),
        }
        self.exchange.drain(self.partition.memory())?;
        if let Some(returned) = self.exchange.take_returned() {
            return Ok(Some(End::Returned(returned)));
        }
        match self.place {
            Place::Waiting => self.wait(armed),
            Place::Ringing | Place::Midway => Ok(None),
        }
    }

    /// Waits for what the guest waits for, without the processor.
    fn wait(&mut self, armed: &Armed) -> Result<Option<End>, CallError> {
        loop {
            self.exchange.take_in(self.partition.memory())?;
            if self.has_news()? || self.partition.is_kicked() {
                return Ok(None);
            }
            let deadline = match self.deadline()? {
                Wakes::Now => return Ok(None),
                Wakes::At(at) => Some(at),
                Wakes::Never => None,
            };
            let in_flight = self.exchange.channel.in_flight() > 0;
            match armed.goal {
                Goal::Idle => return Ok(Some(End::Idle)),
                Goal::Return { .. } if deadline.is_none() && !in_flight => {
                    return Err(GuestFault::WaitsForNothing.into());
                }
                Goal::Return { .. } | Goal::Until(_) => {}
            }
            if let Some(end) = over(armed.goal)? {
                return Ok(Some(end));
            }
            let until = earlier(earlier(armed.goal.end(), deadline), self.exchange.next_expiry());
            self.exchange.inbox.wait(until, || self.partition.is_kicked());
        }
    }

    /// Whether a waiting guest has something to look at. One with a task block
    /// looks at all that there is before it waits, or has its pending word set;
    /// it may keep the bytes of replies that it has seen.
    fn has_news(&mut self) -> Result<bool, CallError> {
        match self.tasks()? {
            Some(tasks) => Ok(self.told != self.exchange.posted() || tasks.is_pending()),
            None => self.exchange.has_unread(self.partition.memory()),
        }
    }

    /// When a waiting guest wants to go on by itself.
    fn deadline(&mut self) -> Result<Wakes, CallError> {
        let Some(tasks) = self.tasks()? else { return Ok(Wakes::Never) };
        if self.clock.time() == Time::Virtual || !tasks.has_deadlines() {
            return Ok(Wakes::Never);
        }
        let gva = self.exchange.page_gva();
        let now = self.clock.now(&mut *self.partition, gva).map_err(HostFailure::Run)?;
        let deadlines = tasks.deadlines(now.ns);
        if deadlines.passed {
            return Ok(Wakes::Now);
        }
        Ok(now.instant(deadlines.next_ns).map_or(Wakes::Never, Wakes::At))
    }

    /// Lets the guest end the task that failed, if it can and may.
    fn fault(&mut self, fault: Fault) -> Result<(), CallError> {
        if let Some((tasks, entry, stack)) = self.fault_entry()? {
            let memory = self.partition.memory();
            tasks.tell_fault(memory, &fault)?;
            tasks.set_mask(memory)?;
            let registers = Registers::start(Start { entry, stack, argument: Gva(0) });
            self.partition.restart(&registers).map_err(HostFailure::Run)?;
            self.place = Place::Midway;
            self.exchange.stats.task_faults += 1;
            let address = fault.address.map(|Gva(address)| address);
            let Fault { vector, error_code, rip: Gva(rip), .. } = fault;
            let told = TaskFault { vector, error_code, rip, address };
            let event = Event::TaskFaulted { task: tasks.block().task, fault: told };
            return Ok(self.exchange.channel.record(event).map_err(HostFailure::Audit)?);
        }
        Err(self.exception(fault).into())
    }

    fn fault_entry(&self) -> Result<Option<(GuestTasks, Gva, Gva)>, CallError> {
        if self.task_faults == TaskFaults::EndSandbox {
            return Ok(None);
        }
        let Some(tasks) = self.tasks()? else { return Ok(None) };
        Ok(tasks.fault_entry()?.map(|(entry, stack)| (tasks, entry, stack)))
    }

    fn exception(&self, fault: Fault) -> GuestFault {
        let space = self.partition.memory().space();
        let Gva(rip) = fault.rip;
        GuestFault::Exception(Box::new(Exception {
            fault,
            target: fault.address.map(|address| {
                // Bit 0 of the error code: whether the page was there.
                let late = space.find(address).is_some() && fault.error_code & 1 == 0;
                space.describe(address) + if late { " not asked for yet" } else { "" }
            }),
            function: self.image.program().symbol_at(rip).map(|location| location.to_string()),
        }))
    }
}

/// When a waiting guest goes on.
enum Wakes {
    Now,
    At(Instant),
    Never,
}

impl Armed {
    /// Arms this thread's alarm, or silences it.
    fn set(&mut self, at: Option<Instant>) -> Result<(), CallError> {
        match (&mut self.alarm, at) {
            (None, None) => {}
            (Some(alarm), at) => alarm.set(at).map_err(HostFailure::Alarm)?,
            (slot, Some(at)) => *slot = Some(Alarm::at(at).map_err(HostFailure::Alarm)?),
        }
        Ok(())
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whether the run's time is over.
fn over(goal: Goal) -> Result<Option<End>, CallError> {
    match goal {
        Goal::Return { within: Some((limit, end)) } if Instant::now() >= end => {
            Err(CallError::DeadlineExceeded { limit })
        }
        Goal::Until(end) if Instant::now() >= end => Ok(Some(End::TimeOver)),
        Goal::Return { .. } | Goal::Idle | Goal::Until(_) => Ok(None),
    }
}
