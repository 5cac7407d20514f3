//! Endless loops end: by an interrupt, or by a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::sync::Barrier;
use std::time::Duration;

use cellule::{CallError, Poison};
use cellule_test_guests::basics;
use support::on_every_backend;

#[test]
fn an_interrupt_ends_an_endless_loop_whenever_it_comes() {
    on_every_backend(basics(), |make| {
        for round in 0..200_u32 {
            let mut sandbox = make();
            let handle = sandbox.interrupt_handle();
            let start = Barrier::new(2);
            let outcome = std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    // Another moment in each round, before the call and in it.
                    (0..round * 200).for_each(|_| std::hint::spin_loop());
                    handle.interrupt();
                });
                start.wait();
                sandbox.call::<()>("spin", ())
            });
            let Err(CallError::Interrupted { started }) = outcome else {
                panic!("round {round}: {outcome:?}");
            };
            assert_eq!(sandbox.poison(), started.then_some(Poison::Interrupted));
        }
    });
}

#[test]
fn an_early_interrupt_ends_the_next_call_and_only_that() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        sandbox.interrupt_handle().interrupt();
        let error = sandbox.call::<i32>("add", (1, 2)).unwrap_err();
        assert!(matches!(error, CallError::Interrupted { started: false }), "{error}");
        assert_eq!(sandbox.call::<i32>("add", (1, 2)).unwrap(), 3);
        assert_eq!(sandbox.stats().exits, 1);
    });
}

#[test]
fn an_interrupt_stops_its_own_sandbox_and_no_sibling() {
    on_every_backend(basics(), |make| {
        let (mut sandbox, mut sibling) = (make(), make());
        let handle = sandbox.interrupt_handle();
        let outcome = std::thread::scope(|scope| {
            let runner = scope.spawn(|| sandbox.call::<()>("spin", ()));
            assert_eq!(sibling.call::<i32>("add", (2, 2)).unwrap(), 4);
            handle.interrupt();
            runner.join().unwrap()
        });
        assert!(matches!(outcome, Err(CallError::Interrupted { .. })), "{outcome:?}");
        assert_eq!(sibling.call::<i32>("add", (2, 2)).unwrap(), 4);
    });
}

#[test]
fn a_deadline_ends_an_endless_loop_and_not_a_quick_call() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let hour = Duration::from_secs(3600);
        assert_eq!(sandbox.call_within::<i32>(hour, "add", (1, 2)).unwrap(), 3);
        assert_eq!(sandbox.call_within::<i32>(Duration::MAX, "add", (1, 2)).unwrap(), 3);
        let limit = Duration::from_millis(20);
        let error = sandbox.call_within::<()>(limit, "spin", ()).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded { limit: l } if l == limit), "{error}");
        assert_eq!(sandbox.poison(), Some(Poison::DeadlineExceeded));
        let error = sandbox.call::<i32>("add", (1, 2)).unwrap_err();
        assert!(matches!(error, CallError::Poisoned { cause: Poison::DeadlineExceeded }));
    });
}

#[test]
fn a_deadline_that_has_passed_ends_the_call_before_the_guest_runs() {
    on_every_backend(basics(), |make| {
        let mut sandbox = make();
        let error = sandbox.call_within::<()>(Duration::ZERO, "spin", ()).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
        assert_eq!(sandbox.stats().exits, 0);
    });
}

#[test]
fn many_deadlines_in_a_row_all_hold() {
    on_every_backend(basics(), |make| {
        for micros in (1..400).step_by(7) {
            let mut sandbox = make();
            let limit = Duration::from_micros(micros);
            let error = sandbox.call_within::<()>(limit, "spin", ()).unwrap_err();
            assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
        }
    });
}
