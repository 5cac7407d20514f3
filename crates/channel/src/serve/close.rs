//! How a host call is over: answered, refused, late, or abandoned; always on record.

use std::time::Duration;

use cellule_abi::HostError;

use super::{Answer, Channel, Settled};
use crate::audit::{Event, Kept, Outcome, SinkRefused};
use crate::flight::Open;
use crate::keep::keep;
use crate::meter;
use crate::reply::{LateReply, Reply};

/// How a host call that was begun is over.
pub(super) enum Ending {
    /// The host function returned an answer: too late, perhaps.
    Returned(Answer),
    /// An answer came before anybody found it late.
    Answered(Answer),
    /// None came in time.
    TimedOut,
}

/// What comes of a call that is late. The code says that the host cannot answer;
/// what the function did is done.
const LATE: (Outcome, HostError) = (Outcome::TimedOut, HostError::Unavailable);

impl Channel {
    /// Closes a deferred host call with its answer. `None` if there is none such, be
    /// it that its time was over.
    pub fn settle(&mut self, reply: LateReply) -> Option<Settled> {
        let open = self.flight.remove(reply.ticket)?;
        Some(self.land(open, Ending::Answered(reply.answer)))
    }

    /// When the next deferred host call is late, since the beginning.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.flight.next_expiry()
    }

    /// Closes a deferred host call whose time is over, with
    /// [`HostError::Unavailable`]: one at a time, as its reply may find no room.
    pub fn expire(&mut self) -> Option<Settled> {
        self.flight.next_expiry()?;
        let open = self.flight.take_late(self.clock.now())?;
        Some(self.land(open, Ending::TimedOut))
    }

    fn land(&mut self, open: Open, ending: Ending) -> Settled {
        self.all.land();
        if let Some(import) = self.imports.get_mut(open.import) {
            import.meter.land();
        }
        let answer = self.close(&open, ending);
        Settled { request: open.request, task: open.task, answer }
    }

    /// Limits an answer and records it; tells what the guest gets.
    pub(super) fn close(&mut self, open: &Open, ending: Ending) -> Answer {
        let now = self.clock.now();
        let answer = match ending {
            Ending::Returned(_) if open.is_late(now) => Err(LATE),
            Ending::TimedOut => Err(LATE),
            Ending::Returned(answer) | Ending::Answered(answer) => answer
                .and_then(|reply| self.limit(open, reply, now))
                .map_err(|code| (Outcome::Refused(code), code)),
        };
        let (outcome, kept) = match &answer {
            Ok((reply, kept)) => (Outcome::Replied { bytes: reply.len() as u64 }, kept.clone()),
            Err((outcome, _)) => (*outcome, Kept::Nothing),
        };
        match self.audit.record(open.closed(outcome, kept, now)) {
            Ok(()) => answer.map(|(reply, _)| reply).map_err(|(_, code)| code),
            // What happened happened, but the guest does not learn what it cannot prove.
            Err(SinkRefused) => Err(HostError::Unavailable),
        }
    }

    /// Takes a result if it is not too much, and what the policy keeps of it.
    fn limit(
        &mut self,
        open: &Open,
        reply: Reply,
        now: Duration,
    ) -> Result<(Reply, Kept), HostError> {
        // An import never goes away.
        let import = self.imports.get_mut(open.import).ok_or(HostError::UnknownFunction)?;
        let meters = [&mut import.meter, &mut self.all];
        meter::judge_result(meters, reply.len() as u64, now)?;
        let kept = keep(reply.segments(), import.terms.record_results);
        Ok((reply, kept))
    }

    /// How many deferred host calls are in flight.
    pub fn in_flight(&self) -> u32 {
        self.flight.len()
    }

    /// Closes the deferred host calls in flight unanswered: the guest is gone.
    pub fn abandon(&mut self) {
        let now = self.clock.now();
        for open in self.flight.take_all() {
            // Nobody is left to be refused anything.
            let _ = self.audit.record(open.closed(Outcome::Abandoned, Kept::Nothing, now));
        }
    }
}

impl Open {
    pub(super) fn closed(&self, outcome: Outcome, result: Kept, now: Duration) -> Event {
        let took = now.saturating_sub(self.began);
        Event::HostCallClosed { request: self.request, outcome, result, took }
    }
}
