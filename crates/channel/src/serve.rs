//! The one path of every host call.

use std::sync::Arc;
use std::time::Instant;

use cellule_abi::HostError;
use cellule_abi::record::Request;
use cellule_abi::wire::Payload;

use crate::audit::{Audit, Event, Outcome, Sink, SinkRefused};
use crate::policy::{LogLevel, Policy, Verdict};
use crate::table::{HostFunction, Reply};

/// One sandbox's channel: policy, functions and audit trail.
#[derive(Debug)]
pub struct Channel {
    policy: Policy,
    imports: Vec<Import>,
    message_bytes: u64,
    audit: Audit,
}

/// What the guest's import number means.
#[derive(Debug)]
struct Import {
    name: Arc<str>,
    /// As the policy, which does not change, judges it.
    verdict: Verdict,
    function: HostFunction,
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
        Self { policy, imports, message_bytes, audit: Audit::new(sink, sandbox) }
    }

    /// Serves a host call: decode, verdict, record, handler, record, reply.
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
    ) -> Answer<F> {
        let argument_bytes = u64::from(request.head_len) + u64::from(request.tail_len);
        let import = usize::try_from(request.function).ok().and_then(|i| self.imports.get_mut(i));
        let verdict = match &import {
            None => Verdict::Deny(HostError::UnknownFunction),
            Some(import) if import.verdict != Verdict::Allow => import.verdict,
            Some(_) if argument_bytes > self.message_bytes => {
                Verdict::Deny(HostError::ArgumentsTooLarge)
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
            (Err(SinkRefused), _, _) => return Ok(Err(HostError::Unavailable)),
            (Ok(()), Verdict::Deny(code), _) => return Ok(Err(code)),
            (Ok(()), Verdict::Allow, None) => return Ok(Err(HostError::UnknownFunction)),
            (Ok(()), Verdict::Allow, Some(import)) => import,
        };
        let began = Instant::now();
        let limit = self.message_bytes;
        let (outcome, answer) = match fetch().map(|payload| import.function.invoke(payload)) {
            Err(error) => (Outcome::BadArguments, Err(ServeError::Fetch(error))),
            Ok(Err(_)) => {
                let function = Arc::clone(&import.name);
                (Outcome::Panicked, Err(ServeError::Panicked { function }))
            }
            Ok(Ok(Ok(reply))) if reply.len() as u64 > limit => refused(HostError::ResultTooLarge),
            Ok(Ok(Ok(reply))) => (Outcome::Replied { bytes: reply.len() as u64 }, Ok(Ok(reply))),
            Ok(Ok(Err(code))) => refused(code),
        };
        let took = began.elapsed();
        match self.audit.record(Event::HostCallClosed { request: request.id, outcome, took }) {
            // What happened happened, but the guest does not learn what it cannot prove.
            Err(SinkRefused) if answer.is_ok() => Ok(Err(HostError::Unavailable)),
            _ => answer,
        }
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

/// A call that was made, and whose answer is a code.
fn refused<F: std::error::Error>(code: HostError) -> (Outcome, Answer<F>) {
    (Outcome::Refused(code), Ok(Err(code)))
}

type Answer<F> = Result<Result<Reply, HostError>, ServeError<F>>;

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
