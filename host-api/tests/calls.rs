//! Calls in both directions, with values of all kinds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cellule::{
    BuildError, CallError, Event, HostError, Image, LogLevel, MemorySink, Outcome, Policy, Sandbox,
    SandboxBuilder, Schema, Verdict,
};
use cellule_test_guests::{basics, hosted};
use serde::{Deserialize, Serialize};
use support::{backends, hypervisor_calls, on_every_backend};

#[derive(Serialize, Deserialize, Schema)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Serialize, Deserialize, Schema)]
enum Figure {
    Empty,
    Circle(Point, f64),
    Polygon { corners: Vec<Point>, name: Option<String> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
enum Trouble {
    Negative(i64),
    TooLarge { most: u32 },
}

/// A builder for the hosted guest with its one import.
fn hosted_builder(image: &Image) -> SandboxBuilder {
    Sandbox::builder(image).host_function("double", |n: u64| n.wrapping_mul(2))
}

#[test]
fn values_of_all_kinds_arrive_and_return() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        assert_eq!(sandbox.call::<i32>("add", (i32::MAX, 1)).unwrap(), i32::MIN);
        sandbox.call::<()>("nothing", ()).unwrap();
        assert_eq!(sandbox.call::<String>("echo", ("grüße \0 ∀",)).unwrap(), "grüße \0 ∀");
        let args = (1_u8, -2_i16, 3_u32, -4_i64, 5_u128, true, 'ß', "h");
        assert_eq!(sandbox.call::<String>("eight", args).unwrap(), "1 -2 3 -4 5 true ß h");
        let corner = |x, y| Point { x, y };
        let figures = vec![
            Figure::Empty,
            Figure::Circle(corner(1.0, 2.0), 0.5),
            Figure::Polygon {
                corners: vec![corner(2.0, 3.0), corner(4.0, 5.0)],
                name: Some("wall".to_owned()),
            },
        ];
        let described: BTreeMap<String, f64> = sandbox.call("describe", (figures,)).unwrap();
        let expected = [("circle", 3.5), ("empty", 0.0), ("wall", 26.0)];
        assert_eq!(described, expected.map(|(name, n)| (name.to_owned(), n)).into());
    });
}

#[test]
fn a_guest_functions_own_error_comes_back_as_a_value() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let root = sandbox.function::<(i64,), Result<u32, Trouble>>("root").unwrap();
        assert_eq!(root.call(&mut sandbox, (50,)).unwrap(), Ok(7));
        assert_eq!(root.call(&mut sandbox, (-3,)).unwrap(), Err(Trouble::Negative(-3)));
        let most = Trouble::TooLarge { most: 1_000_000 };
        assert_eq!(root.call(&mut sandbox, (1 << 40,)).unwrap(), Err(most));
        assert_eq!(sandbox.poison(), None);
    });
}

#[test]
fn state_lives_between_calls_and_not_between_sandboxes() {
    on_every_backend(basics(), |make| {
        let (mut one, mut other) = (make(), make());
        for expected in 0..10 {
            assert_eq!(one.call::<u64>("count", ()).unwrap(), expected);
        }
        assert_eq!(other.call::<u64>("count", ()).unwrap(), 0);
    });
}

#[test]
fn a_warm_call_is_one_exit() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let add = sandbox.function::<(i32, i32), i32>("add").unwrap();
        for n in 1..=100 {
            assert_eq!(add.call(&mut sandbox, (1, 2)).unwrap(), 3);
            let stats = sandbox.stats();
            assert_eq!((stats.calls, stats.exits), (n, n));
            let due = hypervisor_calls(sandbox.backend(), n);
            assert!(due.contains(&stats.hypervisor_calls), "{stats:?}, not {due:?}");
            assert_eq!((stats.bytes_in, stats.bytes_out), (2 * n, n));
        }
    });
}

#[test]
fn a_host_call_is_one_more_exit() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let policy = Policy::deny_all().allow("double");
        let builder = hosted_builder(&image).backend(backend).policy(policy);
        let mut sandbox = builder.build().unwrap();
        assert_eq!(sandbox.call::<u64>("double_times", (1_u64, 20_u32)).unwrap(), 1 << 20);
        let stats = sandbox.stats();
        assert_eq!((stats.host_calls, stats.exits), (20, 21));
        let due = hypervisor_calls(backend, 21);
        assert!(due.contains(&stats.hypervisor_calls), "{stats:?}, not {due:?}");
    }
}

#[test]
fn a_megabyte_goes_each_way_unchanged() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1] ^ 0x5a).collect();
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sandbox.call::<u64>("checksum", (&bytes[..],)).unwrap(), sum);
        assert_eq!(sandbox.call::<Vec<u8>>("echo_bytes", (&bytes[..],)).unwrap(), bytes);
        assert_eq!(sandbox.call::<Vec<u8>>("echo_bytes", (bytes.clone(),)).unwrap(), bytes);
        // One exit more, and some hypervisor calls, once: for the place of long
        // arguments and of most of the heap, which the guest then asks for.
        const EXTENDING: u64 = 2;
        for exits in [4, 5] {
            let stats = sandbox.stats();
            let due = hypervisor_calls(sandbox.backend(), exits);
            let due = *due.start()..=*due.end() + EXTENDING;
            assert_eq!(stats.exits, exits);
            assert!(due.contains(&stats.hypervisor_calls), "{stats:?}, not {due:?}");
            assert_eq!(sandbox.call::<Vec<u8>>("echo_bytes", (&bytes[..],)).unwrap(), bytes);
        }
    });
}

#[test]
fn a_message_over_the_limit_is_refused_and_the_sandbox_goes_on() {
    for backend in backends() {
        let image = Image::from_bytes(basics()).unwrap();
        let builder = Sandbox::builder(&image).backend(backend).message_bytes(4096);
        let mut sandbox = builder.build().unwrap();
        let long = vec![0_u8; 4095];
        let error = sandbox.call::<u64>("length", (&long[..],)).unwrap_err();
        let text = "the arguments take 4097 bytes, the sandbox's limit is 4096";
        assert!(error.to_string().starts_with(text), "{error}");
        assert_eq!(sandbox.call::<u64>("length", (&long[1..],)).unwrap(), 4094, "just fits");
        let error = sandbox.call::<Vec<u8>>("make_bytes", (4095_u32,)).unwrap_err();
        assert!(matches!(error, CallError::ResultTooLarge { bytes: 4097, limit: 4096 }), "{error}");
        assert_eq!(sandbox.call::<Vec<u8>>("make_bytes", (4094_u32,)).unwrap().len(), 4094);
    }
}

#[test]
fn what_does_not_fit_is_named_from_both_sides_before_anything_runs() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let text = |error: CallError| error.to_string();
        let unknown = text(sandbox.call::<i32>("subtract", (1, 2)).unwrap_err());
        assert!(unknown.starts_with("the image exports no function `subtract`; it exports "));
        assert!(unknown.contains("add"), "{unknown}");
        let result = text(sandbox.call::<i64>("add", (1, 2)).unwrap_err());
        let expected = "guest function `add`: the image exports fn(i32, i32) -> i32, \
                        the host calls fn(i32, i32) -> i64";
        assert_eq!(result, expected);
        assert!(text(sandbox.call::<i32>("add", (1,)).unwrap_err()).contains("fn(i32) -> i32"));
        let typed = sandbox.function::<(String,), Vec<u8>>("echo").unwrap_err();
        assert!(typed.to_string().contains("the host calls fn(str) -> [u8]"));
        assert_eq!(sandbox.stats().exits, 0);
        assert_eq!(sandbox.call::<i32>("add", (1, 2)).unwrap(), 3);
    });
}

#[test]
fn a_handle_of_another_image_is_refused() {
    for backend in backends() {
        let images = [basics(), basics()].map(|bytes| Image::from_bytes(bytes).unwrap());
        let [mut one, mut other] = images
            .each_ref()
            .map(|image| Sandbox::builder(image).backend(backend).build().unwrap());
        let add = one.function::<(i32, i32), i32>("add").unwrap();
        assert_eq!(add.call(&mut one, (1, 2)).unwrap(), 3);
        let error = add.call(&mut other, (1, 2)).unwrap_err();
        assert!(matches!(error, CallError::OtherImage { .. }), "{error}");
    }
}

#[test]
fn imports_are_checked_when_the_sandbox_is_built() {
    let image = Image::from_bytes(hosted()).unwrap();
    let missing = Sandbox::builder(&image).build().unwrap_err().to_string();
    assert!(missing.contains("not registered: `double`: fn(u64) -> u64"), "{missing}");
    let other = Sandbox::builder(&image).host_function("double", |n: u32| n).build();
    let expected = "host function `double`: the image imports fn(u64) -> u64, \
                    the host registered fn(u32) -> u32";
    assert_eq!(other.unwrap_err().to_string(), expected);
    let twice = hosted_builder(&image).host_function("double", |n: u64| n).build().unwrap_err();
    assert!(matches!(twice, BuildError::RegisteredTwice { .. }), "{twice}");
    let small = hosted_builder(&image).heap_bytes(1).build().unwrap_err().to_string();
    assert_eq!(small, "heap of 1 bytes: must be between 65536 and 4294967296");
}

#[test]
fn registering_a_host_function_does_not_permit_it() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let (sink, trail) = MemorySink::new(100);
        let mut sandbox = hosted_builder(&image).backend(backend).audit(sink).build().unwrap();
        let answer: Result<u64, String> = sandbox.call("try_double", (4_u64,)).unwrap();
        assert_eq!(answer, Err(HostError::Denied.to_string()));
        assert_eq!(sandbox.poison(), None, "a denial is an answer");
        drop(sandbox);
        let events: Vec<_> = trail.records().into_iter().map(|record| record.event).collect();
        let deny = Verdict::Deny(HostError::Denied);
        assert!(
            matches!(&events[..], [
                Event::Created { .. },
                Event::CallBegan { call: 0, function },
                Event::HostCallOpened { function: host, verdict, .. },
                Event::CallReturned { call: 0, .. },
                Event::Dropped,
            ] if &**function == "try_double" && &**host == "double" && *verdict == deny),
            "{events:#?}"
        );
    }
}

#[test]
fn an_allowed_host_call_is_recorded_before_and_after() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let (sink, trail) = MemorySink::new(100);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inner, during) = (Arc::clone(&seen), trail.clone());
        let mut sandbox = Sandbox::builder(&image)
            .backend(backend)
            .host_function("double", move |n: u64| {
                inner.lock().unwrap().push((n, during.records().last().unwrap().event.clone()));
                n * 2
            })
            .policy(Policy::deny_all().allow("double"))
            .audit(sink)
            .build()
            .unwrap();
        assert_eq!(sandbox.call::<u64>("double_by_host", (4_u64,)).unwrap(), 8);
        let seen = seen.lock().unwrap();
        let [(4, Event::HostCallOpened { verdict: Verdict::Allow, .. })] = &seen[..] else {
            panic!("the call should be on record while the handler runs: {seen:?}");
        };
        let records = trail.records();
        let closed = &records[records.len() - 2].event;
        assert!(
            matches!(closed, Event::HostCallClosed { outcome: Outcome::Replied { bytes: 1 }, .. }),
            "{closed:?}"
        );
        assert!(records.iter().zip(0..).all(|(record, n)| record.sequence == n));
    }
}

#[test]
fn a_host_function_that_panics_costs_only_the_sandbox() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let mut sandbox = Sandbox::builder(&image)
            .backend(backend)
            .host_function("double", |n: u64| if n == 0 { panic!("on purpose") } else { n })
            .policy(Policy::deny_all().allow("double"))
            .build()
            .unwrap();
        let error = sandbox.call::<u64>("double_by_host", (0_u64,)).unwrap_err();
        assert_eq!(error.to_string(), "the host function `double` panicked");
        let error = sandbox.call::<()>("nothing", ()).unwrap_err();
        assert!(error.to_string().contains("poisoned (a host function panicked)"), "{error}");
    }
}

#[test]
fn log_records_cost_no_exit_each_and_pass_only_by_policy() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        for (policy, bytes_out) in [
            (Policy::deny_all(), 0),
            (Policy::deny_all().allow_log(LogLevel::Warn), 0),
            // Ten times the target `hosted`, a zero byte, and `record 0`.
            (Policy::deny_all().allow_log(LogLevel::Info), 10 * (6 + 1 + 8)),
        ] {
            let builder = hosted_builder(&image).backend(backend).policy(policy);
            let mut sandbox = builder.build().unwrap();
            sandbox.call::<()>("log_times", (10_u32,)).unwrap();
            let stats = sandbox.stats();
            assert_eq!((stats.log_records, stats.exits), (10, 1), "ten records ride with a return");
            assert_eq!(stats.bytes_out, bytes_out, "records that may not pass are not even read");
            sandbox.call::<()>("log_times", (1000_u32,)).unwrap();
            let exits = sandbox.stats().exits;
            assert!(exits < 60, "1000 records should take one exit a ring, not {exits}");
            assert_eq!(sandbox.stats().log_records, 1010);
        }
    }
}

#[test]
fn log_text_of_a_guest_reaches_the_subscriber_without_control_characters() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let policy = Policy::deny_all().allow_log(LogLevel::Trace);
        let builder = hosted_builder(&image).backend(backend).policy(policy);
        let mut sandbox = builder.build().unwrap();
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            sandbox.call::<()>("log_text", ("one\x1b[2J\ntwo",)).unwrap();
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains(r"one\u{1b}[2J\ntwo"), "{text}");
        assert!(text.contains("WARN"), "{text}");
    }
}

#[test]
fn vector_and_x87_state_survive_the_doorbell() {
    if !std::is_x86_feature_detected!("avx") {
        return println!("this processor has no AVX: nothing to test");
    }
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let mut sandbox = hosted_builder(&image).backend(backend).build().unwrap();
        assert!(sandbox.call::<bool>("vectors_survive_a_doorbell", ()).unwrap());
    }
}

#[test]
fn the_allocator_serves_many_sizes_and_large_heaps() {
    for backend in backends() {
        let image = Image::from_bytes(basics()).unwrap();
        let builder = Sandbox::builder(&image).backend(backend).heap_bytes(256 << 20);
        let mut sandbox = builder.build().unwrap();
        assert!(sandbox.call::<u64>("churn", (300_u32,)).unwrap() > 100_000);
        let pages = sandbox.call::<u64>("fill_heap", (200_u64 << 20,)).unwrap();
        assert_eq!(pages, 200 << 8, "200 MiB of 256 MiB are usable");
    }
}

#[test]
fn a_borrowed_argument_need_not_outlive_the_call() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let echo = sandbox.function::<(&str,), String>("echo").unwrap();
        for n in 0..3 {
            let text = format!("text {n}");
            assert_eq!(echo.call(&mut sandbox, (&text,)).unwrap(), text);
        }
    });
}
