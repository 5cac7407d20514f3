use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::audit::{MemorySink, Record, Trail};
use crate::reply::ReplyHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not there")]
struct NotThere;

/// Counts calls, so that a test can tell that there was none.
fn channel(policy: Policy) -> (Channel, Trail, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let double = move |n: u32| {
        counter.fetch_add(1, Ordering::Relaxed);
        u64::from(n) * 2
    };
    let functions = vec![
        HostFunction::new("double", double),
        HostFunction::new("panics", || -> u32 { panic!("on purpose") }),
        HostFunction::new("long", |n: u32| vec![7_u8; n as usize]),
    ];
    let (sink, trail) = MemorySink::new(100);
    (Channel::new(policy, functions, 64, Box::new(sink), 1), trail, calls)
}

fn request(function: u32, head_len: u32) -> Request {
    Request { id: 5, op: 1, function, head_len, ..Default::default() }
}

fn serve(
    channel: &mut Channel,
    function: u32,
    bytes: &[u8],
) -> Result<Result<Vec<u8>, HostError>, ServeError<NotThere>> {
    let request = request(function, u32::try_from(bytes.len()).unwrap());
    let answer = channel.serve(&request, || Ok(Payload::new(bytes.to_vec(), vec![])));
    answer.map(|served| now(served).map(|reply| reply.segments().concat()))
}

/// The answer of a function that does not defer it.
fn now(served: Served) -> Answer {
    match served {
        Served::Now(answer) => answer,
        Served::Later => panic!("an immediate function answers at once"),
    }
}

fn events(trail: &Trail) -> Vec<Event> {
    trail.records().into_iter().map(|Record { event, .. }| event).collect()
}

#[test]
fn an_allowed_call_is_opened_served_and_closed() {
    let (mut channel, trail, calls) = channel(Policy::deny_all().allow("double"));
    assert_eq!(serve(&mut channel, 0, &[21]), Ok(Ok(vec![42])));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let events = events(&trail);
    assert!(matches!(events[0], Event::HostCallOpened { verdict: Verdict::Allow, .. }));
    let outcome = Outcome::Replied { bytes: 1 };
    assert!(
        matches!(events[1], Event::HostCallClosed { request: 5, outcome: o, .. } if o == outcome)
    );
}

#[test]
fn a_registered_function_is_denied_unless_the_policy_names_it() {
    let (mut channel, trail, calls) = channel(Policy::deny_all().allow("long"));
    let request = request(0, 1);
    let unread =
        || -> Result<Payload, NotThere> { panic!("a denied call's arguments are not read") };
    let answer = channel.serve(&request, unread).unwrap();
    assert_eq!(now(answer).unwrap_err(), HostError::Denied);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let deny = Verdict::Deny(HostError::Denied);
    let events = events(&trail);
    assert!(matches!(&events[..], [Event::HostCallOpened { verdict, .. }] if *verdict == deny));
}

#[test]
fn every_bad_call_has_its_own_code_and_a_record() {
    let all = Policy::deny_all().allow("double").allow("long");
    let (mut channel, trail, calls) = channel(all);
    assert_eq!(serve(&mut channel, 3, &[]), Ok(Err(HostError::UnknownFunction)));
    assert_eq!(serve(&mut channel, u32::MAX, &[]), Ok(Err(HostError::UnknownFunction)));
    assert_eq!(serve(&mut channel, 0, &[0; 65]), Ok(Err(HostError::ArgumentsTooLarge)));
    assert_eq!(serve(&mut channel, 0, &[1, 2]), Ok(Err(HostError::BadArguments)));
    assert_eq!(serve(&mut channel, 0, &[]), Ok(Err(HostError::BadArguments)));
    assert_eq!(serve(&mut channel, 2, &[64]), Ok(Err(HostError::ResultTooLarge)));
    assert_eq!(serve(&mut channel, 2, &[63]).unwrap().unwrap().len(), 64, "exactly the limit");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(events(&trail).len(), 3 + 2 * 4);
}

#[test]
fn a_panic_in_a_host_function_is_recorded_and_ends_the_guest() {
    let (mut channel, trail, _) = channel(Policy::deny_all().allow("panics"));
    let error = serve(&mut channel, 1, &[]).unwrap_err();
    assert_eq!(error.to_string(), "the host function panics panicked");
    let last = events(&trail).pop();
    assert!(matches!(last, Some(Event::HostCallClosed { outcome: Outcome::Panicked, .. })));
}

#[test]
fn arguments_that_are_not_there_are_recorded_and_end_the_guest() {
    let (mut channel, trail, calls) = channel(Policy::deny_all().allow("double"));
    let answer = channel.serve(&request(0, 1), || Err(NotThere));
    assert_eq!(answer.unwrap_err(), ServeError::Fetch(NotThere));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let last = events(&trail).pop();
    assert!(matches!(last, Some(Event::HostCallClosed { outcome: Outcome::BadArguments, .. })));
}

#[test]
fn a_call_that_cannot_be_recorded_does_not_happen() {
    struct Full;
    impl Sink for Full {
        fn take(&mut self, _: &Record) -> Result<(), SinkRefused> {
            Err(SinkRefused)
        }
    }
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let function = HostFunction::new("f", move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let policy = Policy::deny_all().allow("f");
    let mut channel = Channel::new(policy, vec![function], 64, Box::new(Full), 1);
    assert_eq!(serve(&mut channel, 0, &[]), Ok(Err(HostError::Unavailable)));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

/// Keeps late replies in the order in which they came.
#[derive(Debug, Default)]
struct Kept(std::sync::Mutex<Vec<LateReply>>);

impl Mailbox for Kept {
    fn put(&self, reply: LateReply) {
        self.0.lock().unwrap().push(reply);
    }
}

type Handles = std::sync::mpsc::Receiver<ReplyHandle<Vec<u8>>>;

/// A channel with one deferred function, whose handles come out of a receiver.
fn deferring(limit: u32) -> (Channel, Trail, Arc<Kept>, Handles) {
    let (give, handles) = std::sync::mpsc::channel();
    let later = HostFunction::deferred("later", move |reply: ReplyHandle<Vec<u8>>, n: u8| {
        assert!(n < 100, "on purpose");
        give.send(reply).unwrap();
    });
    let (sink, trail) = MemorySink::new(100);
    let policy = Policy::deny_all().allow("later");
    let mailbox = Arc::new(Kept::default());
    let channel = Channel::new(policy, vec![later], 64, Box::new(sink), 1)
        .deferring(limit, Arc::<Kept>::clone(&mailbox));
    (channel, trail, mailbox, handles)
}

fn start(channel: &mut Channel, id: u64, byte: u8) -> Result<Served, ServeError<NotThere>> {
    let request = Request { id, ..request(0, 1) };
    channel.serve(&request, || Ok(Payload::new(vec![byte], vec![])))
}

#[test]
fn deferred_calls_are_closed_in_the_order_of_their_answers() {
    let (mut channel, trail, mailbox, handles) = deferring(2);
    for id in [7, 8] {
        assert!(matches!(start(&mut channel, id, 1), Ok(Served::Later)));
    }
    assert_eq!((channel.in_flight(), events(&trail).len()), (2, 2));
    let [first, second] = [handles.recv().unwrap(), handles.recv().unwrap()];
    second.reply(vec![1, 2, 3]);
    drop(first);
    let kept = std::mem::take(&mut *mailbox.0.lock().unwrap());
    let settled: Vec<_> = kept.into_iter().map(|reply| channel.settle(reply).unwrap()).collect();
    assert_eq!((settled[0].request, settled[0].answer.as_ref().unwrap().len()), (8, 4));
    assert_eq!(
        (settled[1].request, settled[1].answer.as_ref().err()),
        (7, Some(&HostError::Failed))
    );
    assert_eq!(channel.in_flight(), 0);
    let closed = [Outcome::Replied { bytes: 4 }, Outcome::Refused(HostError::Failed)];
    for (event, expected) in events(&trail)[2..].iter().zip(closed) {
        assert!(matches!(event, Event::HostCallClosed { outcome, .. } if *outcome == expected));
    }
}

#[test]
fn a_deferred_call_over_the_limit_is_denied_on_record() {
    let (mut channel, trail, _, handles) = deferring(1);
    assert!(matches!(start(&mut channel, 7, 1), Ok(Served::Later)));
    let over = now(start(&mut channel, 8, 1).unwrap()).unwrap_err();
    assert_eq!(over, HostError::OverBudget);
    assert_eq!(handles.try_iter().count(), 1, "the second was not started");
    let deny = Verdict::Deny(HostError::OverBudget);
    let last = events(&trail).pop();
    assert!(matches!(last, Some(Event::HostCallOpened { verdict, .. }) if verdict == deny));
}

#[test]
fn a_late_result_over_the_limit_is_refused() {
    let (mut channel, _, mailbox, handles) = deferring(1);
    assert!(matches!(start(&mut channel, 7, 1), Ok(Served::Later)));
    handles.recv().unwrap().reply(vec![0; 64]);
    let reply = mailbox.0.lock().unwrap().pop().unwrap();
    let settled = channel.settle(reply).unwrap();
    assert_eq!(settled.answer.unwrap_err(), HostError::ResultTooLarge);
}

#[test]
fn a_panic_at_the_start_of_a_deferred_call_ends_the_guest_and_leaves_nothing_in_flight() {
    let (mut channel, trail, mailbox, _handles) = deferring(1);
    let error = start(&mut channel, 7, 100).unwrap_err();
    assert_eq!(error.to_string(), "the host function later panicked");
    assert_eq!(channel.in_flight(), 0);
    let reply = mailbox.0.lock().unwrap().pop().unwrap();
    assert!(channel.settle(reply).is_none(), "its dropped handle answers nothing");
    let last = events(&trail).pop();
    assert!(matches!(last, Some(Event::HostCallClosed { outcome: Outcome::Panicked, .. })));
}

#[test]
fn what_is_in_flight_when_the_guest_goes_is_closed_as_abandoned() {
    let (mut channel, trail, mailbox, handles) = deferring(8);
    assert!(matches!(start(&mut channel, 7, 1), Ok(Served::Later)));
    channel.abandon();
    let last = events(&trail).pop();
    assert!(matches!(last, Some(Event::HostCallClosed { outcome: Outcome::Abandoned, .. })));
    handles.recv().unwrap().reply(vec![]);
    let reply = mailbox.0.lock().unwrap().pop().unwrap();
    assert!(channel.settle(reply).is_none(), "too late");
}

#[test]
fn bad_arguments_of_a_deferred_call_are_answered_at_once() {
    let (mut channel, ..) = deferring(1);
    let served = channel.serve(&request(0, 0), || Ok::<_, NotThere>(Payload::default())).unwrap();
    assert_eq!(now(served).unwrap_err(), HostError::BadArguments);
    assert_eq!(channel.in_flight(), 0);
}
