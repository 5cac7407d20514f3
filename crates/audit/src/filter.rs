//! Which records are of interest.

use crate::event::{Event, Verdict};
use crate::record::Record;

/// Picks records: those that fit every field that is set.
///
/// ```
/// use cellule_audit::{Audit, Decision, Digest, Event, Filter, MemorySink};
/// let (sink, trail) = MemorySink::new(10);
/// Audit::new(Box::new(sink), 1, Digest::default()).record(Event::Dropped)?;
/// let picks = |filter: Filter| trail.records().iter().any(|record| filter.picks(record));
/// assert!(picks(Filter { kind: Some("dropped".to_owned()), ..Filter::default() }));
/// assert!(!picks(Filter { verdict: Some(Decision::Denied), ..Filter::default() }));
/// # Ok::<(), cellule_audit::SinkRefused>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The sandbox's number.
    pub sandbox: Option<u64>,
    /// The function that it names.
    pub function: Option<String>,
    /// What was decided on a host call.
    pub verdict: Option<Decision>,
    /// The first sequence number.
    pub since: Option<u64>,
    /// The last one.
    pub until: Option<u64>,
    /// The kind of event: [`Event::kind`].
    pub kind: Option<String>,
}

/// What the policy decided, whatever the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The call may happen.
    Allowed,
    /// It may not.
    Denied,
}

impl Filter {
    /// Whether a record fits.
    pub fn picks(&self, record: &Record) -> bool {
        let Record { sequence, sandbox, event, .. } = record;
        self.sandbox.is_none_or(|wanted| wanted == *sandbox)
            && self.since.is_none_or(|first| first <= *sequence)
            && self.until.is_none_or(|last| *sequence <= last)
            && self.kind.as_deref().is_none_or(|kind| kind == event.kind())
            && self.function.as_deref().is_none_or(|name| event.function() == Some(name))
            && self.verdict.is_none_or(|wanted| decision(event) == Some(wanted))
    }
}

fn decision(event: &Event) -> Option<Decision> {
    match event {
        Event::HostCallOpened { verdict: Verdict::Allow, .. } => Some(Decision::Allowed),
        Event::HostCallOpened { verdict: Verdict::Deny(_), .. } => Some(Decision::Denied),
        _ => None,
    }
}
