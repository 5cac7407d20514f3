//! The one path of every host call.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellule_abi::HostError;
use cellule_abi::record::Request;
use cellule_abi::wire::Payload;

use crate::audit::{Audit, Digest, Event, Kept, Outcome, Sink, SinkRefused};
use crate::flight::{Flight, Open};
use crate::keep::Arguments;
use crate::meter::{self, Ask, Meter, Terms};
use crate::policy::{LogLevel, OnDenial, Policy, Recorded, Verdict};
use crate::reply::{LateReply, Mailbox, Ticket};
use crate::table::{HostFunction, Invoked, Kind, Panicked};

mod close;
mod served;

pub use served::{Answer, ServeError, Served, Settled};

use close::Ending;

/// One sandbox's channel: policy, functions and audit trail.
#[derive(Debug)]
pub struct Channel {
    policy: Policy,
    imports: Vec<Import>,
    /// What all host calls together use up.
    all: Meter,
    audit: Audit,
    clock: Box<dyn Clock>,
    mailbox: Arc<dyn Mailbox>,
    flight: Flight,
    next_ticket: u64,
    /// Which call or run of the guest it is.
    guest_call: u64,
}

/// What the guest's import number means.
#[derive(Debug)]
struct Import {
    name: Arc<str>,
    /// As the policy, which does not change, judges it.
    verdict: Verdict,
    terms: Terms,
    meter: Meter,
    function: HostFunction,
}

/// How much time has passed since the sandbox's beginning: the moment of an
/// [`Instant`], unless a test says otherwise.
pub trait Clock: fmt::Debug + Send {
    /// Since the beginning. A clock that goes back only makes windows longer.
    fn now(&self) -> Duration;
}

impl Clock for Instant {
    fn now(&self) -> Duration {
        self.elapsed()
    }
}

/// The mailbox of a channel that defers nothing.
#[derive(Debug)]
struct Nowhere;

impl Mailbox for Nowhere {
    fn put(&self, _: LateReply) {}
}

impl Channel {
    /// A channel for a sandbox whose imports are these, in the image's order.
    ///
    /// `message_bytes` is the longest argument list and the longest result.
    pub fn new(
        policy: Policy,
        imports: Vec<HostFunction>,
        message_bytes: u64,
        sink: Box<dyn Sink>,
        sandbox: u64,
    ) -> Self {
        let imports = imports.into_iter().map(|function| Import::new(&policy, function)).collect();
        let mut all = Meter::new(*policy.all());
        all.limit_messages(message_bytes);
        all.set_in_flight(0);
        Self {
            audit: Audit::new(sink, sandbox, Digest::of(&policy.canonical())),
            policy,
            imports,
            all,
            clock: Box::new(Instant::now()),
            mailbox: Arc::new(Nowhere),
            flight: Flight::default(),
            next_ticket: 0,
            guest_call: 0,
        }
    }

    /// Says which image the guest is, for the audit trail.
    #[must_use]
    pub fn of_image(mut self, image: Digest) -> Self {
        self.audit.set_image(image);
        self
    }

    /// Lets so many deferred host calls be in flight, or what the policy says if that
    /// is less, and says where their answers go. Without this there can be none.
    #[must_use]
    pub fn deferring(mut self, limit: u32, mailbox: Arc<dyn Mailbox>) -> Self {
        self.all.set_in_flight(self.policy.all().in_flight.unwrap_or(limit).min(limit));
        self.mailbox = mailbox;
        self
    }

    /// Sets the clock of windows and deadlines.
    #[must_use]
    pub fn timed_by(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// A call or a run of the guest begins: what is counted for each begins anew.
    pub fn begin_call(&mut self) {
        self.guest_call = self.guest_call.wrapping_add(1);
    }

    /// Serves a host call: decode, verdict, record, handler, record, reply. Of a
    /// deferred one, [`Channel::settle`] does the last two steps.
    ///
    /// `request` is a copy that the guest cannot change any more; `fetch` copies the
    /// arguments out, and is called only if the call is allowed: after the record is
    /// made, unless the policy wants something of them to be in it.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the guest must be ended. Refusals are replies.
    pub fn serve<F: std::error::Error>(
        &mut self,
        request: &Request,
        fetch: impl FnOnce() -> Result<Payload, F>,
    ) -> Result<Served, ServeError<F>> {
        let number = usize::try_from(request.function).unwrap_or(usize::MAX);
        let (ask, verdict) = self.judge(number, request);
        let (function, recorded) = self.on_record(number, verdict);
        let (arguments, kept) = Arguments::keep(fetch, recorded);
        let opened = self.audit.record(Event::HostCallOpened {
            request: request.id,
            task: request.task,
            function,
            argument_bytes: ask.argument_bytes,
            arguments: kept,
            verdict,
        });
        let import = match (opened, verdict, self.imports.get_mut(number)) {
            (Err(SinkRefused), _, _) => return Ok(Served::Now(Err(HostError::Unavailable))),
            (Ok(()), Verdict::Deny(code), _) => return self.deny(number, code),
            (Ok(()), Verdict::Allow, None) => return self.deny(number, HostError::UnknownFunction),
            (Ok(()), Verdict::Allow, Some(import)) => import,
        };
        import.meter.begin(&ask);
        self.all.begin(&ask);
        let open = import.open(number, request, ask.now);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let invoked =
            arguments.take().map(|args| import.function.invoke(args, ticket, &self.mailbox));
        let (outcome, error) = match invoked {
            Ok(Ok(Invoked::Answered(answer))) => {
                return Ok(Served::Now(self.close(&open, Ending::Returned(answer))));
            }
            Ok(Ok(Invoked::Started)) => {
                import.meter.depart();
                self.all.depart();
                self.flight.insert(ticket, open);
                return Ok(Served::Later);
            }
            Ok(Err(Panicked)) => {
                (Outcome::Panicked, ServeError::Panicked { function: Arc::clone(&import.name) })
            }
            Err(error) => (Outcome::BadArguments, ServeError::Fetch(error)),
        };
        // The guest ends, recorded or not.
        let _ = self.audit.record(open.closed(outcome, Kept::Nothing, self.clock.now()));
        Err(error)
    }

    /// Gives the verdict on a call, in an order that does not change: the function is
    /// known, the policy allows it, then what [`meter::judge`] asks.
    fn judge(&mut self, number: usize, request: &Request) -> (Ask, Verdict) {
        let mut ask = Ask {
            argument_bytes: u64::from(request.head_len) + u64::from(request.tail_len),
            deferred: false,
            guest_call: self.guest_call,
            now: self.clock.now(),
        };
        let Some(import) = self.imports.get_mut(number) else {
            return (ask, Verdict::Deny(HostError::UnknownFunction));
        };
        if import.verdict != Verdict::Allow {
            return (ask, import.verdict);
        }
        ask.deferred = import.function.kind() == Kind::Deferred;
        let judged = meter::judge([&mut import.meter, &mut self.all], &ask);
        (ask, judged.map_or_else(Verdict::Deny, |()| Verdict::Allow))
    }

    /// The name of a function, empty if there is none such, and what is kept of the
    /// arguments of a call with this verdict.
    fn on_record(&self, number: usize, verdict: Verdict) -> (Arc<str>, Recorded) {
        match (self.imports.get(number), verdict) {
            (Some(Import { name, terms, .. }), Verdict::Allow) => {
                (Arc::clone(name), terms.record_arguments)
            }
            (Some(Import { name, .. }), Verdict::Deny(_)) => (Arc::clone(name), Recorded::Nothing),
            (None, _) => ("".into(), Recorded::Nothing),
        }
    }

    /// What a denial does, which is on record: it counts, may raise alarms, and may
    /// end the guest.
    fn deny<F: std::error::Error>(
        &mut self,
        number: usize,
        code: HostError,
    ) -> Result<Served, ServeError<F>> {
        let nobody: Arc<str> = "".into();
        let mut function = Arc::clone(&nobody);
        let mut on_denial = self.policy.all().on_denial.unwrap_or_default();
        if let Some(import) = self.imports.get_mut(number) {
            function = Arc::clone(&import.name);
            on_denial = import.terms.on_denial;
            if let Some(denials) = import.meter.deny() {
                self.alarm(Arc::clone(&function), denials);
            }
        }
        if let Some(denials) = self.all.deny() {
            self.alarm(nobody, denials);
        }
        match on_denial {
            OnDenial::Error => Ok(Served::Now(Err(code))),
            OnDenial::Poison => Err(ServeError::Denied { function, code }),
        }
    }

    fn alarm(&mut self, function: Arc<str>, denials: u64) {
        // The denials themselves are on record.
        let _ = self.audit.record(Event::Alarm { function, denials });
    }

    /// The name of an import by its number.
    pub fn import_name(&self, function: u32) -> Option<&Arc<str>> {
        let import = self.imports.get(usize::try_from(function).ok()?)?;
        Some(&import.name)
    }

    /// Records something else than a host call.
    ///
    /// # Errors
    ///
    /// [`SinkRefused`] if the sink cannot take it.
    pub fn record(&mut self, event: Event) -> Result<(), SinkRefused> {
        self.audit.record(event)
    }

    /// Whether a log record of this level may pass.
    pub fn allows_log(&self, level: LogLevel) -> bool {
        self.policy.allows_log(level)
    }
}

impl Import {
    fn new(policy: &Policy, function: HostFunction) -> Self {
        let name = function.name();
        Self {
            name: name.into(),
            verdict: policy.judge(name),
            terms: Terms::of(policy, name),
            meter: Meter::new(policy.rules(name).copied().unwrap_or_default()),
            function,
        }
    }

    fn open(&self, number: usize, request: &Request, began: Duration) -> Open {
        let expires = self.terms.deadline.and_then(|deadline| began.checked_add(deadline));
        Open { request: request.id, task: request.task, import: number, began, expires }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "limits_tests.rs"]
mod limits_tests;
