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
//! * [`Registers`], [`PageSet`]: a guest's state between two runs, and
//!   [`checkpoint`]: the way back to it.
//! * [`clock`]: what the guest reads as the time, and what that means here.
//! * [`look`]: a guest that tells what the processor shows, for a backend.
//! * [`x86`]: the supervisor pages that a hardware backend needs, as bytes.
//! * [`conformance`]: the suite that every backend must pass; [`gauge`]: what its
//!   steps take.
//!
//! How to write a backend: `crates/hv/BACKENDS.md`.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod clock;
pub mod conformance;
pub mod exit;
pub mod gauge;
pub mod look;
mod memory;
mod pages;
mod registers;
pub mod space;
pub mod x86;

use std::fmt::Debug;
use std::sync::Arc;

use cellule_kick::{Kicker, SetupError};
use cellule_mem::{MapError, Sealed};

pub use clock::GuestClock;
pub use exit::{Exit, Fault, Unexpected};
pub use memory::{BadSlice, Memory};
pub use pages::PageSet;
pub use registers::{RESERVED_FLAG, Registers, USER_FLAGS};
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
    /// Whether [`Partition::dirty`] tells just the pages that were written, rather
    /// than all that exist.
    pub exact_dirty_pages: bool,
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

    /// Reads the registers of a guest that may be [diverted](Self::divert).
    ///
    /// # Errors
    ///
    /// [`RunError`] if [`position`](Self::position) has not returned `Some`
    /// since the last run, or the hypervisor itself failed.
    ///
    /// # Cost
    ///
    /// A hypercall at most.
    fn registers(&mut self) -> Result<Registers, RunError>;

    /// Lets a guest go on after [`Exit::Fault`], or where it may be
    /// [diverted](Self::divert), with these registers: [`Registers::start`] for
    /// a new start. Of the flags only the guest's own are taken.
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
    fn restart(&mut self, registers: &Registers) -> Result<(), RunError>;

    /// Keeps account from now on of the private pages that are written, by the
    /// guest or by the host through [`memory`](Self::memory). The second time
    /// does nothing.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the hypervisor refuses.
    ///
    /// # Cost
    ///
    /// Some hypercalls; then the first write to each page costs the guest a fault
    /// that the host's kernel handles.
    fn track(&mut self) -> Result<(), RunError>;

    /// Adds the pages that were written since they were [tracked](Self::track)
    /// or last [rearmed](Self::rearm). They stay writable, and in the account:
    /// asking again adds them again.
    ///
    /// No page that was written is missing; others may be there, unless
    /// [`Caps::exact_dirty_pages`] says not.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it is not tracked, or the hypervisor refuses.
    ///
    /// # Cost
    ///
    /// One or two hypercalls, and reading a bit for every private page.
    fn dirty(&mut self, pages: &mut PageSet) -> Result<(), RunError>;

    /// Takes pages out of the account, until they are written again.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it is not tracked, or the hypervisor refuses.
    ///
    /// # Cost
    ///
    /// One or two hypercalls, and for each of these pages a fault at its next write.
    fn rearm(&mut self, pages: &PageSet) -> Result<(), RunError>;

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
