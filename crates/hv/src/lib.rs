//! What any hypervisor must do for Cellule, in our own words.
//!
//! A [`Hypervisor`] makes a [`Template`] of an [`AddressSpace`]: everything
//! that all partitions of one image and layout share. A template makes
//! [`Partition`]s: one VM, one vCPU, private memory, a guest that starts in
//! ring 3 and never leaves it but by an [`Exit`].
//!
//! What a host may do with a guest, and what must have come before:
//!
//! ```text
//!        +-----------------------------------------------------------+
//!        v                                                           |
//!   1 run --> Doorbell, Kicked --> 2 position --> Some --> 3 divert -+
//!     | ^            |                  |           |                |
//!     | +------------+------------------+ None -----+--> 4 restart --+
//!     |                                                     ^
//!     +-----> Fault ----------------------------------------+
//!     +-----> Unexpected: it goes no further
//! ```
//!
//! 1 [`Partition::run`], 2 [`Partition::position`], 3 [`Partition::divert`],
//! 4 [`Partition::restart`]. All but `run` can be left out, and a partition
//! that is new stands as after `position`. So a host preempts a guest: it kicks
//! it, takes its position, makes a note of that where the guest finds it, and
//! diverts it to code that saves everything.
//!
//! * [`space`]: which guest addresses exist, with what protection, and the
//!   only way from a guest's claim ([`GuestSlice`]) to memory.
//! * [`exit`]: why a partition stopped.
//! * [`clock`]: what the guest reads as the time, and what that means here.
//! * [`x86`]: the supervisor pages that a hardware backend needs, as bytes.
//! * [`conformance`]: the suite that every backend must pass.
#![forbid(unsafe_code)]

pub mod clock;
pub mod conformance;
pub mod exit;
pub mod space;
pub mod x86;

use std::fmt::Debug;
use std::sync::Arc;

use cellule_kick::{Kicker, SetupError};
use cellule_mem::{MapError, Region, Sealed};

pub use clock::GuestClock;
pub use exit::{Exit, Fault, Unexpected};
pub use space::{Access, AddressSpace, Backing, GuestSlice, Gva, Mapping, Protection};

/// A way to run partitions.
pub trait Hypervisor: Debug + Send + Sync {
    /// A short lower-case name: `kvm`.
    fn name(&self) -> &'static str;

    /// What its guests may use.
    ///
    /// # Cost
    ///
    /// A backend may have to make a guest to see what the processor does (about
    /// two milliseconds), if there is no template yet; then nothing.
    fn capabilities(&self) -> Caps;

    /// Prepares what all partitions of this address space share.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the address space does not fit or memory is short.
    ///
    /// # Cost
    ///
    /// The first one pays for what [`capabilities`](Self::capabilities) may.
    fn template(&self, plan: Plan) -> Result<Arc<dyn Template>, CreateError>;
}

/// What guests may use, beyond what every x86-64 processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// The state components that are switched on, as in XCR0 (Intel SDM volume
    /// 1, section 13.1): what XSAVE must save for a guest to go on later. Zero
    /// if there is no XSAVE: then FXSAVE saves all that there is.
    ///
    /// A guest must not ask XGETBV instead: where ring 3 runs on the bare
    /// processor it may show more than a guest can count on.
    pub vector_state: u64,
}

/// What a [`Template`] is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which guest addresses exist.
    pub space: Arc<AddressSpace>,
    /// The bytes behind [`Backing::Shared`]: the same physical pages in every partition.
    pub shared: Arc<Sealed>,
    /// How many bytes of private memory, whole pages, a guest can reach from the
    /// start; the rest once it is [extended](Partition::extend).
    pub early_len: u64,
    /// Where and how a guest starts.
    pub start: Start,
}

/// The first register values of a guest; all other general ones are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first instruction.
    pub entry: Gva,
    /// The stack pointer: 16-byte aligned.
    pub stack: Gva,
    /// The first argument (RDI).
    pub argument: Gva,
}

/// Where a guest stands: between two instructions of ring 3.
///
/// Both are what the guest made of them: they need not be addresses of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The next instruction.
    pub rip: Gva,
    /// The stack pointer. The 128 bytes below it belong to the guest, too
    /// (System V ABI, x86-64, section 3.2.2).
    pub rsp: Gva,
}

/// Everything that partitions of one image and layout share.
pub trait Template: Debug + Send + Sync {
    /// Makes a partition whose private memory is zero.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the system refuses memory, a VM or a vCPU.
    fn partition(&self) -> Result<Box<dyn Partition>, CreateError>;
}

/// One VM with one vCPU and its private memory.
pub trait Partition: Debug + Send {
    /// The guest's memory as the host sees it.
    fn memory(&self) -> &Memory;

    /// Runs the guest until it stops.
    ///
    /// After [`Exit::Doorbell`] and [`Exit::Kicked`] the guest can go on by
    /// running again; after [`Exit::Fault`] only once it was
    /// [restarted](Self::restart); after any other it must not be run.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the hypervisor itself failed.
    ///
    /// # Blocking
    ///
    /// For as long as the guest likes, unless kicked.
    fn run(&mut self) -> Result<Exit, RunError>;

    /// Tells where the guest stands, after [`Exit::Doorbell`] (behind the `out`),
    /// after [`Exit::Kicked`], and before the first run.
    ///
    /// `None` means that an exception of the guest's is under way: it stands in
    /// the backend's own code, or is about to. It must simply be run on, and
    /// will soon report a fault.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the hypervisor itself failed, or after another exit.
    ///
    /// # Cost
    ///
    /// None if the guest was stopped while it ran. At a doorbell, also if it
    /// was kicked there before it was entered again, a hypercall that completes
    /// the `out`; the guest does not run.
    fn position(&mut self) -> Result<Option<Position>, RunError>;

    /// Lets the guest go on somewhere else, with all other registers as they
    /// are: general, flags, vector.
    ///
    /// The flags are those of the code that was stopped: the direction flag,
    /// too, which compiled code expects to be clear.
    ///
    /// # Errors
    ///
    /// [`RunError`] if [`position`](Self::position) has not returned `Some`
    /// since the last run.
    ///
    /// # Cost
    ///
    /// None: the registers travel with the next run.
    fn divert(&mut self, to: Position) -> Result<(), RunError>;

    /// Lets a guest go on after [`Exit::Fault`], or where it may be
    /// [diverted](Self::divert), with the registers of a new one: `start`'s, the
    /// flags clear, and all other general registers zero.
    ///
    /// Memory stays as it is, as do the x87, vector and MXCSR registers. Late
    /// memory is there if the partition was [extended](Self::extend).
    ///
    /// # Errors
    ///
    /// [`RunError`] if it neither faulted nor may be diverted.
    ///
    /// # Cost
    ///
    /// None: the registers travel with the next run.
    fn restart(&mut self, start: Start) -> Result<(), RunError>;

    /// Reads the clock that the guest reads with `rdtsc`, and how it runs.
    ///
    /// What `tsc_khz` and `tsc_offset` say holds for as long as the partition
    /// lives, if the machine has a stable time stamp counter.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the hypervisor does not tell, or tells what a guest does
    /// not see.
    ///
    /// # Cost
    ///
    /// Nothing until it is asked for. The first time for a partition costs at
    /// most three hypercalls; then it only reads clocks.
    fn clock(&mut self) -> Result<GuestClock, RunError>;

    /// Lets the guest reach all of its private memory. The first time costs a
    /// hypercall, later ones nothing.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the hypervisor refuses.
    fn extend(&mut self) -> Result<(), RunError>;

    /// A handle that stops [`Partition::run`] from any thread.
    fn kicker(&self) -> Kicker;

    /// Forgets kicks that were asked for.
    fn clear_kick(&mut self);

    /// Whether a kick was asked for and not yet cleared.
    fn is_kicked(&self) -> bool;

    /// What was counted since the partition was made.
    fn counters(&self) -> Counters;
}

/// What a partition cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that the guest was left, kicks included.
    pub exits: u64,
    /// Calls into the hypervisor after creation.
    pub hypercalls: u64,
}

/// The two regions of a partition, and which guest addresses lie where.
#[derive(Debug)]
pub struct Memory {
    space: Arc<AddressSpace>,
    shared: Arc<Region>,
    shared_start: usize,
    private: Arc<Region>,
    private_start: usize,
}

/// A claim of the guest's that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest named {slice}, which is not {need} memory of its own")]
pub struct BadSlice {
    /// What the guest named.
    pub slice: GuestSlice,
    /// What it would have to be.
    pub need: Access,
}

impl Memory {
    /// Memory of an address space whose shared and private parts start at an
    /// offset in each region; what lies before is the backend's own.
    pub fn new(
        space: Arc<AddressSpace>,
        (shared, shared_start): (Arc<Region>, usize),
        (private, private_start): (Arc<Region>, usize),
    ) -> Self {
        Self { space, shared, shared_start, private, private_start }
    }

    /// The address space.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Returns a copy of bytes that the guest may read.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if they are not all within one mapping.
    ///
    /// # Cost
    ///
    /// One copy; nothing is allocated before the claim is checked.
    pub fn copy_out(&self, slice: GuestSlice) -> Result<Vec<u8>, BadSlice> {
        let bad = BadSlice { slice, need: Access::Read };
        let (region, offset, len) = self.locate(slice, Access::Read).ok_or(bad)?;
        region.read_vec(offset, len).map_err(|_| bad)
    }

    /// Fills `to` with a copy of what lies at `gva`.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not all within one mapping.
    pub fn copy_into(&self, gva: Gva, to: &mut [u8]) -> Result<(), BadSlice> {
        let slice = GuestSlice { gva, len: to.len() as u64 };
        let bad = BadSlice { slice, need: Access::Read };
        let (region, offset, _) = self.locate(slice, Access::Read).ok_or(bad)?;
        region.read(offset, to).map_err(|_| bad)
    }

    /// Copies `from` to memory that the guest may write.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not all within one writable mapping.
    pub fn copy_in(&self, gva: Gva, from: &[u8]) -> Result<(), BadSlice> {
        let slice = GuestSlice { gva, len: from.len() as u64 };
        let bad = BadSlice { slice, need: Access::Write };
        let (region, offset, _) = self.locate(slice, Access::Write).ok_or(bad)?;
        region.write(offset, from).map_err(|_| bad)
    }

    /// Makes pages be there before the guest touches them. Only advice.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if they are not all within one writable mapping.
    pub fn populate(&self, slice: GuestSlice) -> Result<(), BadSlice> {
        let bad = BadSlice { slice, need: Access::Write };
        let (region, offset, len) = self.locate(slice, Access::Write).ok_or(bad)?;
        region.populate(offset, len).map_err(|_| bad)
    }

    /// Reads the aligned word at `gva`, with acquire ordering.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not aligned memory of the guest's.
    pub fn load_u32(&self, gva: Gva) -> Result<u32, BadSlice> {
        let slice = GuestSlice { gva, len: 4 };
        let bad = BadSlice { slice, need: Access::Read };
        let (region, offset, _) = self.locate(slice, Access::Read).ok_or(bad)?;
        region.load_u32(offset).map_err(|_| bad)
    }

    /// Writes the aligned word at `gva`, with release ordering.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not aligned memory that the guest may write.
    pub fn store_u32(&self, gva: Gva, value: u32) -> Result<(), BadSlice> {
        let slice = GuestSlice { gva, len: 4 };
        let bad = BadSlice { slice, need: Access::Write };
        let (region, offset, _) = self.locate(slice, Access::Write).ok_or(bad)?;
        region.store_u32(offset, value).map_err(|_| bad)
    }

    fn locate(&self, slice: GuestSlice, need: Access) -> Option<(&Region, usize, usize)> {
        let (backing, len) = self.space.resolve(slice, need)?;
        let (region, start, offset) = match backing {
            Backing::Shared(offset) => (&self.shared, self.shared_start, offset),
            Backing::Private(offset) => (&self.private, self.private_start, offset),
        };
        Some((region, start.checked_add(usize::try_from(offset).ok()?)?, len))
    }
}

/// A template or a partition could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// The signal that stops vCPUs could not be had.
    #[error(transparent)]
    Kick(#[from] SetupError),
    /// The address space is not one that this backend can make.
    #[error("the address space cannot be built: {0}")]
    Space(#[from] space::SpaceError),
    /// The hypervisor refused a step.
    #[error("the hypervisor refused to {step}: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

/// The hypervisor failed while a guest ran, through no fault of the guest's.
#[derive(Debug, thiserror::Error)]
#[error("the hypervisor failed to {step}: {source}")]
pub struct RunError {
    /// What was tried.
    pub step: &'static str,
    /// What it said.
    pub source: std::io::Error,
}
