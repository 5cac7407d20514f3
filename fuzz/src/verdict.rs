//! What must come of a host call, said independently of the channel's code.

use cellule_abi::HostError;
use cellule_abi::record::Request;
use cellule_abi::wire::Payload;
use cellule_channel::audit::Kept;
use cellule_channel::{Event, Outcome, Reply, ServeError, Verdict};

use crate::guest::{NotThere, Setup};
use crate::handlers::NAMES;
use crate::watch::Note;

/// The channel's answer.
type Answer<B> = Result<Result<B, HostError>, ServeError<NotThere>>;

/// What must come of one host call.
#[derive(Debug)]
pub struct Expected {
    function: &'static str,
    limit: usize,
    verdict: Verdict,
    opened: Event,
    request: u64,
}

impl Expected {
    /// Judges a request by what the embedder chose.
    pub fn of(setup: &Setup, request: &Request) -> Self {
        let number = request.function as usize;
        let function = NAMES.get(number).copied().unwrap_or_default();
        let argument_bytes = u64::from(request.head_len) + u64::from(request.tail_len);
        let verdict = if function.is_empty() {
            Verdict::Deny(HostError::UnknownFunction)
        } else if !setup.allows(number) {
            Verdict::Deny(HostError::Denied)
        } else if argument_bytes > setup.message_bytes.into() {
            Verdict::Deny(HostError::ArgumentsTooLarge)
        } else {
            Verdict::Allow
        };
        let opened = Event::HostCallOpened {
            request: request.id,
            task: request.task,
            function: function.into(),
            argument_bytes,
            arguments: Kept::Nothing,
            verdict,
        };
        let limit = setup.message_bytes.into();
        Self { function, limit, verdict, opened, request: request.id }
    }

    /// Panics unless exactly what should happened, in its order, and nothing else.
    pub fn check(
        &self,
        payload: &Result<Payload, NotThere>,
        notes: &[Note],
        answer: &Answer<Reply>,
    ) {
        let expected = match (notes, self.verdict) {
            ([Note::Refused], _) => Ok(Err(HostError::Unavailable)),
            ([Note::Record(opened)], Verdict::Deny(code)) => {
                assert_eq!(opened.event, self.opened);
                Ok(Err(code))
            }
            ([Note::Record(opened), Note::Fetched, effect @ .., closing], Verdict::Allow) => {
                assert_eq!(opened.event, self.opened);
                self.check_effect(payload, effect, closing)
            }
            _ => panic!("this should NOT happen after {:?}: {notes:?}", self.verdict),
        };
        let answer = match answer {
            Ok(Ok(reply)) => Ok(Ok(reply.segments().concat())),
            Ok(Err(code)) => Ok(Err(*code)),
            Err(error) => Err(error.clone()),
        };
        assert_eq!(answer, expected, "after {notes:?}");
    }

    /// Checks what lies between the two records, and the second one.
    fn check_effect(
        &self,
        payload: &Result<Payload, NotThere>,
        effect: &[Note],
        closing: &Note,
    ) -> Answer<Vec<u8>> {
        let (outcome, answer) = match (payload, effect) {
            (Err(lost), []) => (Outcome::BadArguments, Err(ServeError::Fetch(*lost))),
            (Ok(_), []) => refused(HostError::BadArguments),
            (Ok(_), [Note::Ran(name, bytes)]) => {
                assert_eq!(*name, self.function, "only what was asked for should run");
                self.ran(bytes)
            }
            _ => panic!("{effect:?} should NOT come of {payload:?}"),
        };
        match closing {
            Note::Refused if answer.is_ok() => Ok(Err(HostError::Unavailable)),
            Note::Refused => answer,
            Note::Record(record) => {
                let Event::HostCallClosed { request, outcome: recorded, .. } = &record.event else {
                    panic!("{record} should close the call");
                };
                assert_eq!((*request, *recorded), (self.request, outcome));
                answer
            }
            Note::Fetched | Note::Ran(..) => panic!("{closing:?} should come before the record"),
        }
    }

    fn ran(&self, bytes: &[u8]) -> (Outcome, Answer<Vec<u8>>) {
        let len = bytes.len();
        if self.function == "panics" {
            let function = self.function.into();
            return (Outcome::Panicked, Err(ServeError::Panicked { function }));
        }
        if len > self.limit {
            return refused(HostError::ResultTooLarge);
        }
        (Outcome::Replied { bytes: len as u64 }, Ok(Ok(bytes.to_vec())))
    }
}

fn refused(code: HostError) -> (Outcome, Answer<Vec<u8>>) {
    (Outcome::Refused(code), Ok(Err(code)))
}
