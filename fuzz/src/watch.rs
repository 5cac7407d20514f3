//! What happened during a host call, in its order: noted by the audit sink, by
//! the fetching of arguments and by the handlers themselves.

use std::sync::{Arc, Mutex, PoisonError};

use cellule_channel::{Record, Sink, SinkRefused};

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Note {
    /// The sink took a record.
    Record(Record),
    /// The sink refused a record.
    Refused,
    /// The arguments were fetched.
    Fetched,
    /// The handler of this function ran, and would answer these bytes.
    Ran(&'static str, Vec<u8>),
}

/// The notes since they were last taken; its clones share them.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Vec<Note>>>);

impl Watch {
    /// Notes something.
    pub fn note(&self, note: Note) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Takes the notes so far.
    pub fn take(&self) -> Vec<Note> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An audit sink that refuses some records, and checks the numbers of all.
#[derive(Debug)]
pub struct WatchedSink {
    watch: Watch,
    /// Which of each 32 records are refused, a bit each.
    refusals: u32,
    offered: u32,
    taken: u64,
}

/// The sandbox's number in the records.
pub const SANDBOX: u64 = 3;

impl WatchedSink {
    /// A sink that notes what it takes.
    pub fn new(watch: Watch, refusals: u32) -> Self {
        Self { watch, refusals, offered: 0, taken: 0 }
    }
}

impl Sink for WatchedSink {
    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        assert_eq!(record.sandbox, SANDBOX);
        assert_eq!(record.sequence, self.taken, "records that were taken should have no gaps");
        let refuse = self.refusals.rotate_right(self.offered) & 1 == 1;
        self.offered = self.offered.wrapping_add(1);
        if refuse {
            self.watch.note(Note::Refused);
            return Err(SinkRefused);
        }
        self.taken += 1;
        self.watch.note(Note::Record(record.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellule_channel::Event;
    use cellule_channel::audit::Digest;

    #[test]
    fn a_sink_refuses_what_its_bits_say() {
        let watch = Watch::default();
        let mut sink = WatchedSink::new(watch.clone(), 0b10);
        let (at, link) = (std::time::Duration::ZERO, Digest::default());
        let (sandbox, event) = (SANDBOX, Event::Dropped);
        let record = Record { sequence: 0, sandbox, generation: 0, at, wall_ns: 0, event, link };
        let mut offer = |sequence| sink.take(&Record { sequence, ..record.clone() });
        assert_eq!([offer(0), offer(1), offer(1)], [Ok(()), Err(SinkRefused), Ok(())]);
        assert!(matches!(watch.take()[..], [Note::Record(_), Note::Refused, Note::Record(_)]));
    }
}
