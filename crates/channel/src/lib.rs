//! The audited channel: bytes in, verdict, record, handler, bytes out.
//!
//! Small enough to audit by reading. It knows no hypervisor and no guest
//! memory: a shell gives it copies and takes bytes. Read in this order:
//!
//! * [`serve`]: the one path of every host call, on one screen.
//! * [`policy`]: what is allowed; nothing, unless said; and what of that is used up.
//! * [`audit`]: the record that is made before the effect.
//! * `meter`, `flight`: what calls use up, and which are under way.
//! * [`table`]: host functions, and the only place where one is invoked.
//! * [`reply`]: answers, and the handle of one that comes later.
//! * [`rings`]: the host's end of the shared rings, which believes nothing.
#![forbid(unsafe_code)]

mod flight;
mod keep;
mod meter;
pub mod reply;
pub mod rings;
pub mod serve;
pub mod table;

/// The records that are made before the effects, and where they go.
pub use cellule_audit as audit;
pub use cellule_audit::{
    Event, MemorySink, Outcome, Record, Sink, SinkRefused, Stop, TaskFault, TracingSink, Trail,
};
/// What is allowed, as a value and as a file.
pub use cellule_policy as policy;
pub use cellule_policy::{LogLevel, Policy, Verdict};
pub use reply::{LateReply, Mailbox, Reply, ReplyHandle};
pub use rings::{BrokenRing, Page, PageLost, Rings};
pub use serve::{Answer, Channel, Clock, ServeError, Served, Settled};
pub use table::{HostFunction, IntoDeferredHostFunction, IntoHostFunction};
