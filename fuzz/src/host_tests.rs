use super::*;
use crate::guest::{Call, Wire};
use crate::page::{Change, Place, Word};

/// All functions allowed, room for every message, all records taken.
const OPEN: Setup = Setup { allowed: !0, message_bytes: 256, reply_bytes: 512, refusals: 0 };

fn call(call: Call) -> Step {
    Step::Call(call, Wire { id: 1, task: 0, split: 1 })
}

fn guest(setup: Setup, steps: Vec<Step>) -> Guest {
    Guest { setup, steps, script: vec![] }
}

#[test]
fn sound_calls_of_every_function_are_answered() {
    let steps = vec![
        call(Call::Add(1, -2)),
        call(Call::Upper("straße".into())),
        call(Call::Echo(vec![1; 100])),
        call(Call::Sum(vec![1, 1 << 40])),
        call(Call::Find([("a".to_owned(), 1)].into(), Some("a".into()))),
        call(Call::Fill(200)),
        call(Call::Event(Box::new(crate::values::Event::Moved(1, 2)), true)),
        call(Call::Nothing),
    ];
    let (tally, ended) = outcome(&guest(OPEN, steps));
    assert_eq!((tally, ended), (Tally { served: 8, answered: 8, held: 0 }, Ok(())));
}

#[test]
fn a_guest_without_permission_gets_no_answer_with_a_value() {
    let setup = Setup { allowed: 0, ..OPEN };
    let steps = vec![call(Call::Nothing), call(Call::Panics), call(Call::Raw(99, vec![]))];
    let (tally, ended) = outcome(&guest(setup, steps));
    assert_eq!((tally, ended), (Tally { served: 3, ..Tally::default() }, Ok(())));
}

#[test]
fn a_sink_that_refuses_lets_nothing_through() {
    // The first record opens the first call, the second and third are the second call's.
    let setup = Setup { refusals: 0b101, ..OPEN };
    let (tally, ended) = outcome(&guest(setup, vec![call(Call::Nothing); 2]));
    assert_eq!((tally, ended), (Tally { served: 2, ..Tally::default() }, Ok(())));
}

#[test]
fn answers_wait_until_the_guest_has_consumed_others() {
    let mut steps = vec![call(Call::Fill(200)); 3];
    let (tally, _) = outcome(&guest(OPEN, steps.clone()));
    assert_eq!(tally, Tally { served: 3, answered: 3, held: 1 });
    steps.extend([Step::Ring, Step::Consume(1), call(Call::Nothing)]);
    let (tally, ended) = outcome(&guest(OPEN, steps));
    assert_eq!((tally, ended), (Tally { served: 4, answered: 4, held: 1 }, Ok(())));
}

#[test]
fn a_panic_in_a_host_function_ends_the_guest() {
    let (_, ended) = outcome(&guest(OPEN, vec![call(Call::Panics)]));
    assert_eq!(ended, Err(End::Serve(ServeError::Panicked { function: "panics".into() })));
}

#[test]
fn an_index_that_changes_during_a_drain_gets_no_more_requests_taken() {
    // The host looks at the completion head, at the request tail, then takes one.
    let change = Change { after: 2, at: Place::RequestTail, word: Word::Set(32) };
    let steps = vec![call(Call::Nothing)];
    let hostile = Guest { setup: OPEN, steps, script: vec![change] };
    let (tally, ended) = outcome(&hostile);
    assert_eq!((tally.served, ended), (1, Ok(())));
}

#[test]
fn impossible_requests_end_the_guest() {
    let mut raw = [0; 64];
    raw[8] = 9;
    let (_, ended) = outcome(&guest(OPEN, vec![Step::Request(raw)]));
    assert_eq!(ended, Err(End::Operation(9)));
    let far = Step::Word(Place::RequestTail, Word::Set(33));
    let (_, ended) = outcome(&guest(OPEN, vec![far]));
    assert!(matches!(ended, Err(End::Ring(BrokenRing::Requests(_)))));
}

#[test]
fn a_guest_that_consumes_nothing_fills_the_ring() {
    let (_, ended) = outcome(&guest(OPEN, vec![Step::Wait; 33]));
    assert_eq!(ended, Err(End::ReadsNothing));
}
