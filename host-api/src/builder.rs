//! `SandboxBuilder`: what a sandbox is to be, checked before it exists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cellule_abi::{OwnedArgs, PAGE_BYTES, Schema};
use cellule_channel::{Channel, Event, HostFunction, IntoHostFunction, Policy, Sink, TracingSink};
use cellule_hv::{Gva, Memory};
use serde::Serialize;

use crate::backend::Backend;
use crate::error::BuildError;
use crate::exchange::Exchange;
use crate::image::Image;
use crate::layout::Sizes;
use crate::sandbox::Sandbox;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The heap, unless said otherwise: 64 MiB. Untouched memory costs nothing.
pub const DEFAULT_HEAP_BYTES: u64 = 64 * MIB;
/// The stack, unless said otherwise: 256 KiB.
pub const DEFAULT_STACK_BYTES: u64 = 256 * KIB;
/// The longest message, unless said otherwise: 16 MiB.
pub const DEFAULT_MESSAGE_BYTES: u64 = 16 * MIB;

/// Numbers the sandboxes of this process, for the audit trail.
static NEXT_SANDBOX: AtomicU64 = AtomicU64::new(1);

/// What a sandbox is to be. Made by [`Sandbox::builder`].
///
/// ```
/// use cellule::{Image, MemorySink, Policy, Sandbox};
///
/// # if cellule::Backend::Auto.probe().is_err() { return Ok(()) }
/// # let image = Image::from_bytes(cellule_test_guests::hosted())?;
/// let (sink, trail) = MemorySink::new(1000);
/// let mut sandbox = Sandbox::builder(&image)
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

    /// Sets what the guest may ask for. The default allows nothing.
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

    /// Creates the sandbox. The guest's first instruction runs in the first call.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: host functions that do not fit the image's imports, sizes
    /// out of range, no hypervisor, or a system that refuses.
    ///
    /// # Cost
    ///
    /// One VM and one vCPU; time and memory do not depend on the sizes. The
    /// first sandbox of an image and set of sizes also makes the page tables
    /// that all later ones share.
    pub fn build(mut self) -> Result<Sandbox, BuildError> {
        let sizes = self.sizes()?;
        let imports = self.bind()?;
        let hypervisor = self.backend.open()?;
        let id = NEXT_SANDBOX.fetch_add(1, Ordering::Relaxed);
        let mut channel = Channel::new(self.policy, imports, self.message_bytes, self.sink, id);
        let (layout, template) = self.image.template(&*hypervisor, sizes)?;
        let partition = template.partition()?;
        for hot in layout.hot() {
            partition.memory().populate(hot)?;
        }
        load(&self.image, partition.memory())?;
        channel.record(Event::Created { backend: hypervisor.name() })?;
        let exchange = Exchange::new(channel, layout, self.message_bytes);
        exchange.boot(partition.memory())?;
        Ok(Sandbox::new(self.image, partition, exchange, self.message_bytes))
    }

    fn sizes(&self) -> Result<Sizes, BuildError> {
        Ok(Sizes {
            heap: pages("heap", self.heap_bytes, 64 * KIB, 4 * GIB)?,
            stack: pages("stack", self.stack_bytes, 16 * KIB, GIB)?,
            message: pages("message limit", self.message_bytes, 4 * KIB, GIB)?,
        })
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

/// Copies the image's writable segments into the new sandbox's own memory.
fn load(image: &Image, memory: &Memory) -> Result<(), BuildError> {
    let segments = image.program().segments().iter();
    for segment in segments.filter(|s| s.protection() == cellule_image::Protection::ReadWrite) {
        memory.copy_in(Gva(segment.gva()), segment.bytes())?;
    }
    Ok(())
}
