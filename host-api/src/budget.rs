//! What a guest may use up beside its host calls, as its policy says.

use std::time::{Duration, Instant};

use cellule_channel::policy::{Bucket, Budgets};

/// What is left of a sandbox's budgets.
#[derive(Debug)]
pub(crate) struct Purse {
    /// The time of calls that have no deadline of their own.
    pub(crate) call_deadline: Option<Duration>,
    /// The exits of one call or run.
    pub(crate) call_exits: Option<u64>,
    log_bytes: Option<Bucket>,
    log_records: Option<Bucket>,
    began: Instant,
}

impl Purse {
    /// All of it.
    pub(crate) fn new(budgets: &Budgets) -> Self {
        let full = |rate| Bucket::full(rate, 0);
        Self {
            call_deadline: budgets.call_deadline,
            call_exits: budgets.call_exits,
            log_bytes: budgets.log_bytes.map(full),
            log_records: budgets.log_records.map(full),
            began: Instant::now(),
        }
    }

    /// Pays for a log record of so many bytes, if there is enough.
    pub(crate) fn pays_for_log(&mut self, bytes: u64) -> bool {
        if self.log_bytes.is_none() && self.log_records.is_none() {
            return true;
        }
        let now_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Self { log_bytes, log_records, .. } = self;
        let holds = |bucket: &mut Option<Bucket>, tokens| {
            bucket.as_mut().is_none_or(|bucket| bucket.holds(tokens, now_ns))
        };
        // Both, or neither: a record that is dropped uses up nothing.
        let enough = holds(log_bytes, bytes) && holds(log_records, 1);
        if enough {
            log_bytes.as_mut().map(|bucket| bucket.take(bytes, now_ns));
            log_records.as_mut().map(|bucket| bucket.take(1, now_ns));
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use cellule_channel::policy::Rate;

    use super::*;

    #[test]
    fn a_log_record_is_paid_for_with_both_or_with_neither() {
        const HOUR: Duration = Duration::from_secs(3600);
        let budgets = Budgets::default().log_bytes(Rate::new(10, HOUR));
        let mut purse = Purse::new(&budgets.log_records(Rate::new(2, HOUR)));
        assert!(!purse.pays_for_log(11), "it should be too long");
        assert!(purse.pays_for_log(4) && purse.pays_for_log(4));
        assert!(!purse.pays_for_log(1), "it should be one too many");
        assert!(Purse::new(&Budgets::default()).pays_for_log(u64::MAX));
    }
}
