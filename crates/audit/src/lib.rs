//! The audit trail of sandboxes: typed records in a hash chain, where they go,
//! and who checks them.
//!
//! A record is made before its effect. If a sink cannot take it, the effect does
//! not happen. `AUDIT.md` beside this crate specifies every byte. Read in this order:
//!
//! * [`event`], [`record`]: what is recorded; [`canonical`]: its bytes.
//! * [`chain`]: each record carries a digest of all before it.
//! * [`sink`]: where records go; [`memory`], [`tracing`](mod@tracing) and
//!   [`file`](mod@file) ([`options`]), whose writer thread makes [`line`](mod@line)s and [`seal`]s.
//! * [`read`]: log files that anybody may have changed; [`verify`](mod@verify) names the
//!   first defect, [`filter`] picks records, [`stats`] counts.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod chain;
pub mod event;
pub mod file;
pub mod filter;
pub mod line;
pub mod memory;
pub mod options;
pub mod read;
pub mod record;
pub mod seal;
pub mod show;
pub mod sink;
pub mod stats;
pub mod text;
pub mod tracing;
pub mod verify;

mod code;
mod writer;

pub use chain::{Chain, Digest, NotADigest, Origin};
pub use event::{Event, Kept, Outcome, Stop, TaskFault, Verdict};
pub use file::{FileError, FileSink, Head};
pub use filter::{Decision, Filter};
pub use memory::{MemorySink, Trail};
pub use options::{Confirm, FileOptions, Sync, WhenFull};
pub use record::{MOST_RECORD_BYTES, Record};
pub use seal::{KeyTooShort, SealKey};
pub use sink::{Audit, Sink, SinkRefused};
pub use text::Printable;
pub use tracing::TracingSink;
pub use verify::{Defect, End, Expected, Verified, VerifyError, verify};
