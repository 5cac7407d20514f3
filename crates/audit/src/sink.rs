//! Where records are numbered, linked and handed over.

use std::fmt;
use std::time::{Instant, SystemTime};

use crate::chain::{Chain, Digest, Origin};
use crate::code::as_ns;
use crate::event::Event;
use crate::record::{MOST_RECORD_BYTES, Record};

/// Where records go.
///
/// A sink of your own may write them anywhere; it is called on the thread that
/// runs the sandbox, and its time is the call's.
///
/// ```
/// use cellule_audit::{Record, Sink, SinkRefused};
///
/// /// Takes so many records and no more: then nothing can be called.
/// struct Quota(u32);
///
/// impl Sink for Quota {
///     fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
///         self.0 = self.0.checked_sub(1).ok_or(SinkRefused)?;
///         Ok(println!("{record}"))
///     }
/// }
/// ```
pub trait Sink: Send {
    /// Takes what the chain of a sandbox starts from: once, before its first record.
    /// A sink whose records nobody checks need not.
    ///
    /// # Errors
    ///
    /// [`SinkRefused`] if it cannot: then the sandbox is not created.
    fn begin(&mut self, origin: &Origin) -> Result<(), SinkRefused> {
        let _ = origin;
        Ok(())
    }

    /// Takes one record.
    ///
    /// # Errors
    ///
    /// [`SinkRefused`] if it cannot: then the recorded call does not happen. The
    /// next record has the same number.
    fn take(&mut self, record: &Record) -> Result<(), SinkRefused>;
}

/// A sink could not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit sink cannot take a record")]
pub struct SinkRefused;

/// Numbers and links one sandbox's records, and hands them to its sink.
///
/// # Cost
///
/// For each record one SHA-256 of some 100 bytes, two readings of clocks, and the
/// sink's own.
pub struct Audit {
    sink: Box<dyn Sink>,
    origin: Origin,
    /// Made when the first record is.
    chain: Option<Chain>,
    sequence: u64,
    start: Instant,
}

impl Audit {
    /// The trail of a sandbox that is created now.
    pub fn new(sink: Box<dyn Sink>, sandbox: u64, policy: Digest) -> Self {
        let origin = Origin { sandbox, image: Digest::default(), policy, started_ns: wall_ns() };
        Self { sink, origin, chain: None, sequence: 0, start: Instant::now() }
    }

    /// Says which image the sandbox runs. Counts only before the first record.
    pub fn set_image(&mut self, image: Digest) {
        self.origin.image = image;
    }

    /// Makes a record and hands it over.
    ///
    /// # Errors
    ///
    /// [`SinkRefused`] if the sink cannot take it, or if it is longer than
    /// [`MOST_RECORD_BYTES`]: what it records must not happen.
    pub fn record(&mut self, event: Event) -> Result<(), SinkRefused> {
        if self.chain.is_none() {
            self.sink.begin(&self.origin)?;
        }
        let chain = self.chain.get_or_insert_with(|| Chain::new(&self.origin));
        let mut record = Record {
            sequence: self.sequence,
            sandbox: self.origin.sandbox,
            generation: 0,
            at: self.start.elapsed(),
            wall_ns: wall_ns(),
            event,
            link: Digest::default(),
        };
        record.link = chain.next(&record);
        if chain.last_len() > MOST_RECORD_BYTES {
            return Err(SinkRefused);
        }
        self.sink.take(&record)?;
        chain.advance(record.link);
        self.sequence += 1;
        Ok(())
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Now, in nanoseconds since 1970. A clock that is set to an earlier time says 0.
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, as_ns)
}
