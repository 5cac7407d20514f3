//! The one path of every host call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cellule_abi::HostError;
use cellule_abi::record::Request;
use cellule_abi::wire::Payload;

use crate::audit::{Audit, Event, Outcome, Sink, SinkRefused};
use crate::policy::{LogLevel, Policy, Verdict};
use crate::reply::{LateReply, Mailbox, Reply, Ticket};
use crate::table::{HostFunction, Invoked, Kind, Panicked};

/// One sandbox's channel: policy, functions and audit trail.
#[derive(Debug)]
pub struct Channel {
    policy: Policy,
    imports: Vec<Import>,
    message_bytes: u64,
    audit: Audit,
    mailbox: Arc<dyn Mailbox>,
    /// How many deferred host calls may be in flight.
    deferred_limit: u32,
    in_flight: BTreeMap<Ticket, Open>,
    next_ticket: u64,
}

/// What the guest's import number means.
#[derive(Debug)]
struct Import {
    name: Arc<str>,
    /// As the policy, which does not change, judges it.
    verdict: Verdict,
    function: HostFunction,
}

/// A host call on record, not yet closed.
#[derive(Debug, Clone, Copy)]
struct Open {
    request: u64,
    task: u32,
    began: Instant,
}

/// A host call that did not end the guest.
#[derive(Debug)]
pub enum Served {
    /// It is answered.
    Now(Answer),
    /// The answer comes to the mailbox: give it to [`Channel::settle`].
    Later,
}

/// What the guest gets: a value's bytes or a code.
pub type Answer = Result<Reply, HostError>;

/// A deferred host call that is over.
#[derive(Debug)]
pub struct Settled {
    /// The request's id, as the guest chose it.
    pub request: u64,
    /// The task that called, as the guest says.
    pub task: u32,
    /// What the guest gets.
    pub answer: Answer,
}

/// A host call that ended the guest instead of being answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError<F: std::error::Error> {
    /// The arguments could not be fetched from where the guest said.
    #[error(transparent)]
    Fetch(F),
    /// The host function panicked.
    #[error("the host function {function} panicked")]
    Panicked {
        /// Its name.
        function: Arc<str>,
    },
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
        let imports = imports
            .into_iter()
            .map(|function| Import {
                name: function.name().into(),
                verdict: policy.judge(function.name()),
                function,
            })
            .collect();
        Self {
            policy,
            imports,
            message_bytes,
            audit: Audit::new(sink, sandbox),
            mailbox: Arc::new(Nowhere),
            deferred_limit: 0,
            in_flight: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// Lets so many deferred host calls be in flight, and says where their answers
    /// go. Without this there can be none.
    #[must_use]
    pub fn deferring(mut self, limit: u32, mailbox: Arc<dyn Mailbox>) -> Self {
        self.deferred_limit = limit;
        self.mailbox = mailbox;
        self
    }

    /// Serves a host call: decode, verdict, record, handler, record, reply. Of a
    /// deferred one, [`Channel::settle`] does the last two steps.
    ///
    /// `request` is a copy that the guest cannot change any more; `fetch`
    /// copies the arguments out, and is called only if the call is allowed.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the guest must be ended. Refusals are replies.
    pub fn serve<F: std::error::Error>(
        &mut self,
        request: &Request,
        fetch: impl FnOnce() -> Result<Payload, F>,
    ) -> Result<Served, ServeError<F>> {
        let argument_bytes = u64::from(request.head_len) + u64::from(request.tail_len);
        let full = self.in_flight() >= self.deferred_limit;
        let import = usize::try_from(request.function).ok().and_then(|i| self.imports.get_mut(i));
        let verdict = match &import {
            None => Verdict::Deny(HostError::UnknownFunction),
            Some(import) if import.verdict != Verdict::Allow => import.verdict,
            Some(_) if argument_bytes > self.message_bytes => {
                Verdict::Deny(HostError::ArgumentsTooLarge)
            }
            Some(import) if full && import.function.kind() == Kind::Deferred => {
                Verdict::Deny(HostError::OverBudget)
            }
            Some(_) => Verdict::Allow,
        };
        let opened = self.audit.record(Event::HostCallOpened {
            request: request.id,
            task: request.task,
            function: import.as_ref().map_or_else(|| "".into(), |import| Arc::clone(&import.name)),
            argument_bytes,
            verdict,
        });
        let import = match (opened, verdict, import) {
            (Err(SinkRefused), _, _) => return Ok(Served::Now(Err(HostError::Unavailable))),
            (Ok(()), Verdict::Deny(code), _) => return Ok(Served::Now(Err(code))),
            (Ok(()), Verdict::Allow, None) => {
                return Ok(Served::Now(Err(HostError::UnknownFunction)));
            }
            (Ok(()), Verdict::Allow, Some(import)) => import,
        };
        let open = Open { request: request.id, task: request.task, began: Instant::now() };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let invoked = fetch().map(|args| import.function.invoke(args, ticket, &self.mailbox));
        let error = match invoked {
            Ok(Ok(Invoked::Answered(answer))) => return Ok(Served::Now(self.close(open, answer))),
            Ok(Ok(Invoked::Started)) => {
                self.in_flight.insert(ticket, open);
                return Ok(Served::Later);
            }
            Ok(Err(Panicked)) => ServeError::Panicked { function: Arc::clone(&import.name) },
            Err(error) => ServeError::Fetch(error),
        };
        let outcome = match &error {
            ServeError::Panicked { .. } => Outcome::Panicked,
            ServeError::Fetch(_) => Outcome::BadArguments,
        };
        // The guest ends, recorded or not.
        let _ = self.audit.record(open.closed(outcome));
        Err(error)
    }

    /// Closes a deferred host call with its answer. `None` if there is none such.
    pub fn settle(&mut self, reply: LateReply) -> Option<Settled> {
        let open = self.in_flight.remove(&reply.ticket)?;
        let answer = self.close(open, reply.answer);
        Some(Settled { request: open.request, task: open.task, answer })
    }

    /// Limits an answer and records it; tells what the guest gets.
    fn close(&mut self, open: Open, answer: Answer) -> Answer {
        let answer = match answer {
            Ok(reply) if reply.len() as u64 > self.message_bytes => Err(HostError::ResultTooLarge),
            other => other,
        };
        let outcome = match &answer {
            Ok(reply) => Outcome::Replied { bytes: reply.len() as u64 },
            Err(code) => Outcome::Refused(*code),
        };
        match self.audit.record(open.closed(outcome)) {
            Ok(()) => answer,
            // What happened happened, but the guest does not learn what it cannot prove.
            Err(SinkRefused) => Err(HostError::Unavailable),
        }
    }

    /// How many deferred host calls are in flight.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }

    /// Closes the deferred host calls in flight unanswered: the guest is gone.
    pub fn abandon(&mut self) {
        for open in std::mem::take(&mut self.in_flight).into_values() {
            // Nobody is left to be refused anything.
            let _ = self.audit.record(open.closed(Outcome::Abandoned));
        }
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

impl Open {
    fn closed(&self, outcome: Outcome) -> Event {
        Event::HostCallClosed { request: self.request, outcome, took: self.began.elapsed() }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
