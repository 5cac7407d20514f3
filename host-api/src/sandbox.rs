//! `Sandbox`: one partition, and calls into it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_abi::page::SHORT_BYTES;
use cellule_abi::tasks::NEVER;
use cellule_abi::wire;
use cellule_abi::{Args, Schema, Signature};
use cellule_channel::{Event, SinkRefused, Stop};
use cellule_hv::Counters;
use serde::de::DeserializeOwned;

use crate::backend::Backend;
use crate::builder::SandboxBuilder;
use crate::clock::Time;
use crate::error::{CallError, GuestFault, HostFailure, Poison};
use crate::exchange::Returned;
use crate::function::Function;
use crate::image::Image;
use crate::interrupt::InterruptHandle;
use crate::run::{End, Goal, Runner};
use crate::stats::Stats;
use crate::trace::Trace;

/// A guest program in a virtual machine of its own.
///
/// The guest runs only inside a call or a run, on the calling thread. A sandbox can move
/// between threads. Whatever the guest does, it can only end itself: the
/// sandbox is then *poisoned* and refuses further calls.
///
/// ```
/// use cellule::{Image, Sandbox};
///
/// let image = Image::from_bytes(cellule_test_guests::basics())?;
/// let mut sandbox = Sandbox::builder(&image)
/// #   .backend(cellule::Backend::for_development())
///     .build()?;
/// assert_eq!(sandbox.call::<i32>("add", (2, 3))?, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sandbox {
    image: Image,
    runner: Runner,
    backend: Backend,
    /// Calls into the hypervisor that creation took.
    hypercalls_at_start: u64,
    message_bytes: u64,
    calls: u64,
    poison: Option<Poison>,
    /// Reused for every call's encoded arguments.
    head: Vec<u8>,
}

/// How a guest stands still after [`Sandbox::run_until_idle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Idle {
    /// How long from now, by the guest's clock, it wants to run again; `None` if
    /// no task waits for a time. It is the guest's own account.
    pub next_deadline: Option<Duration>,
    /// How many deferred host calls have not been answered. Their answers are
    /// taken in when the guest runs again.
    pub in_flight: u32,
}

impl Sandbox {
    /// Starts to describe a sandbox for this image.
    pub fn builder(image: &Image) -> SandboxBuilder {
        SandboxBuilder::new(image.clone())
    }

    pub(crate) fn new(image: Image, runner: Runner, backend: Backend, message_bytes: u64) -> Self {
        let Counters { hypercalls: hypercalls_at_start, .. } = runner.partition.counters();
        Self {
            image,
            runner,
            backend,
            hypercalls_at_start,
            message_bytes,
            calls: 0,
            poison: None,
            head: Vec::new(),
        }
    }

    /// Calls an exported function by its name.
    ///
    /// `R` must be the function's result type, a `Result` included, and `args`
    /// a tuple of its arguments; both are compared with the image's record of
    /// the function before anything runs.
    ///
    /// # Errors
    ///
    /// [`CallError`]; [`CallError::poisons`] tells what is left of the sandbox.
    ///
    /// # Blocking
    ///
    /// Until the guest returns, which a hostile one never does: see
    /// [`Sandbox::call_within`] and [`Sandbox::interrupt_handle`]. The guest's other
    /// tasks run meanwhile, and stand still afterwards. While all of them wait for
    /// host functions that answer later or for a time, so does this thread, without
    /// the processor.
    ///
    /// # Cost
    ///
    /// One exit, and one more for every host call and every upcall; on KVM each is one
    /// hypervisor call. One copy of the arguments, one of the result. The names are looked up
    /// and compared each time: [`Sandbox::function`] does that once.
    pub fn call<R: Schema + DeserializeOwned>(
        &mut self,
        name: &str,
        args: impl Args,
    ) -> Result<R, CallError> {
        let index = self.resolve(name, || Signature::of_call::<R>(&args))?;
        self.perform(index, &args, None)
    }

    /// Calls an exported function by its name, and ends the call when `limit`
    /// has passed. A host function that runs at that time is not stopped.
    ///
    /// # Errors
    ///
    /// As for [`Sandbox::call`], and [`CallError::DeadlineExceeded`].
    ///
    /// # Cost
    ///
    /// As for [`Sandbox::call`], and two system calls for the timer.
    ///
    /// ```
    /// # use cellule::{CallError, Image, Sandbox};
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// # let backend = cellule::Backend::for_development();
    /// # let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
    /// use std::time::Duration;
    /// let outcome = sandbox.call_within::<()>(Duration::from_millis(20), "spin", ());
    /// assert!(matches!(outcome, Err(CallError::DeadlineExceeded { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_within<R: Schema + DeserializeOwned>(
        &mut self,
        limit: Duration,
        name: &str,
        args: impl Args,
    ) -> Result<R, CallError> {
        let index = self.resolve(name, || Signature::of_call::<R>(&args))?;
        self.perform(index, &args, Some(limit))
    }

    /// Resolves an exported function once, for many calls.
    ///
    /// The handle works in every sandbox of the same image.
    ///
    /// ```
    /// # use cellule::{Image, Sandbox};
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// # let backend = cellule::Backend::for_development();
    /// # let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
    /// let echo = sandbox.function::<(&str,), String>("echo")?;
    /// for text in ["one", "two"] {
    ///     assert_eq!(echo.call(&mut sandbox, (text,))?, text);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError::UnknownFunction`] and [`CallError::Mismatch`].
    pub fn function<A: Args, R: Schema + DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Function<A, R>, CallError> {
        let index = self.resolve(name, Signature::of::<A, R>)?;
        Ok(Function::new(self.image.clone(), index))
    }

    /// Runs the guest's tasks until every one of them waits.
    ///
    /// A task that waits for a time does not keep this from returning: see
    /// [`Idle::next_deadline`] and [`Sandbox::run_for`]. A virtual clock stands still.
    ///
    /// ```
    /// # use cellule::{Image, Sandbox};
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// # let backend = cellule::Backend::for_development();
    /// # let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
    /// let idle = sandbox.run_until_idle()?;
    /// assert_eq!((idle.next_deadline, idle.in_flight), (None, 0), "nothing is left to do");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError`], but for what a call alone can meet; [`CallError::poisons`] tells
    /// what is left of the sandbox.
    ///
    /// # Blocking
    ///
    /// For as long as a task can run, which may be for ever: see
    /// [`Sandbox::interrupt_handle`]. Never for a host call or a time.
    ///
    /// # Cost
    ///
    /// As many exits as the guest makes: one, if there is nothing to do.
    pub fn run_until_idle(&mut self) -> Result<Idle, CallError> {
        let limit_ns = self.clock_limit(Duration::ZERO)?;
        self.run(None, Goal::Idle, limit_ns)?;
        let next_deadline = self.runner.next_deadline()?;
        Ok(Idle { next_deadline, in_flight: self.stats().in_flight })
    }

    /// Runs the guest's tasks for a time of the guest's clock.
    ///
    /// In real time this returns when so much has passed, be the guest busy or not:
    /// it stands still where it is, and goes on there in the next call or run. A
    /// virtual clock moves by so much, and this returns as soon as every task waits
    /// for something later; it does not wait for host calls in flight.
    ///
    /// ```
    /// # use cellule::{Image, Sandbox};
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// # let backend = cellule::Backend::for_development();
    /// # let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
    /// use std::time::{Duration, Instant};
    /// let (before, time) = (Instant::now(), Duration::from_millis(5));
    /// sandbox.run_for(time)?;
    /// assert!(before.elapsed() >= time);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Sandbox::run_until_idle`]. That the time is over is not one.
    ///
    /// # Blocking
    ///
    /// For that time, without the processor while every task waits. In virtual time
    /// for as long as a task can run: see [`Sandbox::interrupt_handle`].
    ///
    /// # Cost
    ///
    /// As many exits as the guest makes, and up to one more; two system calls for the timer.
    pub fn run_for(&mut self, time: Duration) -> Result<(), CallError> {
        let limit_ns = self.clock_limit(time)?;
        let goal = match (self.runner.time(), Instant::now().checked_add(time)) {
            (Time::Real, Some(end)) => Goal::Until(end),
            // A time that the host cannot name does not end before the guest does.
            (Time::Real, None) | (Time::Virtual, _) => Goal::Idle,
        };
        self.run(Some(time), goal, limit_ns)
    }

    /// A copy of what was traced so far: see [`SandboxBuilder::trace`].
    ///
    /// # Cost
    ///
    /// A copy of the guest's and of the host's ring, sorted.
    pub fn trace(&self) -> Trace {
        self.runner.trace()
    }

    /// A handle that ends a call from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        let inbox = Arc::clone(&self.runner.exchange.inbox);
        InterruptHandle::new(self.runner.partition.kicker(), inbox)
    }

    /// What it runs on; never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// What was counted since the sandbox was created.
    pub fn stats(&self) -> Stats {
        let Counters { exits, hypercalls } = self.runner.partition.counters();
        let hypervisor_calls = hypercalls - self.hypercalls_at_start;
        let in_flight = self.runner.exchange.channel.in_flight();
        let counted = self.runner.exchange.stats;
        Stats { exits, hypervisor_calls, calls: self.calls, in_flight, ..counted }
    }

    /// What poisoned the sandbox, if anything did.
    pub fn poison(&self) -> Option<Poison> {
        self.poison
    }

    /// The image that it runs.
    pub fn image(&self) -> &Image {
        &self.image
    }

    fn resolve(&self, name: &str, host: impl FnOnce() -> Signature) -> Result<u32, CallError> {
        let exports = self.image.program().exports();
        let Some(index) = exports.iter().position(|export| export.name() == name) else {
            let exports = exports.iter().map(|export| export.name().to_owned()).collect();
            return Err(CallError::UnknownFunction { name: name.to_owned(), exports });
        };
        let image = exports.get(index).map_or("", |export| export.signature());
        let host = host().text();
        if image != host {
            let (function, image) = (name.to_owned(), image.to_owned());
            return Err(CallError::Mismatch { function, image, host });
        }
        Ok(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Makes one call, and poisons the sandbox if its outcome does.
    pub(crate) fn perform<R: Schema + DeserializeOwned>(
        &mut self,
        index: u32,
        args: &impl Args,
        limit: Option<Duration>,
    ) -> Result<R, CallError> {
        self.check()?;
        let (id, tail) = self.begin(index, args)?;
        self.runner.exchange.channel.begin_call();
        let posted = self.post(id, index, tail);
        let limit = limit.or(self.runner.exchange.purse.call_deadline);
        let within = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        let ran = posted.and_then(|()| self.runner.run(Goal::Return { within }, NEVER));
        let outcome = ran.and_then(|end| self.finish(id, end));
        if let Err(error) = &outcome {
            self.fail(Event::CallFailed { call: id, reason: error.to_string() }, error);
        }
        outcome
    }

    /// Makes one run without a call, and poisons the sandbox if its outcome does.
    fn run(&mut self, limit: Option<Duration>, goal: Goal, limit_ns: u64) -> Result<(), CallError> {
        self.check()?;
        self.record(Event::RunBegan { limit }).map_err(CallError::NotRecorded)?;
        self.runner.exchange.channel.begin_call();
        let ran = self.runner.run(goal, limit_ns).and_then(|end| {
            let stop = match end {
                End::Idle => Stop::Idle,
                // No call is under way that could return.
                End::TimeOver | End::Returned(_) => Stop::TimeOver,
            };
            Ok(self.record(Event::RunEnded { stop }).map_err(HostFailure::Audit)?)
        });
        if let Err(error) = &ran {
            self.fail(Event::RunFailed { reason: error.to_string() }, error);
        }
        ran
    }

    /// Whether the sandbox may run at all.
    fn check(&mut self) -> Result<(), CallError> {
        if let Some(cause) = self.poison {
            return Err(CallError::Poisoned { cause });
        }
        if self.runner.partition.is_kicked() {
            self.runner.partition.clear_kick();
            // It does not start, recorded or not.
            let _ = self.record(Event::Interrupted { started: false });
            return Err(CallError::Interrupted { started: false });
        }
        Ok(())
    }

    /// How far a virtual clock may go if it moves by `time`.
    fn clock_limit(&mut self, time: Duration) -> Result<u64, CallError> {
        match self.runner.time() {
            Time::Real => Ok(NEVER),
            Time::Virtual => {
                let time_ns = u64::try_from(time.as_nanos()).unwrap_or(NEVER);
                Ok(self.runner.now_ns()?.saturating_add(time_ns))
            }
        }
    }

    /// Encodes the arguments, all but what they lend, and records the call.
    fn begin<'a>(&mut self, index: u32, args: &'a impl Args) -> Result<(u64, &'a [u8]), CallError> {
        self.head.clear();
        let tail = args.encode(&mut self.head)?;
        let bytes = self.head.len() as u64 + tail.len() as u64;
        if bytes > self.message_bytes {
            return Err(CallError::ArgumentsTooLarge { bytes, limit: self.message_bytes });
        }
        let id = self.calls;
        let function = self.image.export_name(index);
        let began = Event::CallBegan { call: id, function };
        self.record(began).map_err(CallError::NotRecorded)?;
        self.calls += 1;
        Ok((id, tail))
    }

    /// Gives the guest the call that was begun.
    fn post(&mut self, id: u64, index: u32, tail: &[u8]) -> Result<(), CallError> {
        if self.head.len() + tail.len() > SHORT_BYTES {
            // The place of long arguments is late memory.
            self.runner.partition.extend().map_err(HostFailure::Run)?;
        }
        let Runner { partition, exchange, .. } = &mut self.runner;
        exchange.post_call(partition.memory(), id, index, [&self.head, tail])
    }

    fn finish<R: Schema + DeserializeOwned>(
        &mut self,
        call: u64,
        end: End,
    ) -> Result<R, CallError> {
        let payload = match end {
            End::Returned(Returned::Result(payload)) => payload,
            End::Returned(Returned::TooLarge(bytes)) => {
                return Err(CallError::ResultTooLarge { bytes, limit: self.message_bytes });
            }
            End::Returned(Returned::TaskEnded) => return Err(CallError::TaskEnded),
            // A call has another goal.
            End::Idle | End::TimeOver => return Err(GuestFault::WaitsForNothing.into()),
        };
        let result_bytes = payload.len() as u64;
        let value = wire::decode(payload).map_err(GuestFault::BadResult)?;
        let record = Event::CallReturned { call, result_bytes };
        self.record(record).map_err(HostFailure::Audit)?;
        Ok(value)
    }

    fn fail(&mut self, event: Event, error: &CallError) {
        // It has failed already; a sink that refuses cannot undo that.
        if let CallError::Interrupted { started } = *error {
            let _ = self.record(Event::Interrupted { started });
        }
        let _ = self.record(event);
        if let Some(cause) = error.poisons() {
            self.poison = Some(cause);
            let _ = self.record(Event::Poisoned { cause: cause.text().into() });
        }
    }

    fn record(&mut self, event: Event) -> Result<(), SinkRefused> {
        self.runner.exchange.channel.record(event)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let exchange = &mut self.runner.exchange;
        exchange.inbox.close();
        exchange.channel.abandon();
        // It goes, recorded or not.
        let _ = exchange.channel.record(Event::Dropped);
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("image", &self.image)
            .field("poison", &self.poison)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// A sandbox may move between threads; so may what is made of it.
const _: fn() = || {
    fn sends<T: Send>() {}
    fn shares<T: Send + Sync>() {}
    sends::<Sandbox>();
    shares::<Image>();
    shares::<InterruptHandle>();
    shares::<Arc<str>>();
};
