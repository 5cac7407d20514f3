//! Records to `tracing`.

use crate::event::{Event, Outcome, Verdict};
use crate::record::Record;
use crate::sink::{Sink, SinkRefused};

/// Hands records to `tracing`, target `cellule::audit`: denials, interrupts, faults
/// and poisonings as warnings, all else as debug events.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingSink;

impl Sink for TracingSink {
    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        match is_warning(&record.event) {
            true => tracing::warn!(target: "cellule::audit", %record),
            false => tracing::debug!(target: "cellule::audit", %record),
        }
        Ok(())
    }
}

fn is_warning(event: &Event) -> bool {
    match event {
        Event::HostCallOpened { verdict: Verdict::Deny(_), .. }
        | Event::HostCallClosed { outcome: Outcome::Panicked | Outcome::BadArguments, .. }
        | Event::CallFailed { .. }
        | Event::RunFailed { .. }
        | Event::Interrupted { .. }
        | Event::TaskFaulted { .. }
        | Event::Alarm { .. }
        | Event::Poisoned { .. } => true,
        Event::Created { .. }
        | Event::CallBegan { .. }
        | Event::CallReturned { .. }
        | Event::RunBegan { .. }
        | Event::RunEnded { .. }
        | Event::HostCallOpened { .. }
        | Event::HostCallClosed { .. }
        | Event::Dropped => false,
    }
}
