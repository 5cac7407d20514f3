//! Deferred host calls in flight, and which of them is late next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::reply::Ticket;

/// A host call on record, not yet closed. Times are since the sandbox's beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) request: u64,
    pub(crate) task: u32,
    /// The number of its import.
    pub(crate) import: usize,
    pub(crate) began: Duration,
    /// When it should have been answered.
    pub(crate) expires: Option<Duration>,
}

impl Open {
    /// Whether its time is over.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        self.expires.is_some_and(|expires| now > expires)
    }
}

/// The deferred host calls in flight.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    open: BTreeMap<Ticket, Open>,
    expiries: BTreeSet<(Duration, Ticket)>,
}

impl Flight {
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn insert(&mut self, ticket: Ticket, open: Open) {
        self.expiries.extend(open.expires.map(|expires| (expires, ticket)));
        self.open.insert(ticket, open);
    }

    /// Takes a call out. `None` if there is none such.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Open> {
        let open = self.open.remove(&ticket)?;
        if let Some(expires) = open.expires {
            self.expiries.remove(&(expires, ticket));
        }
        Some(open)
    }

    /// When the next call is late.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.expiries.first().map(|(expires, _)| *expires)
    }

    /// Takes out a call whose time is over: the one that should have come first.
    pub(crate) fn take_late(&mut self, now: Duration) -> Option<Open> {
        let (_, ticket) = *self.expiries.first().filter(|(expires, _)| now >= *expires)?;
        self.remove(ticket)
    }

    /// Takes out all calls.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Open> + use<> {
        std::mem::take(self).open.into_values()
    }
}
