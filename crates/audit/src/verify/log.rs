//! The state of a check: what the next line must be.

use std::collections::BTreeMap;

use super::defect::{Defect, RecordName, What};
use super::{End, Expected, Verified, VerifyError};
use crate::chain::{Chain, Digest, Origin};
use crate::event::Event;
use crate::file::Head;
use crate::line::{self, FORMAT, Line, Numbered};
use crate::read::{ReadError, Reader, Text};
use crate::record::Record;
use crate::seal::{Place, Seal};

/// How many sandboxes may live at a time, in a log that is checked in bounded memory.
const MOST_SANDBOXES: usize = 1 << 20;

/// What was checked so far.
pub(super) struct Log<'a> {
    expected: Expected<'a>,
    /// The next line's number, and what it follows.
    number: u64,
    chain: Digest,
    records: u64,
    sandboxes: u64,
    living: BTreeMap<u64, Sandbox>,
    /// The last record that was good.
    pub(super) last: Option<RecordName>,
    unsealed: u64,
    pub(super) is_closed: bool,
    /// Whether the next line must be a file's first.
    wants_header: bool,
    head_seen: bool,
}

/// A sandbox whose records are not over.
struct Sandbox {
    chain: Chain,
    next: u64,
}

/// Why a line is not the next one.
pub(super) enum Misfit {
    /// It does not continue the chain; this is the number that it says it has.
    Chain { says: Option<u64> },
    /// It does, but it says what it must not.
    Content(What),
}

impl From<What> for Misfit {
    fn from(what: What) -> Self {
        Self::Content(what)
    }
}

impl<'a> Log<'a> {
    pub(super) fn new(expected: Expected<'a>) -> Self {
        Self {
            expected,
            number: 0,
            chain: line::start(),
            records: 0,
            sandboxes: 0,
            living: BTreeMap::new(),
            last: None,
            unsealed: 0,
            is_closed: false,
            wants_header: true,
            head_seen: false,
        }
    }

    /// Checks that a line is the next one, and takes it.
    pub(super) fn check(&mut self, text: Text<'_>) -> Result<(), Misfit> {
        if self.is_closed {
            return Err(What::AfterEnd.into());
        }
        let parsed = text.parse();
        let says = parsed.as_ref().ok().map(|numbered| numbered.number);
        let chain = follows(self.chain, text).ok_or(Misfit::Chain { says })?;
        let Numbered { number, line } =
            parsed.map_err(|error| What::NotALine(error.to_string()))?;
        if number != self.number {
            return Err(What::Number { expected: self.number, found: number }.into());
        }
        self.content(&line)?;
        (self.number, self.chain) = (number + 1, chain);
        self.head_seen |= self.expected.head == Some(chain);
        Ok(())
    }

    /// Checks what a line says that is where it belongs.
    fn content(&mut self, line: &Line) -> Result<(), What> {
        if self.wants_header != matches!(line, Line::Log(_)) {
            return Err(What::Header);
        }
        self.wants_header = matches!(line, Line::Rotated { .. });
        self.unsealed += 1;
        match line {
            Line::Log(header) if header.format != FORMAT => {
                Err(What::Format { found: header.format })
            }
            Line::Log(header) => match self.expected.key {
                Some(key) if header.key.as_deref() != Some(key.id()) => {
                    Err(What::OtherKey { expected: key.id().to_owned(), found: header.key.clone() })
                }
                _ => Ok(()),
            },
            Line::Sandbox(origin) => self.begin(origin),
            Line::Record(record) => self.record(record),
            Line::Seal(seal) => self.seal(Some(seal), Place::Between),
            Line::Rotated { seal, .. } => self.seal(seal.as_ref(), Place::Rotated),
            Line::Closed { seal } => {
                self.is_closed = true;
                self.seal(seal.as_ref(), Place::Closed)
            }
        }
    }

    fn begin(&mut self, origin: &Origin) -> Result<(), What> {
        if self.living.len() >= MOST_SANDBOXES {
            return Err(What::TooManySandboxes { most: MOST_SANDBOXES });
        }
        self.sandboxes += 1;
        let sandbox = Sandbox { chain: Chain::new(origin), next: 0 };
        match self.living.insert(origin.sandbox, sandbox) {
            None => Ok(()),
            Some(_) => Err(What::BegunTwice { sandbox: origin.sandbox }),
        }
    }

    fn record(&mut self, record: &Record) -> Result<(), What> {
        let Some(sandbox) = self.living.get_mut(&record.sandbox) else {
            return Err(What::NotBegun { sandbox: record.sandbox });
        };
        if record.sequence != sandbox.next {
            return Err(What::Sequence { expected: sandbox.next, found: record.sequence });
        }
        if sandbox.chain.append(record) != record.link {
            return Err(What::Link);
        }
        sandbox.next += 1;
        self.records += 1;
        self.last = Some(RecordName { sandbox: record.sandbox, sequence: record.sequence });
        if record.event == Event::Dropped {
            self.living.remove(&record.sandbox);
        }
        Ok(())
    }

    fn seal(&mut self, seal: Option<&Seal>, place: Place) -> Result<(), What> {
        let Some(key) = self.expected.key else { return Ok(()) };
        match seal {
            Some(seal) if key.made(seal, place, self.number, self.chain) => {
                self.unsealed = 0;
                Ok(())
            }
            Some(_) => Err(What::Seal),
            None => Err(What::NoSeal),
        }
    }

    /// Says what became of the line that should be here, by what comes later.
    pub(super) fn classify(
        &self,
        says: Option<u64>,
        reader: &mut Reader,
    ) -> Result<What, ReadError> {
        let mut next_says = None;
        let mut is_next = true;
        while let Some(text) = reader.next_line()? {
            if follows(self.chain, text).is_some() {
                let found = reader.position();
                return Ok(match says {
                    Some(says) if says > self.number => {
                        What::Reordered { number: self.number, found }
                    }
                    _ => What::Inserted { number: self.number, found },
                });
            }
            if std::mem::take(&mut is_next) {
                next_says = text.parse().ok().map(|numbered| numbered.number);
            }
        }
        Ok(match says {
            // The line after it is the one after the next: only its number was changed.
            Some(_) if next_says == self.number.checked_add(1) => What::Changed,
            Some(says) if says > self.number => What::Dropped { from: self.number, to: says - 1 },
            Some(says) if says < self.number => What::Repeated { number: says },
            _ => What::Changed,
        })
    }

    pub(super) fn finish(self, end: End, reader: &Reader) -> Result<Verified, VerifyError> {
        let lost = match self.expected.head {
            Some(_) if !self.head_seen => Some(What::NoHead),
            _ if self.number == 0 => Some(What::Empty),
            _ => None,
        };
        if let Some(what) = lost {
            let (at, after) = (reader.position(), self.last);
            return Err(Box::new(Defect { at, what, record: None, after }).into());
        }
        let unsealed = if self.expected.key.is_some() { self.unsealed } else { self.number };
        let Self { number, records, sandboxes, chain, .. } = self;
        let head = Head { number: number.saturating_sub(1), chain };
        Ok(Verified { lines: number, records, sandboxes, unsealed, head, end })
    }
}

/// The chain of a full line, if it follows `before`.
fn follows(before: Digest, text: Text<'_>) -> Option<Digest> {
    let (body, chain) = line::split(text.bytes)?;
    (text.is_finished && line::digest(before, body) == chain).then_some(chain)
}
