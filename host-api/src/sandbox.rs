//! `Sandbox`: one partition, and calls into it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::SHORT_BYTES;
use cellule_abi::wire;
use cellule_abi::{Args, Schema, Signature};
use cellule_channel::Event;
use cellule_hv::{Counters, Exit, Fault, Gva, Partition};
use cellule_kick::Alarm;
use serde::de::DeserializeOwned;

use crate::builder::SandboxBuilder;
use crate::error::{CallError, Exception, GuestFault, HostFailure, Poison};
use crate::exchange::{Exchange, Returned};
use crate::function::Function;
use crate::image::Image;
use crate::interrupt::InterruptHandle;
use crate::stats::Stats;

/// A guest program in a virtual machine of its own.
///
/// The guest runs only inside a call, on the calling thread. A sandbox can move
/// between threads. Whatever the guest does, it can only end itself: the
/// sandbox is then *poisoned* and refuses further calls.
///
/// ```
/// use cellule::{Image, Sandbox};
///
/// # if cellule::Backend::Auto.probe().is_err() { return Ok(()) }
/// let image = Image::from_bytes(cellule_test_guests::basics())?;
/// let mut sandbox = Sandbox::builder(&image).build()?;
/// assert_eq!(sandbox.call::<i32>("add", (2, 3))?, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sandbox {
    image: Image,
    partition: Box<dyn Partition>,
    exchange: Exchange,
    message_bytes: u64,
    calls: u64,
    poison: Option<Poison>,
    /// Reused for every call's encoded arguments.
    head: Vec<u8>,
}

impl Sandbox {
    /// Starts to describe a sandbox for this image.
    pub fn builder(image: &Image) -> SandboxBuilder {
        SandboxBuilder::new(image.clone())
    }

    pub(crate) fn new(
        image: Image,
        partition: Box<dyn Partition>,
        exchange: Exchange,
        message_bytes: u64,
    ) -> Self {
        let head = Vec::new();
        Self { image, partition, exchange, message_bytes, calls: 0, poison: None, head }
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
    /// [`Sandbox::call_within`] and [`Sandbox::interrupt_handle`].
    ///
    /// # Cost
    ///
    /// One exit, one hypervisor call, and one more of each for every host call;
    /// one copy of the arguments, one of the result. The names are looked up
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
    /// # if cellule::Backend::Auto.probe().is_err() { return Ok(()) }
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// # let mut sandbox = Sandbox::builder(&image).build()?;
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
    /// # if cellule::Backend::Auto.probe().is_err() { return Ok(()) }
    /// # let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// # let mut sandbox = Sandbox::builder(&image).build()?;
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

    /// A handle that ends a call from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        InterruptHandle(self.partition.kicker())
    }

    /// What was counted since the sandbox was created.
    pub fn stats(&self) -> Stats {
        let Counters { exits, hypercalls } = self.partition.counters();
        Stats { exits, hypervisor_calls: hypercalls, calls: self.calls, ..self.exchange.stats }
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
        if let Some(cause) = self.poison {
            return Err(CallError::Poisoned { cause });
        }
        if self.partition.is_kicked() {
            self.partition.clear_kick();
            return Err(CallError::Interrupted { started: false });
        }
        let (id, tail) = self.begin(index, args)?;
        let posted = self.post(id, index, tail);
        let outcome = posted.and_then(|()| self.run(limit)).and_then(|r| self.finish(id, r));
        if let Err(error) = &outcome {
            self.fail(id, error);
        }
        outcome
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
        self.exchange.channel.record(began).map_err(CallError::NotRecorded)?;
        self.calls += 1;
        Ok((id, tail))
    }

    /// Gives the guest the call that was begun.
    fn post(&mut self, id: u64, index: u32, tail: &[u8]) -> Result<(), CallError> {
        if self.head.len() + tail.len() > SHORT_BYTES {
            // The place of long arguments is late memory.
            self.partition.extend().map_err(HostFailure::Run)?;
        }
        self.exchange.post_call(self.partition.memory(), id, index, [&self.head, tail])
    }

    fn finish<R: Schema + DeserializeOwned>(
        &mut self,
        call: u64,
        returned: Returned,
    ) -> Result<R, CallError> {
        let payload = match returned {
            Returned::Result(payload) => payload,
            Returned::TooLarge(bytes) => {
                return Err(CallError::ResultTooLarge { bytes, limit: self.message_bytes });
            }
        };
        let result_bytes = payload.len() as u64;
        let value = wire::decode(payload).map_err(GuestFault::BadResult)?;
        let record = Event::CallReturned { call, result_bytes };
        self.exchange.channel.record(record).map_err(HostFailure::Audit)?;
        Ok(value)
    }

    fn fail(&mut self, call: u64, error: &CallError) {
        let channel = &mut self.exchange.channel;
        // The call has failed already; a sink that refuses cannot undo that.
        let _ = channel.record(Event::CallFailed { call, reason: error.to_string() });
        if let Some(cause) = error.poisons() {
            self.poison = Some(cause);
            let _ = channel.record(Event::Poisoned { cause: cause.text() });
        }
    }

    /// Runs the guest until it returns from the call, or ends otherwise.
    fn run(&mut self, limit: Option<Duration>) -> Result<Returned, CallError> {
        let timed = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        let _alarm = match timed {
            Some((_, deadline)) => Some(Alarm::at(deadline).map_err(HostFailure::Alarm)?),
            None => None,
        };
        loop {
            if let Some((limit, deadline)) = timed
                && Instant::now() >= deadline
            {
                return Err(CallError::DeadlineExceeded { limit });
            }
            match self.partition.run().map_err(HostFailure::Run)? {
                Exit::Doorbell(value) => {
                    if let Some(returned) = self.doorbell(value)? {
                        return Ok(returned);
                    }
                }
                Exit::Kicked if self.partition.is_kicked() => {
                    self.partition.clear_kick();
                    return Err(CallError::Interrupted { started: true });
                }
                // The alarm: the deadline is looked at above.
                Exit::Kicked => {}
                Exit::Fault(fault) => return Err(self.exception(fault).into()),
                Exit::Unexpected(what) => return Err(GuestFault::Stopped(what).into()),
            }
        }
    }

    fn doorbell(&mut self, value: u8) -> Result<Option<Returned>, CallError> {
        let memory = self.partition.memory();
        let waits = match Doorbell::try_from(value) {
            Ok(Doorbell::Submit) => false,
            Ok(Doorbell::Wait) => true,
            Ok(Doorbell::Abort) => return Err(self.exchange.abort(memory)),
            Ok(Doorbell::Extend) => {
                self.partition.extend().map_err(HostFailure::Run)?;
                return Ok(None);
            }
            Err(value) => return Err(GuestFault::UnknownDoorbell { value }.into()),
        };
        self.exchange.drain(memory)?;
        if let Some(returned) = self.exchange.take_returned() {
            return Ok(Some(returned));
        }
        if waits && !self.exchange.has_unread(memory)? {
            return Err(GuestFault::WaitsForNothing.into());
        }
        Ok(None)
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

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It goes, recorded or not.
        let _ = self.exchange.channel.record(Event::Dropped);
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
