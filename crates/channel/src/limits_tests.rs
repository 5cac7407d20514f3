//! What the rules of a policy do to calls, in virtual time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use super::*;
use crate::audit::{MemorySink, Trail};
use crate::policy::{Rate, Rules};
use crate::reply::ReplyHandle;

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not there")]
struct NotThere;

/// A clock that tests set, in milliseconds.
#[derive(Debug, Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Hands {
    fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<LateReply>>);

impl Mailbox for Kept {
    fn put(&self, reply: LateReply) {
        self.0.lock().unwrap().push(reply);
    }
}

/// A channel with the imports `make` (bytes of that length), `other`, `slow` (takes so
/// many milliseconds) and `later` (deferred); messages of up to 1000 bytes.
struct Stage {
    channel: Channel,
    trail: Trail,
    clock: Hands,
    mailbox: Arc<Kept>,
    handles: mpsc::Receiver<ReplyHandle<u8>>,
}

const MAKE: u32 = 0;
const OTHER: u32 = 1;
const SLOW: u32 = 2;
const LATER: u32 = 3;

impl Stage {
    fn new(policy: Policy) -> Self {
        let (sink, trail) = MemorySink::new(1000);
        let clock = Hands::default();
        let (give, handles) = mpsc::channel();
        let moved = clock.clone();
        let functions = vec![
            HostFunction::new("make", |len: u8, _: Vec<u8>| vec![7_u8; len.into()]),
            HostFunction::new("other", || ()),
            HostFunction::new("slow", move |ms: u8| moved.advance(ms.into())),
            HostFunction::deferred("later", move |reply: ReplyHandle<u8>| {
                give.send(reply).unwrap();
            }),
        ];
        let mailbox = Arc::new(Kept::default());
        let channel = Channel::new(policy, functions, 1000, Box::new(sink), 1)
            .timed_by(clock.clone())
            .deferring(8, Arc::<Kept>::clone(&mailbox));
        Self { channel, trail, clock, mailbox, handles }
    }

    fn serve(&mut self, function: u32, args: &[u8]) -> Result<Served, ServeError<NotThere>> {
        let head_len = u32::try_from(args.len()).unwrap();
        let request = Request { id: 5, op: 1, function, head_len, ..Default::default() };
        self.channel.serve(&request, || Ok(Payload::new(args.to_vec(), vec![])))
    }

    /// The length of the answer, or the code.
    fn answer(&mut self, function: u32, args: &[u8]) -> Result<usize, HostError> {
        match self.serve(function, args).unwrap() {
            Served::Now(answer) => answer.map(|reply| reply.len()),
            Served::Later => Ok(0),
        }
    }

    /// Calls `make` with so many bytes of arguments for so many of a result.
    fn make(&mut self, arguments: usize, result: u8) -> Result<usize, HostError> {
        let mut args = vec![0; arguments];
        args[0] = result;
        args[1] = u8::try_from(arguments - 2).unwrap();
        // A result has its length in front.
        self.answer(MAKE, &args).map(|len| len - 1)
    }

    fn last(&self) -> Event {
        self.trail.records().pop().unwrap().event
    }

    fn alarms(&self) -> Vec<(String, u64)> {
        let alarm = |event| match event {
            Event::Alarm { function, denials } => Some((function.to_string(), denials)),
            _ => None,
        };
        self.trail.records().into_iter().filter_map(|record| alarm(record.event)).collect()
    }
}

fn rules() -> Rules {
    Rules::default()
}

fn every(function: &str, rules: Rules) -> Policy {
    Policy::deny_all().allow("other").allow_with(function, rules)
}

const OVER: Result<usize, HostError> = Err(HostError::OverBudget);

#[test]
fn arguments_over_the_functions_limit_are_denied_before_a_byte_is_copied() {
    let mut stage = Stage::new(every("make", rules().argument_bytes(10)));
    assert_eq!(stage.make(10, 1), Ok(1));
    let request = Request { function: MAKE, head_len: 10, tail_len: 1, ..Default::default() };
    let unread = || -> Result<Payload, NotThere> { panic!("arguments should not be read") };
    let answer = stage.channel.serve(&request, unread).unwrap();
    assert!(matches!(answer, Served::Now(Err(HostError::ArgumentsTooLarge))));
}

#[test]
fn limits_of_all_functions_hold_beside_a_functions_own() {
    let all = rules().argument_bytes(10).result_bytes(5);
    let policy = every("make", rules().argument_bytes(20)).with_rules(all);
    let mut stage = Stage::new(policy);
    assert_eq!(stage.make(11, 1), Err(HostError::ArgumentsTooLarge));
    assert_eq!(stage.make(10, 5), Err(HostError::ResultTooLarge), "with its length it is six");
    assert_eq!(stage.make(10, 4), Ok(4));
}

#[test]
fn a_result_over_the_functions_limit_is_refused_on_record() {
    let mut stage = Stage::new(every("make", rules().result_bytes(10)));
    assert_eq!(stage.make(2, 9), Ok(9));
    assert_eq!(stage.make(2, 10), Err(HostError::ResultTooLarge));
    let refused = Outcome::Refused(HostError::ResultTooLarge);
    assert!(matches!(stage.last(), Event::HostCallClosed { outcome, .. } if outcome == refused));
}

#[test]
fn calls_in_a_guest_call_are_counted_and_begin_anew_with_the_next() {
    let mut stage = Stage::new(every("make", rules().calls_per_guest_call(2)));
    for _ in 0..3 {
        stage.channel.begin_call();
        assert_eq!([1, 1, 1].map(|n| stage.make(2, n)), [Ok(1), Ok(1), OVER]);
        assert_eq!(stage.answer(OTHER, &[]), Ok(0), "it has no such rule");
    }
}

#[test]
fn calls_of_all_functions_together_are_counted_too() {
    let policy = every("make", rules()).with_rules(rules().calls_per_guest_call(2));
    let mut stage = Stage::new(policy);
    assert_eq!((stage.make(2, 1), stage.answer(OTHER, &[])), (Ok(1), Ok(0)));
    assert_eq!((stage.make(2, 1), stage.answer(OTHER, &[])), (OVER, OVER));
}

#[test]
fn calls_in_a_window_come_back_with_time_and_not_before() {
    let rate = Rate::new(10, 1000 * MS).burst(2);
    let mut stage = Stage::new(every("make", rules().calls(rate)));
    assert_eq!([1, 1, 1].map(|n| stage.make(2, n)), [Ok(1), Ok(1), OVER]);
    stage.clock.advance(99);
    assert_eq!(stage.make(2, 1), OVER);
    stage.clock.advance(1);
    assert_eq!((stage.make(2, 1), stage.make(2, 1)), (Ok(1), OVER));
    stage.channel.begin_call();
    assert_eq!(stage.make(2, 1), OVER, "another guest call is no other window");
}

#[test]
fn a_denied_call_uses_up_nothing() {
    let all = rules().calls(Rate::new(2, 1000 * MS));
    let mut stage = Stage::new(every("make", rules().argument_bytes(4)).with_rules(all));
    for _ in 0..10 {
        assert_eq!(stage.make(5, 1), Err(HostError::ArgumentsTooLarge));
        assert_eq!(stage.answer(LATER, &[]), Err(HostError::Denied));
    }
    assert_eq!([1, 1, 1].map(|n| stage.make(2, n)), [Ok(1), Ok(1), OVER]);
}

#[test]
fn bytes_of_arguments_and_results_share_a_window() {
    let mut stage = Stage::new(every("make", rules().bytes(Rate::new(100, 100 * MS))));
    assert_eq!(stage.make(50, 29), Ok(29), "50 and 30 with its length");
    assert_eq!(stage.make(21, 1), OVER, "its arguments find 20");
    assert_eq!(stage.make(10, 10), OVER, "its result finds 10");
    let refused = Outcome::Refused(HostError::OverBudget);
    assert!(matches!(stage.last(), Event::HostCallClosed { outcome, .. } if outcome == refused));
    assert_eq!(stage.make(8, 1), Ok(1), "what was refused was not taken");
    stage.clock.advance(100);
    assert_eq!(stage.make(100, 0), OVER, "arguments alone fit, the result does not");
    assert_eq!(stage.make(2, 0), OVER);
}

#[test]
fn an_answer_that_returns_too_late_is_refused_as_such() {
    let mut stage = Stage::new(every("slow", rules().deadline(10 * MS)));
    assert_eq!(stage.answer(SLOW, &[10]), Ok(0));
    assert_eq!(stage.answer(SLOW, &[11]), Err(HostError::Unavailable));
    let Event::HostCallClosed { outcome: Outcome::TimedOut, took, .. } = stage.last() else {
        panic!("{}", stage.last());
    };
    assert_eq!(took, 11 * MS);
}

#[test]
fn the_sandboxs_deadline_is_that_of_functions_without_their_own() {
    let all = rules().deadline(5 * MS);
    let mut stage = Stage::new(Policy::deny_all().allow("slow").with_rules(all));
    assert_eq!(stage.answer(SLOW, &[6]), Err(HostError::Unavailable));
    let mut stage = Stage::new(every("slow", rules().deadline(10 * MS)).with_rules(all));
    assert_eq!(stage.answer(SLOW, &[6]), Ok(0));
}

#[test]
fn deferred_calls_expire_in_the_order_of_their_deadlines_and_only_when_they_are_over() {
    let mut stage = Stage::new(every("later", rules().deadline(10 * MS)));
    assert_eq!(stage.channel.next_expiry(), None);
    stage.answer(LATER, &[]).unwrap();
    stage.clock.advance(4);
    stage.answer(LATER, &[]).unwrap();
    assert_eq!(stage.channel.next_expiry(), Some(10 * MS));
    stage.clock.advance(5);
    assert!(stage.channel.expire().is_none());
    stage.clock.advance(1);
    let settled = stage.channel.expire().unwrap();
    assert_eq!((settled.request, settled.answer.err()), (5, Some(HostError::Unavailable)));
    assert!(matches!(stage.last(), Event::HostCallClosed { outcome: Outcome::TimedOut, .. }));
    assert!(stage.channel.expire().is_none(), "the other has four left");
    assert_eq!((stage.channel.next_expiry(), stage.channel.in_flight()), (Some(14 * MS), 1));
}

#[test]
fn an_answer_after_the_deadline_settles_nothing_and_one_before_it_does() {
    let mut stage = Stage::new(every("later", rules().deadline(10 * MS)));
    stage.answer(LATER, &[]).unwrap();
    stage.answer(LATER, &[]).unwrap();
    stage.handles.recv().unwrap().reply(1);
    let reply = stage.mailbox.0.lock().unwrap().pop().unwrap();
    assert!(stage.channel.settle(reply).unwrap().answer.is_ok());
    stage.clock.advance(10);
    assert!(stage.channel.expire().is_some() && stage.channel.expire().is_none());
    stage.handles.recv().unwrap().reply(1);
    let reply = stage.mailbox.0.lock().unwrap().pop().unwrap();
    assert!(stage.channel.settle(reply).is_none());
    assert_eq!((stage.channel.next_expiry(), stage.channel.in_flight()), (None, 0));
}

#[test]
fn what_may_be_in_flight_is_limited_for_a_function_and_for_all() {
    for policy in [
        every("later", rules().in_flight(2)),
        every("later", rules()).with_rules(rules().in_flight(2)),
    ] {
        let mut stage = Stage::new(policy);
        assert_eq!([(); 3].map(|()| stage.answer(LATER, &[])), [Ok(0), Ok(0), OVER]);
        drop(stage.handles.recv().unwrap());
        let reply = stage.mailbox.0.lock().unwrap().pop().unwrap();
        stage.channel.settle(reply).unwrap();
        assert_eq!(stage.answer(LATER, &[]), Ok(0), "a place is free again");
        assert_eq!(stage.answer(OTHER, &[]), Ok(0), "it is never in flight");
    }
}

#[test]
fn the_builders_limit_in_flight_holds_however_much_the_policy_allows() {
    let mut stage = Stage::new(every("later", rules()).with_rules(rules().in_flight(100)));
    assert_eq!((0..9).filter(|_| stage.answer(LATER, &[]).is_ok()).count(), 8);
}

#[test]
fn a_denial_ends_the_guest_if_the_policy_says_so() {
    let poison = rules().on_denial(OnDenial::Poison).calls_per_guest_call(1);
    let mut stage = Stage::new(every("make", poison));
    assert_eq!(stage.make(2, 1), Ok(1));
    let error = stage.serve(MAKE, &[1, 0]).unwrap_err();
    assert_eq!(error, ServeError::Denied { function: "make".into(), code: HostError::OverBudget });
    let text = "the host function `make` was denied, which ends the guest: \
                a budget of the sandbox is used up";
    assert_eq!(error.to_string(), text);
    let deny = Verdict::Deny(HostError::OverBudget);
    assert!(matches!(stage.last(), Event::HostCallOpened { verdict, .. } if verdict == deny));
    assert_eq!(stage.answer(LATER, &[]), Err(HostError::Denied), "that is for one function");
}

#[test]
fn the_sandboxs_word_on_denials_is_that_of_functions_that_do_not_exist_too() {
    let all = rules().on_denial(OnDenial::Poison);
    let own = rules().on_denial(OnDenial::Error).argument_bytes(2);
    let mut stage = Stage::new(every("make", own).with_rules(all));
    assert_eq!(stage.make(3, 1), Err(HostError::ArgumentsTooLarge), "its own word goes before");
    let nobody = ServeError::Denied { function: "".into(), code: HostError::UnknownFunction };
    assert_eq!(stage.serve(99, &[]).unwrap_err(), nobody);
    let denied = ServeError::Denied { function: "later".into(), code: HostError::Denied };
    assert_eq!(stage.serve(LATER, &[]).unwrap_err(), denied);
}

#[test]
fn alarms_come_once_for_each_so_many_denials() {
    let policy = every("make", rules().argument_bytes(2).alarm_after(2));
    let mut stage = Stage::new(policy.with_rules(rules().alarm_after(3)));
    for _ in 0..4 {
        assert!(stage.make(3, 1).is_err());
    }
    for _ in 0..2 {
        assert!(stage.answer(99, &[]).is_err());
    }
    let alarms = [("make", 2), ("", 3), ("make", 4), ("", 6)];
    assert_eq!(stage.alarms(), alarms.map(|(name, denials)| (name.to_owned(), denials)));
}

#[test]
fn what_the_policy_wants_of_arguments_and_results_is_on_record() {
    let own = rules().record_arguments(Recorded::Bytes(3)).record_results(Recorded::Digest);
    let mut stage = Stage::new(every("make", own));
    assert_eq!(stage.make(5, 2), Ok(2));
    let records = stage.trail.records();
    let events: Vec<_> = records.iter().map(|record| &record.event).collect();
    let [Event::HostCallOpened { arguments, .. }, Event::HostCallClosed { result, .. }] =
        events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(*arguments, crate::audit::Kept::Bytes { bytes: (*b"\x02\x03\0").into(), cut: true });
    assert_eq!(*result, crate::audit::Kept::Digest(Digest::of(&[2, 7, 7])));
    assert_eq!(stage.make(2, 2), Ok(2));
    assert_eq!(stage.answer(OTHER, &[]), Ok(0));
    let kept =
        |event| matches!(event, Event::HostCallClosed { result: crate::audit::Kept::Nothing, .. });
    assert!(kept(stage.last()), "nothing, unless said");
}

#[test]
fn arguments_to_be_recorded_that_are_not_there_end_the_guest_on_record() {
    let own = rules().record_arguments(Recorded::Digest);
    let mut stage = Stage::new(every("make", own));
    let request = Request { function: MAKE, head_len: 2, ..Default::default() };
    let error = stage.channel.serve(&request, || Err(NotThere)).unwrap_err();
    assert_eq!(error, ServeError::Fetch(NotThere));
    assert!(matches!(stage.last(), Event::HostCallClosed { outcome: Outcome::BadArguments, .. }));
}
