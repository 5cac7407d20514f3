//! A guest that lies in the shared rings hurts only itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::time::Duration;

use cellule::{CallError, GuestFault, HostError, Image, Policy, Sandbox};
use cellule_test_guests::hostile;
use support::backends;

const MARKER: &[u8] = b"m";
/// Far longer than any of these takes: none may hang.
const LIMIT: Duration = Duration::from_secs(10);

/// Calls `test` with a maker of sandboxes of the hostile guest.
fn with_hostile(test: impl Fn(&dyn Fn() -> Sandbox)) {
    let image = Image::from_bytes(hostile()).unwrap();
    for backend in backends() {
        test(&|| {
            Sandbox::builder(&image)
                .backend(backend)
                .host_function("blob", |len: u32| vec![1_u8; len.min(1 << 20) as usize])
                .policy(Policy::deny_all().allow("blob"))
                .message_bytes(64 << 10)
                .build()
                .unwrap()
        });
    }
}

/// A request as words: id, op, function, head, status, tail, reserved.
fn request(op: u32, function: u32, head: (u64, u32), tail: (u64, u32)) -> Vec<u32> {
    let words = |gva: u64| [(gva & 0xffff_ffff) as u32, (gva >> 32) as u32];
    let ([head_low, head_high], [tail_low, tail_high]) = (words(head.0), words(tail.0));
    vec![
        99, 0, op, function, head_low, head_high, head.1, 0, tail_low, tail_high, tail.1, 0, 0, 0,
        0, 0,
    ]
}

#[test]
fn no_word_of_the_channel_page_can_hurt_the_host() {
    with_hostile(|make| {
        let mut ended = 0;
        for offset in (0..4096_u32).step_by(4) {
            for value in [0, 1, 0x8000_0000, u32::MAX] {
                let mut sandbox = make();
                let args = (MARKER, offset, value);
                let outcome = match offset % 8 {
                    0 => sandbox.call_within::<()>(LIMIT, "corrupt", args).map(|()| Ok(0)),
                    _ => sandbox.call_within(LIMIT, "corrupt_and_call", args),
                };
                let outcome: Result<Result<u32, String>, CallError> = outcome;
                match outcome {
                    Ok(_) => assert_eq!(sandbox.poison(), None),
                    Err(CallError::Guest(_)) => ended += 1,
                    Err(other) => panic!("offset {offset:#x} = {value:#x}: {other}"),
                }
                // Whatever it was, the next call answers or refuses.
                let _ = sandbox.call_within::<Result<u64, String>>(LIMIT, "fetch", (3_u32,));
            }
        }
        assert!(ended > 0, "some words matter");
    });
}

#[test]
fn impossible_ring_indices_are_named() {
    with_hostile(|make| {
        for (offset, ring) in [(0x100_u32, "request ring"), (0x104, "completion ring")] {
            for value in [33_u32, 1000, 0x8000_0000] {
                let mut sandbox = make();
                let args = (MARKER, offset, value, 1_u8);
                let error = sandbox.call_within::<()>(LIMIT, "corrupt_and_ring", args).unwrap_err();
                let expected =
                    format!("guest: broke the channel: {ring}: ring indices out of step");
                assert!(error.to_string().starts_with(&expected), "{value:#x}: {error}");
            }
        }
    });
}

#[test]
fn requests_that_mean_nothing_end_the_guest() {
    let good = (0x40_0000, 4);
    with_hostile(|make| {
        for (words, text) in [
            (request(0, 0, good, good), "operation 0x0"),
            (request(4, 0, good, good), "operation 0x4"),
            (request(0xffff, 0, good, good), "operation 0xffff"),
            (request(0x1_0001, 0, good, good), "flags is 0x1"),
            (request(2, 0, good, good), "a return for call 0x63"),
            (request(1, 0, (0, 4), good), "4 bytes at 0x0"),
            (request(1, 0, (u64::MAX, 4), good), "4 bytes at 0xffffffffffffffff"),
            (request(1, 0, good, (0x3f_fffc, 8)), "8 bytes at 0x3ffffc"),
            (
                [request(1, 0, good, good)[..12].to_vec(), vec![0, 0, 7, 0]].concat(),
                "reserved is 0x7",
            ),
        ] {
            let mut sandbox = make();
            let args = (MARKER, words, 1_u32, 2_u8);
            let error = sandbox.call_within::<()>(LIMIT, "submit", args).unwrap_err();
            assert!(error.to_string().contains(text), "{text}: {error}");
        }
    });
}

#[test]
fn bad_host_calls_are_answered_with_codes() {
    with_hostile(|make| {
        for (words, code) in [
            (request(1, 1, (0x40_0000, 4), (0, 0)), HostError::UnknownFunction),
            (request(1, u32::MAX, (0x40_0000, 4), (0, 0)), HostError::UnknownFunction),
            (request(1, 0, (0, 64 << 10), (0, 1)), HostError::ArgumentsTooLarge),
            (request(1, 0, (0, u32::MAX), (0, u32::MAX)), HostError::ArgumentsTooLarge),
            (request(1, 0, (0, 0), (0, 0)), HostError::BadArguments),
        ] {
            let mut sandbox = make();
            let args = (MARKER, words);
            let error = sandbox.call_within::<()>(LIMIT, "submit_and_tell", args).unwrap_err();
            let expected = format!("request 99 has status {}", code.code());
            assert!(error.to_string().contains(&expected), "{code}: {error}");
        }
    });
}

#[test]
fn a_guest_that_never_reads_its_answers_cannot_exhaust_the_host() {
    with_hostile(|make| {
        let mut sandbox = make();
        let words = request(1, 1, (0x40_0000, 1), (0, 0));
        let limit = Duration::from_millis(200);
        let error = sandbox.call_within::<()>(limit, "flood", (MARKER, words)).unwrap_err();
        // Its own ring runs over, as the host takes no more than it may hold.
        let ended = matches!(error, CallError::Guest(_) | CallError::DeadlineExceeded { .. });
        assert!(ended, "{error}");
        assert!(sandbox.stats().host_calls <= 33, "{:?}", sandbox.stats());
    });
}

#[test]
fn a_guest_that_waits_for_nothing_ends() {
    with_hostile(|make| {
        let mut sandbox = make();
        let none: Vec<u32> = vec![];
        let error =
            sandbox.call_within::<()>(LIMIT, "submit", (MARKER, none, 0_u32, 2_u8)).unwrap_err();
        // The SDK has consumed the call; nothing else is under way.
        assert!(matches!(error, CallError::Guest(GuestFault::WaitsForNothing)), "{error}");
    });
}

#[test]
fn hostile_abort_blocks_are_read_with_care() {
    with_hostile(|make| {
        for (code, len, gva) in [
            (1_u32, u32::MAX, 0x40_0000_u64),
            (1, 8, u64::MAX),
            (1, 8, 0),
            (0, 0, 0x40_0000),
            (77, 4, 0x40_0000),
            (2, 1024, 0x40_0000),
        ] {
            let mut sandbox = make();
            let args = (MARKER, code, len, gva);
            let error = sandbox.call_within::<()>(LIMIT, "abort", args).unwrap_err();
            assert!(matches!(error, CallError::Guest(_)), "{error}");
            assert!(error.to_string().len() < 16 << 10);
        }
    });
}

#[test]
fn results_over_the_limit_are_refused_to_the_guest() {
    with_hostile(|make| {
        let mut sandbox = make();
        let fetch = sandbox.function::<(u32,), Result<u64, String>>("fetch").unwrap();
        assert_eq!(fetch.call(&mut sandbox, (60_000,)).unwrap(), Ok(60_000));
        let refused = fetch.call(&mut sandbox, (70_000,)).unwrap();
        assert_eq!(refused, Err("the result is too large".to_owned()));
        for _ in 0..100 {
            assert_eq!(fetch.call(&mut sandbox, (50_000,)).unwrap(), Ok(50_000));
        }
    });
}
