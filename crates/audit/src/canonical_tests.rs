use std::sync::Arc;
use std::time::Duration;

use cellule_abi::HostError;

use super::*;
use crate::chain::{Chain, Digest, Origin};
use crate::text::Hex;

/// A record of each kind of event, and of each form that a field can have.
fn all() -> Vec<Event> {
    let function: Arc<str> = "f".into();
    let opened = |arguments, verdict| Event::HostCallOpened {
        request: 7,
        task: 3,
        function: "f".into(),
        argument_bytes: 9,
        arguments,
        verdict,
    };
    let closed = |outcome, result| Event::HostCallClosed {
        request: 7,
        outcome,
        result,
        took: Duration::from_nanos(1500),
    };
    let fault = |address| TaskFault { vector: 14, error_code: 6, rip: 0x1000, address };
    let bytes = |cut| Kept::Bytes { bytes: (*b"\0\xff").into(), cut };
    vec![
        Event::Created { backend: "kvm".into() },
        Event::CallBegan { call: 1, function: Arc::clone(&function) },
        Event::CallReturned { call: 1, result_bytes: 4 },
        Event::CallFailed { call: 1, reason: "\"quoted\"\n\u{202e}".to_owned() },
        Event::RunBegan { limit: None },
        Event::RunBegan { limit: Some(Duration::from_millis(1)) },
        Event::RunEnded { stop: Stop::Idle },
        Event::RunEnded { stop: Stop::TimeOver },
        Event::RunFailed { reason: String::new() },
        Event::Interrupted { started: true },
        Event::Interrupted { started: false },
        Event::TaskFaulted { task: 3, fault: fault(None) },
        Event::TaskFaulted { task: 3, fault: fault(Some(0)) },
        opened(Kept::Nothing, Verdict::Allow),
        opened(Kept::Digest(Digest([5; 32])), Verdict::Deny(HostError::Denied)),
        opened(bytes(false), Verdict::Deny(HostError::OverBudget)),
        closed(Outcome::Replied { bytes: 2 }, bytes(true)),
        closed(Outcome::Refused(HostError::Failed), Kept::Nothing),
        closed(Outcome::Panicked, Kept::Nothing),
        closed(Outcome::BadArguments, Kept::Nothing),
        closed(Outcome::Abandoned, Kept::Nothing),
        Event::Poisoned { cause: "the guest failed".into() },
        Event::Dropped,
        Event::Alarm { function, denials: 100 },
    ]
}

fn record(event: Event) -> Record {
    let link = Digest::default();
    let at = Duration::from_nanos(0x0403_0201);
    Record { sequence: 5, sandbox: 2, generation: 1, at, wall_ns: 0xff, event, link }
}

fn bytes(event: Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    canonical(&record(event), &mut bytes);
    bytes
}

/// The example of AUDIT.md.
#[test]
fn the_canonical_form_is_as_specified() {
    let head = "01 0500000000000000 0200000000000000 0100000000000000 0102030400000000 \
                ff00000000000000";
    let body = "0a 0700000000000000 03000000 0100000000000000 66 0900000000000000 \
                02 00 0200000000000000 00ff 0800";
    let opened = all().swap_remove(15);
    let expected = format!("{head}{body}").replace(' ', "");
    assert_eq!(Hex(&bytes(opened)).to_string(), expected);
}

#[test]
fn seed_and_link_are_as_specified() {
    let (image, policy) = (Digest([1; 32]), Digest([2; 32]));
    let origin = Origin { sandbox: 2, image, policy, started_ns: 3 };
    let numbers = [2_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat();
    let seed = [b"cellule audit chain 1\0".as_slice(), &[1; 32], &[2; 32], &numbers].concat();
    assert_eq!(origin.seed(), Digest::of(&seed));
    let text = "fbf6020297fdf485ce6472c2d65c50b2da3339ea66189a099c7c98475f846f2a";
    let link = Chain::new(&origin).append(&record(Event::Dropped));
    let form = bytes(Event::Dropped);
    assert_eq!(link, Digest::of(&[Digest::of(&seed).0.as_slice(), &form].concat()));
    assert_eq!(link.to_string(), text, "the example of AUDIT.md");
}

#[test]
fn no_two_records_have_one_form() {
    let mut forms: Vec<_> = all().into_iter().map(bytes).collect();
    let count = forms.len();
    forms.sort();
    forms.dedup();
    assert_eq!(forms.len(), count);
}

#[test]
fn every_field_is_in_the_form_but_the_link() {
    let form = |change: fn(&mut Record)| {
        let mut record = record(Event::Dropped);
        change(&mut record);
        let mut bytes = Vec::new();
        canonical(&record, &mut bytes);
        bytes
    };
    let plain = form(|_| {});
    let changes: [fn(&mut Record); 5] = [
        |r| r.sequence += 1,
        |r| r.sandbox += 1,
        |r| r.generation += 1,
        |r| r.at += Duration::from_nanos(1),
        |r| r.wall_ns += 1,
    ];
    assert!(changes.into_iter().all(|change| form(change) != plain));
    assert_eq!(form(|r| r.link = Digest([1; 32])), plain);
}

#[test]
fn every_event_comes_back_from_json_as_it_was() {
    for event in all() {
        let record = record(event);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
        let kind = format!("{{\"kind\":\"{}\"", record.event.kind());
        assert!(text.contains(&kind), "{text} should have {kind}");
    }
}

#[test]
fn a_time_too_long_for_the_form_comes_back_as_the_longest() {
    let record = record(Event::RunBegan { limit: Some(Duration::MAX) });
    let text = serde_json::to_string(&record).unwrap();
    let back: Record = serde_json::from_str(&text).unwrap();
    let mut forms = [Vec::new(), Vec::new()];
    canonical(&record, &mut forms[0]);
    canonical(&back, &mut forms[1]);
    assert_eq!(forms[0], forms[1], "or the link of an honest log would not fit");
}

#[test]
fn guest_text_is_escaped_where_it_is_shown() {
    let reason = "red \x1b[31m\n#99 sandbox 1 forged".to_owned();
    let shown = record(Event::CallFailed { call: 1, reason }).to_string();
    assert!(shown.contains("\\u{1b}[31m\\n#99") && !shown.contains('\n'), "{shown}");
}
