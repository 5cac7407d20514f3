//! `SandboxBuilder`: what a sandbox is to be, checked before it exists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cellule_abi::page::{Boot, Entropy, SEED_BYTES, Seed, TaskFaults};
use cellule_abi::{OwnedArgs, PAGE_BYTES, Schema};
use cellule_channel::policy::Facts;
use cellule_channel::table::Kind;
use cellule_channel::{
    Channel, Event, HostFunction, IntoDeferredHostFunction, IntoHostFunction, Mailbox, Policy,
    Sink, TracingSink,
};
use cellule_hv::{Gva, Memory};
use serde::Serialize;

use crate::backend::Backend;
use crate::budget::Purse;
use crate::clock::{Time, Timekeeper};
use crate::error::BuildError;
use crate::exchange::Exchange;
use crate::image::Image;
use crate::inbox::Inbox;
use crate::layout::Sizes;
use crate::run::Runner;
use crate::sandbox::Sandbox;
use crate::stacks::{self, DEFAULT_TASK_STACKS};
use crate::trace::{MOST_ENTRIES, Recorder};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The heap, unless said otherwise: 64 MiB. Untouched memory costs nothing.
pub const DEFAULT_HEAP_BYTES: u64 = 64 * MIB;
/// The stack, unless said otherwise: 256 KiB.
pub const DEFAULT_STACK_BYTES: u64 = 256 * KIB;
/// The longest message, unless said otherwise: 16 MiB.
pub const DEFAULT_MESSAGE_BYTES: u64 = 16 * MIB;

/// How many deferred host calls may be in flight, unless said otherwise.
pub const DEFAULT_IN_FLIGHT: u32 = 256;

/// Numbers the sandboxes of this process, for the audit trail.
static NEXT_SANDBOX: AtomicU64 = AtomicU64::new(1);

/// What a sandbox is to be. Made by [`Sandbox::builder`].
///
/// ```
/// use cellule::{Image, MemorySink, Policy, Sandbox};
///
/// # let image = Image::from_bytes(cellule_test_guests::hosted())?;
/// let (sink, trail) = MemorySink::new(1000);
/// let mut sandbox = Sandbox::builder(&image)
/// #   .backend(cellule::Backend::for_development())
///     .host_function("double", |n: u64| n * 2)
///     .policy(Policy::deny_all().allow("double"))
///     .audit(sink)
///     .heap_bytes(1 << 20)
///     .build()?;
/// assert_eq!(sandbox.call::<u64>("double_by_host", (21_u64,))?, 42);
/// assert!(trail.records().len() >= 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is created before `build`"]
pub struct SandboxBuilder {
    image: Image,
    functions: Vec<HostFunction>,
    policy: Policy,
    sink: Box<dyn Sink>,
    backend: Backend,
    heap_bytes: u64,
    stack_bytes: u64,
    message_bytes: u64,
    task_stacks: Vec<(u64, u32)>,
    task_faults: TaskFaults,
    time: Time,
    trace_entries: u32,
    in_flight: u32,
    seed: Option<Seed>,
}

impl SandboxBuilder {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            image,
            functions: Vec::new(),
            policy: Policy::deny_all(),
            sink: Box::new(TracingSink),
            backend: Backend::Auto,
            heap_bytes: DEFAULT_HEAP_BYTES,
            stack_bytes: DEFAULT_STACK_BYTES,
            message_bytes: DEFAULT_MESSAGE_BYTES,
            task_stacks: DEFAULT_TASK_STACKS.to_vec(),
            task_faults: TaskFaults::EndSandbox,
            time: Time::Real,
            trace_entries: 0,
            in_flight: DEFAULT_IN_FLIGHT,
            seed: None,
        }
    }

    /// Registers a host function: a closure of up to eight owned arguments.
    ///
    /// Registering is not permitting: the policy decides. A closure that panics
    /// ends the call and poisons the sandbox.
    pub fn host_function<A, R>(
        mut self,
        name: impl Into<String>,
        f: impl IntoHostFunction<A, R>,
    ) -> Self
    where
        A: OwnedArgs,
        R: Schema + Serialize + Send + 'static,
    {
        self.functions.push(HostFunction::new(name, f));
        self
    }

    /// Registers a host function that answers later: a closure of a
    /// [`ReplyHandle`](crate::ReplyHandle) and up to eight owned arguments.
    ///
    /// The closure starts the work and returns; the handle answers at once or at any
    /// time, from any thread, in any order. The guest task that called waits alone:
    /// the guest's other tasks run on. As for the rest it is a host function like any
    /// other: the policy decides, a record is made before the closure runs and when
    /// the answer is taken in, and a closure that panics poisons the sandbox.
    ///
    /// ```
    /// use cellule::{Image, Policy, ReplyHandle, Sandbox};
    /// use std::sync::mpsc;
    ///
    /// # let image = Image::from_bytes(cellule_test_guests::hosted())?;
    /// let (jobs, worker) = mpsc::channel::<(ReplyHandle<u64>, u64)>();
    /// let worker = std::thread::spawn(move || {
    ///     worker.into_iter().for_each(|(reply, n)| reply.reply(n * 2));
    /// });
    /// let mut sandbox = Sandbox::builder(&image)
    /// #   .backend(cellule::Backend::for_development())
    ///     .deferred_host_function("double", move |reply: ReplyHandle<u64>, n: u64| {
    ///         // Should the worker be gone, the handle is dropped: the call fails.
    ///         let _ = jobs.send((reply, n));
    ///     })
    ///     .policy(Policy::deny_all().allow("double"))
    ///     .build()?;
    /// assert_eq!(sandbox.call::<u64>("double_by_host", (21_u64,))?, 42);
    /// # drop(sandbox);
    /// # worker.join().map_err(|_| "the worker panicked")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deferred_host_function<A, R>(
        mut self,
        name: impl Into<String>,
        f: impl IntoDeferredHostFunction<A, R>,
    ) -> Self
    where
        A: OwnedArgs,
        R: Schema + Serialize + Send + 'static,
    {
        self.functions.push(HostFunction::deferred(name, f));
        self
    }

    /// Sets how many deferred host calls may be in flight. One more is denied with
    /// [`HostError::OverBudget`](crate::HostError::OverBudget). The default is
    /// [`DEFAULT_IN_FLIGHT`].
    pub fn in_flight(mut self, most: u32) -> Self {
        self.in_flight = most;
        self
    }

    /// Sets what the guest may ask for. The default allows nothing.
    ///
    /// It is verified when the sandbox is built: a policy that contradicts itself, or
    /// names functions that the image does not import or that were not registered,
    /// is refused.
    ///
    /// ```
    /// use cellule::{BuildError, Image, Policy, Sandbox};
    ///
    /// # let image = Image::from_bytes(cellule_test_guests::hosted())?;
    /// let policy = Policy::from_toml(r#"
    ///     [function.duoble]
    ///     allow = true
    /// "#)?;
    /// let refused = Sandbox::builder(&image)
    ///     .host_function("double", |n: u64| n * 2)
    ///     .policy(policy)
    ///     .build();
    /// let Err(BuildError::Policy(findings)) = refused else { panic!("it should be refused") };
    /// assert!(findings[0].to_string().contains("did you mean `double`?"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets where audit records go. The default is [`TracingSink`].
    pub fn audit(mut self, sink: impl Sink + 'static) -> Self {
        self.sink = Box::new(sink);
        self
    }

    /// Sets the backend. The default is the best that the machine has.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Sets the heap's size in bytes, rounded up to pages: 64 KiB to 4 GiB.
    pub fn heap_bytes(mut self, bytes: u64) -> Self {
        self.heap_bytes = bytes;
        self
    }

    /// Sets the stack's size in bytes, rounded up to pages: 16 KiB to 1 GiB.
    pub fn stack_bytes(mut self, bytes: u64) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Sets the longest encoded argument list and result, in bytes, of calls in
    /// both directions: 4 KiB to 1 GiB.
    pub fn message_bytes(mut self, bytes: u64) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// Sets the stacks of the guest's tasks: up to three pairs of a size in bytes,
    /// rounded up to pages, 8 KiB to 64 MiB, and a count. At most 16384 stacks and
    /// 1 GiB. The default is [`DEFAULT_TASK_STACKS`]. Untouched memory costs nothing.
    pub fn task_stacks(mut self, sizes_and_counts: &[(u64, u32)]) -> Self {
        self.task_stacks = sizes_and_counts.to_vec();
        self
    }

    /// Sets what the panic or the fault of a task ends: the sandbox, unless said
    /// otherwise, or that task alone, if the guest's runtime can tell that it was
    /// the task's.
    pub fn task_faults(mut self, faults: TaskFaults) -> Self {
        self.task_faults = faults;
        self
    }

    /// Sets what makes the guest's time pass. The default is [`Time::Real`].
    pub fn time(mut self, time: Time) -> Self {
        self.time = time;
        self
    }

    /// Sets what the guest's random numbers come from. The default is fresh from
    /// the host's system for each sandbox.
    ///
    /// Two sandboxes of one seed draw the same numbers. With [`Time::Virtual`] as
    /// well, a guest does the same in each run, as long as its host functions do and
    /// it does not read the processor's counter by itself: for tests and replays. Who
    /// knows the seed knows the numbers, so keys are not to be made of one that is
    /// known.
    ///
    /// ```
    /// use cellule::{Image, Sandbox, Time};
    ///
    /// # let image = Image::from_bytes(cellule_test_guests::entropy())?;
    /// let draw = || -> Result<u64, Box<dyn std::error::Error>> {
    ///     let mut sandbox = Sandbox::builder(&image)
    ///         .seed([7; 32])
    ///         .time(Time::Virtual)
    /// #       .backend(cellule::Backend::for_development())
    ///         .build()?;
    ///     Ok(sandbox.call("random_u64", ())?)
    /// };
    /// assert_eq!(draw()?, draw()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// All zeros stand for no seed: [`SandboxBuilder::build`] then answers
    /// [`BuildError::ZeroSeed`].
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(Seed(seed));
        self
    }

    /// Keeps the latest events of the guest's scheduler, and as many of the host's,
    /// for [`Sandbox::trace`]: rounded up to a power of two, at most 65536, 0 for
    /// none. The guest's take 32 bytes each of its heap. The default is none, which
    /// costs nothing.
    pub fn trace(mut self, entries: u32) -> Self {
        self.trace_entries = entries;
        self
    }

    /// Creates the sandbox. The guest's first instruction runs in the first call.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: host functions that do not fit the image's imports, a policy
    /// that fits neither or contradicts itself, sizes out of range, no hypervisor, or a system that refuses, also entropy.
    ///
    /// # Cost
    ///
    /// One VM and one vCPU; time and memory do not depend on the sizes. The
    /// first sandbox of an image and set of sizes also makes the page tables
    /// that all later ones share.
    pub fn build(mut self) -> Result<Sandbox, BuildError> {
        let sizes = self.sizes()?;
        let trace_entries = self.trace_entries()?;
        let seed = self.chosen_or_fresh_seed()?;
        let facts = self.facts();
        let imports = self.bind()?;
        self.verify(&facts)?;
        let backend = self.backend.probe()?;
        let hypervisor = backend.open()?;
        let id = NEXT_SANDBOX.fetch_add(1, Ordering::Relaxed);
        let (layout, template) = self.image.template(&*hypervisor, sizes)?;
        let mut partition = template.partition()?;
        for hot in layout.hot() {
            partition.memory().populate(hot)?;
        }
        load(&self.image, partition.memory())?;
        let clock = Timekeeper::start(self.time, &mut *partition)?;
        let boot = Boot {
            vector_state: hypervisor.capabilities().vector_state,
            task_faults: self.task_faults as u32,
            trace_entries,
            ..layout.boot(clock.published())
        };
        let inbox = Arc::new(Inbox::new(partition.kicker()));
        let mailbox: Arc<dyn Mailbox> = Arc::<Inbox>::clone(&inbox);
        let purse = Purse::new(self.policy.budgets());
        let mut channel = Channel::new(self.policy, imports, self.message_bytes, self.sink, id)
            .of_image(self.image.digest())
            .deferring(self.in_flight, mailbox);
        channel.record(Event::Created { backend: hypervisor.name().into() })?;
        let recorder = (trace_entries > 0).then(|| Recorder::new(trace_entries, self.time));
        let exchange = Exchange::new(channel, inbox, layout, self.message_bytes, recorder, purse);
        exchange.boot(partition.memory(), &boot)?;
        exchange.give_entropy(partition.memory(), &Entropy { generation: 0, seed })?;
        let image = self.image.clone();
        let runner = Runner::new(partition, exchange, clock, self.task_faults, image);
        Ok(Sandbox::new(self.image, runner, backend, self.message_bytes))
    }

    pub(crate) fn sizes(&self) -> Result<Sizes, BuildError> {
        Ok(Sizes {
            heap: pages("heap", self.heap_bytes, 64 * KIB, 4 * GIB)?,
            stack: pages("stack", self.stack_bytes, 16 * KIB, GIB)?,
            message: pages("message limit", self.message_bytes, 4 * KIB, GIB)?,
            task_stacks: stacks::classes(&self.task_stacks)?,
        })
    }

    fn trace_entries(&self) -> Result<u32, BuildError> {
        match self.trace_entries {
            0 => Ok(0),
            some if some <= MOST_ENTRIES => Ok(some.next_power_of_two()),
            many => {
                let (count, most) = (u64::from(many), u64::from(MOST_ENTRIES));
                Err(BuildError::TooMany { what: "entries of a trace", count, most })
            }
        }
    }

    /// What the guest's random numbers come from: never zeros, which no guest takes.
    fn chosen_or_fresh_seed(&self) -> Result<Seed, BuildError> {
        let seed = match self.seed {
            Some(chosen) => chosen,
            None => fresh_seed()?,
        };
        if seed.0 == [0; SEED_BYTES] { Err(BuildError::ZeroSeed) } else { Ok(seed) }
    }

    /// What a policy is verified against.
    fn facts(&self) -> Facts {
        let deferred = self.functions.iter().filter(|function| function.kind() == Kind::Deferred);
        Facts::default()
            .imports(self.image.imports().map(|import| import.name()))
            .registered(self.functions.iter().map(HostFunction::name))
            .deferred(deferred.map(HostFunction::name))
            .message_bytes(self.message_bytes)
    }

    fn verify(&self, facts: &Facts) -> Result<(), BuildError> {
        match self.policy.verify(facts) {
            findings if findings.is_empty() => Ok(()),
            findings => Err(BuildError::Policy(findings)),
        }
    }

    /// Finds the registered function for every import, in the image's order.
    fn bind(&mut self) -> Result<Vec<HostFunction>, BuildError> {
        let mut registered = BTreeMap::new();
        for function in self.functions.drain(..) {
            if let Some(twice) = registered.insert(function.name().to_owned(), function) {
                return Err(BuildError::RegisteredTwice { function: twice.name().to_owned() });
            }
        }
        let mut bound = Vec::new();
        let mut missing = Vec::new();
        for import in self.image.imports() {
            let Some(function) = registered.remove(import.name()) else {
                missing.push((import.name().to_owned(), import.signature().to_owned()));
                continue;
            };
            let host = function.signature().text();
            if host != import.signature() {
                let (function, image) = (import.name().to_owned(), import.signature().to_owned());
                return Err(BuildError::ImportMismatch { function, image, host });
            }
            bound.push(function);
        }
        if missing.is_empty() { Ok(bound) } else { Err(BuildError::MissingImports { missing }) }
    }
}

fn pages(what: &'static str, bytes: u64, least: u64, most: u64) -> Result<u64, BuildError> {
    match (least..=most).contains(&bytes) {
        true => Ok(bytes.next_multiple_of(PAGE_BYTES as u64)),
        false => Err(BuildError::Size { what, bytes, least, most }),
    }
}

/// A seed from the system's generator: one system call.
fn fresh_seed() -> Result<Seed, BuildError> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(|error| BuildError::NoEntropy(error.into()))?;
    Ok(Seed(seed))
}

/// Copies the image's writable segments into the new sandbox's own memory.
fn load(image: &Image, memory: &Memory) -> Result<(), BuildError> {
    let segments = image.program().segments().iter();
    for segment in segments.filter(|s| s.protection() == cellule_image::Protection::ReadWrite) {
        memory.copy_in(Gva(segment.gva()), segment.bytes())?;
    }
    Ok(())
}
