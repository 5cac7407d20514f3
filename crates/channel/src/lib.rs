//! The audited channel: bytes in, verdict, record, handler, bytes out.
//!
//! Small enough to audit by reading. It knows no hypervisor and no guest
//! memory: a shell gives it copies and takes bytes. Read in this order:
//!
//! * [`serve`]: the one path of every host call, on one screen.
//! * [`policy`]: what is allowed; nothing, unless said.
//! * [`audit`]: the record that is made before the effect.
//! * [`table`]: host functions, and the only place where one is invoked.
//! * [`reply`]: answers, and the handle of one that comes later.
//! * [`rings`]: the host's end of the shared rings, which believes nothing.
#![forbid(unsafe_code)]

pub mod audit;
pub mod policy;
pub mod reply;
pub mod rings;
pub mod serve;
pub mod table;

pub use audit::{
    Event, MemorySink, Outcome, Record, Sink, SinkRefused, Stop, TaskFault, TracingSink, Trail,
};
pub use policy::{LogLevel, Policy, Verdict};
pub use reply::{LateReply, Mailbox, Reply, ReplyHandle};
pub use rings::{BrokenRing, Page, PageLost, Rings};
pub use serve::{Answer, Channel, ServeError, Served, Settled};
pub use table::{HostFunction, IntoDeferredHostFunction, IntoHostFunction};
