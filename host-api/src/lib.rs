//! Embeddable micro-VM sandboxes: load a guest image and call its functions
//! inside tiny virtual machines.
//!
//! ```
//! use cellule::{Image, Policy, Sandbox};
//!
//! # let guest = cellule_test_guests::hosted();
//! let image = Image::from_bytes(guest)?;
//! let mut sandbox = Sandbox::builder(&image)
//! #   .backend(cellule::Backend::for_development())
//!     .host_function("double", |n: u64| n * 2)
//!     .policy(Policy::deny_all().allow("double"))
//!     .build()?;
//! let answer: u64 = sandbox.call("double_by_host", (21_u64,))?;
//! assert_eq!(answer, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it hangs together
//!
//! [`Image`] (parsed, checked and relocated once) → [`SandboxBuilder`]
//! (functions, policy, sizes, time, backend) → [`Sandbox`] → calls and runs. A
//! host function answers at once, or later by a [`ReplyHandle`]. Guests are
//! written with the crate `cellule-guest` and compiled with `cellule-build`.
//!
//! # Words
//!
//! * **guest, host**: the program in the sandbox; the program that links this crate.
//! * **partition**: one virtual machine with one virtual processor (**vCPU**).
//! * **gva, gpa**: a guest virtual, a guest physical address.
//! * **exit**: the guest stops and the host runs; the unit that calls cost.
//! * **doorbell**: the one port that a guest may write; its only way out.
//! * **upcall**: the host makes the guest go on at its scheduler, as a kernel
//!   delivers a signal: at a deadline, or when a host function answers late.
//! * **claim**: what a guest says (an address, a length, an id), until it is checked.
//! * **verdict**: what the policy says of a host call.
//! * **poisoned**: the sandbox's guest failed; it takes no more calls.
//!
//! What isolation is promised, and against whom: `host-api/THREATS.md`.
#![forbid(unsafe_code)]

mod anatomy;
mod backend;
mod budget;
mod builder;
mod chrome;
mod clock;
mod error;
mod examine;
mod exchange;
mod function;
mod image;
mod inbox;
mod interrupt;
mod layout;
mod page;
mod run;
mod sandbox;
mod stacks;
mod stats;
mod tasks;
mod text;
mod trace;

/// What host and guest agree on; for `#[derive(Schema)]` and the curious.
pub use cellule_abi as abi;
pub use cellule_abi::page::TaskFaults;
pub use cellule_abi::schema::Schema;
pub use cellule_abi::tasks::TraceEvent as TaskEvent;
pub use cellule_abi::{Args, HostError, OwnedArgs, Signature};
/// The audit trail: its records, sinks and files, and how a log is checked.
pub use cellule_channel::audit;
/// Policies: rules, files, static verification. The file's schema is
/// `crates/policy/SCHEMA.md`.
pub use cellule_channel::policy;
pub use cellule_channel::{
    Event, IntoDeferredHostFunction, IntoHostFunction, LogLevel, MemorySink, Outcome, Policy,
    Record, ReplyHandle, Sink, SinkRefused, Stop, TaskFault, TracingSink, Trail, Verdict,
};
pub use cellule_derive::SchemaForHost as Schema;
pub use cellule_hv::{Fault, Gva, Protection};

pub use anatomy::{Region, SegmentInfo};
pub use backend::{BACKEND_VARIABLE, Backend, Isolation, NoBackend, UnknownBackend};
pub use builder::{
    DEFAULT_HEAP_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_MESSAGE_BYTES, DEFAULT_STACK_BYTES,
    SandboxBuilder,
};
pub use clock::Time;
pub use error::{BuildError, CallError, Exception, GuestFault, HostFailure, Poison};
pub use examine::{Examination, ExamineError};
pub use function::Function;
pub use image::{FunctionInfo, Image, LoadError};
pub use interrupt::InterruptHandle;
pub use sandbox::{Idle, Sandbox};
pub use stacks::DEFAULT_TASK_STACKS;
pub use stats::Stats;
pub use trace::{ExitKind, Trace, TraceEvent, Traced};
