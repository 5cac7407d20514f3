//! Why a sandbox could not be built, and why a call did not return.
//!
//! Whose doing it was is part of the type: [`GuestFault`] is the guest's,
//! [`HostFailure`] the environment's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cellule_abi::HostError;
use cellule_abi::wire::{DecodeError, EncodeError};
use cellule_channel::policy::Finding;
use cellule_channel::{BrokenRing, SinkRefused};
use cellule_hv::{BadSlice, CreateError, Fault, Gva, RunError, Unexpected};
use cellule_kick::AlarmError;

use crate::backend::NoBackend;

/// A sandbox could not be built. Nothing ran.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no hypervisor.
    #[error(transparent)]
    NoBackend(#[from] NoBackend),
    /// The image imports host functions that were not registered.
    #[error(
        "the image imports host functions that were not registered: {}; register them with \
         `SandboxBuilder::host_function` (the policy still decides whether they may be called)",
        list(.missing)
    )]
    MissingImports {
        /// Name and signature of each.
        missing: Vec<(String, String)>,
    },
    /// A registered host function has another signature than the import.
    #[error("host function `{function}`: the image imports {image}, the host registered {host}")]
    ImportMismatch {
        /// Its name.
        function: String,
        /// The signature in the image.
        image: String,
        /// The signature of the closure.
        host: String,
    },
    /// Two host functions of one name were registered.
    #[error("host function `{function}` was registered twice")]
    RegisteredTwice {
        /// Its name.
        function: String,
    },
    /// The policy contradicts itself, or names functions that image or host do not
    /// know: all that is wrong with it.
    #[error("the policy is refused: {}", lines(.0))]
    Policy(Vec<Finding>),
    /// A size is not within its limits.
    #[error("{what} of {bytes} bytes: must be between {least} and {most}")]
    Size {
        /// Which size.
        what: &'static str,
        /// What was asked for.
        bytes: u64,
        /// The least that is possible.
        least: u64,
        /// The most that is possible.
        most: u64,
    },
    /// There would be too many of something.
    #[error("{count} {what}: at most {most} are possible")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        count: u64,
        /// How many there can be.
        most: u64,
    },
    /// The system gave no entropy for the guest's seed.
    #[error(
        "the system gave no entropy for the guest's random numbers ({0}): try again, or choose \
         a seed with `SandboxBuilder::seed`"
    )]
    NoEntropy(#[source] std::io::Error),
    /// The chosen seed is all zero, which stands for none.
    #[error("a seed of 32 zero bytes stands for none: choose another, or none for a fresh one")]
    ZeroSeed,
    /// The audit sink did not take the record of the creation.
    #[error(transparent)]
    Audit(#[from] SinkRefused),
    /// The system has too few file descriptors left: a sandbox needs two.
    #[error(
        "no file descriptor left for a sandbox, which needs two: raise the limit \
         (ulimit -n, or setrlimit RLIMIT_NOFILE) or drop sandboxes: {0}"
    )]
    NoDescriptors(#[source] std::io::Error),
    /// The hypervisor or the system refused.
    #[error("cannot create a sandbox: {0}")]
    Create(#[source] CreateError),
    /// The new virtual machine's clock cannot be read.
    #[error("cannot read a sandbox's clock: {0}")]
    Clock(#[from] RunError),
    /// The new sandbox's memory cannot be reached.
    #[error("cannot prepare a sandbox's memory: {0}")]
    Memory(#[from] BadSlice),
}

impl From<CreateError> for BuildError {
    fn from(error: CreateError) -> Self {
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        match error {
            CreateError::Refused { source, .. }
                if matches!(source.raw_os_error(), Some(EMFILE | ENFILE)) =>
            {
                Self::NoDescriptors(source)
            }
            other => Self::Create(other),
        }
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn list(functions: &[(String, String)]) -> String {
    let texts: Vec<_> = functions.iter().map(|(name, text)| format!("`{name}`: {text}")).collect();
    texts.join(", ")
}

/// A call did not return a value, or a run did not stop in order.
///
/// [`CallError::poisons`] tells whether the sandbox can still be called.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The image exports no function of this name. Nothing ran.
    #[error("the image exports no function `{name}`; it exports {}", names(.exports))]
    UnknownFunction {
        /// The name.
        name: String,
        /// The names that there are.
        exports: Vec<String>,
    },
    /// The function has another signature. Nothing ran.
    #[error("guest function `{function}`: the image exports {image}, the host calls {host}")]
    Mismatch {
        /// Its name.
        function: String,
        /// The signature in the image.
        image: String,
        /// The signature of the call.
        host: String,
    },
    /// The function handle was resolved in a sandbox of another image. Nothing ran.
    #[error("the function handle `{function}` belongs to another image than this sandbox's")]
    OtherImage {
        /// Its name.
        function: Arc<str>,
    },
    /// The sandbox takes no calls any more. Nothing ran.
    #[error("the sandbox is poisoned ({cause}): create a new one")]
    Poisoned {
        /// What poisoned it.
        cause: Poison,
    },
    /// The audit sink did not take the record of the call. Nothing ran.
    #[error("the call was not made: {0}")]
    NotRecorded(#[source] SinkRefused),
    /// The arguments could not be encoded. Nothing ran.
    #[error("arguments: {0}")]
    Arguments(#[from] EncodeError),
    /// The arguments are longer than the sandbox's message limit. Nothing ran.
    #[error(
        "the arguments take {bytes} bytes, the sandbox's limit is {limit}: raise \
         `SandboxBuilder::message_bytes` or send less at a time"
    )]
    ArgumentsTooLarge {
        /// Their length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The guest's result is longer than the sandbox's message limit. It is lost.
    #[error(
        "the result takes {bytes} bytes, the sandbox's limit is {limit}: raise \
         `SandboxBuilder::message_bytes` or return less at a time"
    )]
    ResultTooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The guest did what it must not, or gave up. The sandbox is poisoned.
    #[error("guest: {0}")]
    Guest(#[from] GuestFault),
    /// An [`crate::InterruptHandle`] ended the call. The sandbox is poisoned,
    /// unless the guest had not started.
    #[error("the call was interrupted")]
    Interrupted {
        /// Whether the guest had started to run.
        started: bool,
    },
    /// The call's time is over. The sandbox is poisoned.
    #[error("the call was not over within its {limit:?}")]
    DeadlineExceeded {
        /// The time that it was given.
        limit: Duration,
    },
    /// The task that served the call was killed, or failed and ended alone. The
    /// guest and its other tasks go on.
    #[error("the guest's task that served the call was ended")]
    TaskEnded,
    /// A host function panicked. The sandbox is poisoned.
    #[error("the host function `{function}` panicked")]
    HostFunctionPanicked {
        /// Its name.
        function: Arc<str>,
    },
    /// The environment failed during the call. The sandbox is poisoned.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

fn names(exports: &[String]) -> String {
    match exports {
        [] => "none".to_owned(),
        some => some.join(", "),
    }
}

/// What a guest did that ended it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// A processor exception.
    #[error("{0}")]
    Exception(Box<Exception>),
    /// It panicked. The text is the guest's, with control characters escaped.
    #[error("panicked: {message}")]
    Panic {
        /// Message and location.
        message: String,
    },
    /// An allocation failed.
    #[error("out of memory: {bytes} bytes could not be allocated ({message})")]
    OutOfMemory {
        /// How much was asked for last.
        bytes: u64,
        /// The guest's text, with control characters escaped.
        message: String,
    },
    /// It found its side of the channel in an impossible state.
    #[error("found the channel page corrupted: {message}")]
    BadChannel {
        /// The guest's text, with control characters escaped.
        message: String,
    },
    /// It left the VM more often in one call or run than its policy allows.
    #[error(
        "came out of the VM {limit} times without an end, and its policy allows no more: raise \
         `call_exits`, or see what it asks for so often"
    )]
    TooManyExits {
        /// The limit.
        limit: u64,
    },
    /// It asked for a host function that is denied to it, and the policy says that a
    /// denial ends the guest.
    #[error("asked for the host function `{function}` and was ended, as the policy says: {code}")]
    Denied {
        /// Its name; empty if it named none that there is.
        function: Arc<str>,
        /// Why.
        code: HostError,
    },
    /// It broke a ring.
    #[error("broke the channel: {0}")]
    BrokenRing(#[from] BrokenRing),
    /// It named memory that is not its own.
    #[error("broke the channel: {0}")]
    BadSlice(#[from] BadSlice),
    /// A record in the ring is of an unknown kind, or of no use.
    #[error("broke the channel: request {id} has {field} {value:#x}, which means nothing here")]
    BadRequest {
        /// The record's id.
        id: u64,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// It wrote an unknown operation to the doorbell.
    #[error("rang the doorbell with the unknown operation {value:#x}")]
    UnknownDoorbell {
        /// The byte.
        value: u8,
    },
    /// It gave up without a known reason.
    #[error("gave up with the unknown code {code:#x}")]
    UnknownAbort {
        /// The code.
        code: u32,
    },
    /// It waits in a call, and nothing is under way that could wake it.
    #[error(
        "waits for ever: every task waits, and no timer, reply or call is under way that could \
         wake one"
    )]
    WaitsForNothing,
    /// It published a task block that cannot be one.
    #[error("named {gva} as its task block: not 128 aligned bytes of its own writable memory")]
    BadTaskBlock {
        /// The address.
        gva: Gva,
    },
    /// A field of its task block is no address at which a guest could go on.
    #[error("wants to go on at the {field} {gva}, which is not below {limit}")]
    BadTarget {
        /// Which field.
        field: &'static str,
        /// Its value.
        gva: Gva,
        /// The first address beyond what a guest can have.
        limit: Gva,
    },
    /// It consumes no completions: there is no slot left for a call.
    #[error("consumes no completions: its ring is full")]
    ReadsNothing,
    /// It says that it cannot make sense of the call.
    #[error("did not accept the call of its own export: {what}")]
    RefusedCall {
        /// Why, in words.
        what: &'static str,
    },
    /// Its result is not what its signature says.
    #[error("returned something else than its signature says: {0}")]
    BadResult(#[from] DecodeError),
    /// It stopped the processor in another way.
    #[error("stopped the processor: {0}")]
    Stopped(Unexpected),
}

/// A processor exception in a guest, with what is known of the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Vector, error code and addresses.
    pub fault: Fault,
    /// For a page fault: what lies at the address.
    pub target: Option<String>,
    /// The function that the instruction is in, if the image has symbols.
    pub function: Option<String>,
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { vector, error_code, address, rip, .. } = self.fault;
        write!(f, "{} (vector {vector}, error code {error_code:#x})", self.fault.mnemonic())?;
        if let (Some(address), Some(target)) = (address, &self.target) {
            write!(f, ": may not {} at {address}, which is {target};", self.fault.attempt())?;
        }
        write!(f, " at {rip}")?;
        match &self.function {
            Some(function) => write!(f, " in {function}"),
            None => Ok(()),
        }
    }
}

/// The environment failed, through no fault of guest or caller.
#[derive(Debug, thiserror::Error)]
pub enum HostFailure {
    /// The hypervisor failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No timer could be had for the deadline.
    #[error(transparent)]
    Alarm(#[from] AlarmError),
    /// The audit sink did not take a record.
    #[error(transparent)]
    Audit(#[from] SinkRefused),
    /// The sandbox's memory cannot be reached: a defect of this library.
    #[error("defect in cellule: {0}")]
    Memory(BadSlice),
    /// The channel page cannot be reached: a defect of this library.
    #[error("defect in cellule: {0}")]
    Ring(BrokenRing),
}

/// What poisoned a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poison {
    /// The guest faulted, panicked, ran out of memory or broke the channel.
    Guest,
    /// The guest asked for a host function that is denied to it.
    Denied,
    /// A call was interrupted.
    Interrupted,
    /// A call's time was over.
    DeadlineExceeded,
    /// A host function panicked.
    HostFunctionPanicked,
    /// The hypervisor or the system failed during a call.
    Host,
}

impl Poison {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Guest => "the guest failed",
            Self::Denied => "a host call was denied",
            Self::Interrupted => "a call was interrupted",
            Self::DeadlineExceeded => "a call exceeded its deadline",
            Self::HostFunctionPanicked => "a host function panicked",
            Self::Host => "the host failed during a call",
        }
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl CallError {
    /// What this error makes of the sandbox; `None` if it can be called again.
    pub fn poisons(&self) -> Option<Poison> {
        match self {
            Self::UnknownFunction { .. }
            | Self::Mismatch { .. }
            | Self::OtherImage { .. }
            | Self::NotRecorded(_)
            | Self::Arguments(_)
            | Self::ArgumentsTooLarge { .. }
            | Self::ResultTooLarge { .. }
            | Self::TaskEnded
            | Self::Interrupted { started: false } => None,
            Self::Poisoned { cause } => Some(*cause),
            Self::Guest(GuestFault::Denied { .. }) => Some(Poison::Denied),
            Self::Guest(_) => Some(Poison::Guest),
            Self::Interrupted { started: true } => Some(Poison::Interrupted),
            Self::DeadlineExceeded { .. } => Some(Poison::DeadlineExceeded),
            Self::HostFunctionPanicked { .. } => Some(Poison::HostFunctionPanicked),
            Self::Host(_) => Some(Poison::Host),
        }
    }
}
