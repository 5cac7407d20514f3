//! Whether a log is what its writer wrote, and if not, where it first is not.

use crate::chain::Digest;
use crate::file::Head;
use crate::line::Line;
use crate::read::{ReadError, Reader};
use crate::record::Record;
use crate::seal::SealKey;

pub use crate::read::{Position, Source};

mod defect;
mod log;

pub use defect::{Defect, RecordName, What};

use log::{Log, Misfit};

/// What is known of a log beforehand. Without any of it, a log that was changed and
/// whose chain was made anew looks as good as any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The key that sealed it.
    pub key: Option<&'a SealKey>,
    /// The chain of one of its lines, from [`crate::FileSink::flush`].
    pub head: Option<Digest>,
}

/// A log without a defect, up to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// How many lines it has.
    pub lines: u64,
    /// How many of them are records.
    pub records: u64,
    /// Of how many sandboxes.
    pub sandboxes: u64,
    /// How many lines at its end no seal vouches for; all, without a key.
    pub unsealed: u64,
    /// Its last line.
    pub head: Head,
    /// How it ends.
    pub end: End,
}

/// How a log ends. But for the first, something may be missing: only the head of a
/// later line could tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was closed.
    Closed,
    /// After a full line: its writer still runs or was killed, or lines were cut off.
    Open,
    /// Within a line, which does not count.
    Unfinished {
        /// Where that line is.
        at: Position,
        /// How many bytes there are of it.
        bytes: u64,
    },
}

/// A log could not be checked, or is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has a defect: this is the first.
    #[error(transparent)]
    Broken(#[from] Box<Defect>),
}

/// Checks a log, all of its files in their order.
///
/// ```
/// use cellule_audit::verify::{End, Expected, Source, verify};
/// use cellule_audit::{Audit, Digest, Event, FileSink};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("audit.jsonl");
/// let sink = FileSink::create(&path)?;
/// let mut audit = Audit::new(Box::new(sink), 1, Digest::of(b"the policy"));
/// audit.record(Event::Dropped)?;
/// drop(audit);
/// let verified = verify([Source::open(&path)?], Expected::default())?;
/// assert_eq!((verified.records, verified.end), (1, End::Closed));
/// # let text = std::fs::read_to_string(&path)?;
/// let changed = text.replace("dropped", "drooped").into_bytes();
/// let error = verify([Source::bytes("changed", changed)], Expected::default()).unwrap_err();
/// assert!(error.to_string().starts_with("changed, line 3: this line was changed"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`VerifyError::Broken`] names the first defect.
///
/// # Cost
///
/// Each line is read once, and digested twice; memory for one line, and for each
/// sandbox that lives at a time.
pub fn verify(
    sources: impl IntoIterator<Item = Source>,
    expected: Expected<'_>,
) -> Result<Verified, VerifyError> {
    let mut reader = Reader::new(sources);
    let mut log = Log::new(expected);
    while let Some(text) = reader.next_line()? {
        if !text.is_finished && text.is_last {
            let bytes = text.bytes.len() as u64;
            return log.finish(End::Unfinished { at: reader.position(), bytes }, &reader);
        }
        if let Err(what) = log.check(text) {
            let record = text.parse().ok().and_then(|numbered| name(&numbered.line));
            let at = reader.position();
            let what = match what {
                Misfit::Chain { says } => log.classify(says, &mut reader)?,
                Misfit::Content(what) => what,
            };
            return Err(Box::new(Defect { at, what, record, after: log.last }).into());
        }
    }
    let end = if log.is_closed { End::Closed } else { End::Open };
    log.finish(end, &reader)
}

fn name(line: &Line) -> Option<RecordName> {
    match line {
        Line::Record(Record { sandbox, sequence, .. }) => {
            Some(RecordName { sandbox: *sandbox, sequence: *sequence })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
