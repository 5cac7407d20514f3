//! One entry of the trail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chain::Digest;
use crate::code;
use crate::event::Event;

/// The longest canonical form of a record, in bytes: 128 KiB. No sink gets a longer
/// one: what it records does not happen. Readers may so refuse long lines.
pub const MOST_RECORD_BYTES: usize = 128 << 10;

/// One entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 0 in each sandbox, without gaps.
    pub sequence: u64,
    /// The sandbox's number in its process.
    pub sandbox: u64,
    /// How often the sandbox was restored or cloned before.
    pub generation: u64,
    /// Since the sandbox was created, by a clock that never goes back.
    #[serde(rename = "at_ns", with = "code::nanoseconds")]
    pub at: Duration,
    /// When, in nanoseconds since 1970, by a clock that people set.
    pub wall_ns: u64,
    /// What happened.
    pub event: Event,
    /// The digest of the link before it and of all the above: see [`crate::Chain`].
    pub link: Digest,
}
