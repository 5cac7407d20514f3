//! The latest records, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chain::Origin;
use crate::record::Record;
use crate::sink::{Sink, SinkRefused};

/// Keeps the latest records in memory; made by [`MemorySink::new`] with the
/// [`Trail`] that reads them.
#[derive(Debug)]
pub struct MemorySink(Arc<Mutex<Latest>>);

/// Reads what a [`MemorySink`] keeps, from any thread, also after the sandbox is gone.
#[derive(Debug, Clone)]
pub struct Trail(Arc<Mutex<Latest>>);

#[derive(Debug)]
struct Latest {
    origins: Vec<Origin>,
    records: VecDeque<Record>,
    capacity: usize,
    forgotten: u64,
}

impl MemorySink {
    /// A sink for at most `capacity` records: the latest ones. Older ones are
    /// forgotten, and counted.
    ///
    /// ```
    /// let (sink, trail) = cellule_audit::MemorySink::new(1000);
    /// // Give the sink to a sandbox's builder, and read what it did:
    /// assert!(trail.records().is_empty() && trail.forgotten() == 0);
    /// # drop(sink);
    /// ```
    pub fn new(capacity: usize) -> (Self, Trail) {
        let (origins, records) = (Vec::new(), VecDeque::new());
        let latest = Latest { origins, records, capacity, forgotten: 0 };
        let latest = Arc::new(Mutex::new(latest));
        (Self(Arc::clone(&latest)), Trail(latest))
    }
}

impl Sink for MemorySink {
    fn begin(&mut self, origin: &Origin) -> Result<(), SinkRefused> {
        lock(&self.0).origins.push(*origin);
        Ok(())
    }

    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        let mut latest = lock(&self.0);
        if latest.records.len() >= latest.capacity {
            latest.records.pop_front();
            latest.forgotten += 1;
        }
        if latest.capacity > 0 {
            latest.records.push_back(record.clone());
        }
        Ok(())
    }
}

impl Trail {
    /// Returns the records that are kept, oldest first.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.0).records.iter().cloned().collect()
    }

    /// What the chain of the sink's sandbox starts from; of each, if a sink of your
    /// own passes several sandboxes' records on to it.
    pub fn origins(&self) -> Vec<Origin> {
        lock(&self.0).origins.clone()
    }

    /// How many records were forgotten for want of room.
    pub fn forgotten(&self) -> u64 {
        lock(&self.0).forgotten
    }
}

fn lock(latest: &Mutex<Latest>) -> MutexGuard<'_, Latest> {
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Digest;
    use crate::event::Event;
    use crate::sink::Audit;

    #[test]
    fn a_full_memory_sink_forgets_the_oldest_and_counts() {
        let (sink, trail) = MemorySink::new(2);
        let mut audit = Audit::new(Box::new(sink), 1, Digest::default());
        for _ in 0..5 {
            audit.record(Event::Dropped).unwrap();
        }
        let kept: Vec<u64> = trail.records().iter().map(|record| record.sequence).collect();
        assert_eq!((kept, trail.forgotten(), trail.origins().len()), (vec![3, 4], 3, 1));
    }
}
