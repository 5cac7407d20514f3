//! Host functions that answer later: from any thread, in any order, or never.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use cellule::{
    CallError, Event, GuestFault, HostError, Image, MemorySink, Outcome, Poison, Policy,
    ReplyHandle, Sandbox, SandboxBuilder, Verdict,
};
use cellule_test_guests::hosted;
use support::raw::{Ask, deferring, plain, with_raw};
use support::{backends, hypervisor_calls};

type Handles = mpsc::Receiver<(ReplyHandle<u64>, u64)>;

/// A sandbox, and the handles of its host calls as they are started.
fn with_handles(builder: SandboxBuilder) -> (Sandbox, Handles) {
    let (give, handles) = mpsc::channel();
    (deferring(builder, move |reply, n| give.send((reply, n)).unwrap()), handles)
}

/// A code as the raw guest returns it.
fn code(error: HostError) -> u64 {
    u64::from(error.code()) << 32
}

#[test]
fn an_answer_at_once_costs_no_more_than_that_of_an_ordinary_function() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        for n in 1..=20 {
            assert_eq!(sandbox.ask("call_and_wait", [n, 0, 0, 0]).unwrap(), n + 1000);
            let stats = sandbox.stats();
            assert_eq!(stats.exits, 2 * n);
            let due = hypervisor_calls(sandbox.backend(), 2 * n);
            assert!(due.contains(&stats.hypervisor_calls), "{stats:?}, not {due:?}");
        }
    });
}

#[test]
fn an_ordinary_guest_waits_for_a_deferred_function() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let mut sandbox = Sandbox::builder(&image)
            .backend(backend)
            .policy(Policy::deny_all().allow("double"))
            .deferred_host_function("double", |reply: ReplyHandle<u64>, n: u64| {
                std::thread::spawn(move || reply.reply(n * 2));
            })
            .build()
            .unwrap();
        assert_eq!(sandbox.call::<u64>("double_times", (1_u64, 50_u32)).unwrap(), 1 << 50);
        let stats = sandbox.stats();
        assert_eq!((stats.exits, stats.host_calls), (51, 50), "waiting is no exit");
    }
}

#[test]
fn a_reply_interrupts_a_spinning_guest() {
    with_raw(|builder| {
        let mut sandbox = deferring(builder(), |reply, n| {
            std::thread::spawn(move || reply.reply(n * 3));
        });
        for n in 1..=20 {
            assert_eq!(sandbox.ask("call_and_spin", [n, 0, 0, 0]).unwrap(), n * 3);
        }
        // A thread may be faster than the doorbell: not twenty times.
        assert!(sandbox.stats().upcalls > 0, "{:?}", sandbox.stats());
        assert_eq!(sandbox.poison(), None);
    });
}

#[test]
fn many_calls_are_answered_from_many_threads_in_another_order() {
    with_raw(|builder| {
        let (mut sandbox, handles) = with_handles(builder());
        for _ in 0..10 {
            let order = std::thread::scope(|scope| {
                let caller = scope.spawn(|| sandbox.ask("call_many", [20, 0, 0, 0]).unwrap());
                let mut taken: Vec<_> = handles.iter().take(20).collect();
                // The last eight by one thread, last first; the others by threads of their own.
                for (reply, n) in taken.drain(12..).rev() {
                    reply.reply(n + 1000);
                }
                for (reply, n) in taken {
                    scope.spawn(move || reply.reply(n + 1000));
                }
                caller.join().unwrap()
            });
            assert_eq!(order.to_le_bytes(), [19, 18, 17, 16, 15, 14, 13, 12]);
        }
        assert_eq!(sandbox.stats().in_flight, 0);
    });
}

#[test]
fn a_dropped_handle_answers_that_the_function_failed() {
    with_raw(|builder| {
        let mut sandbox = deferring(builder(), |reply, n| match n {
            0 => drop(reply),
            1 => drop(std::thread::spawn(move || drop(reply))),
            _ => reply.fail(),
        });
        for n in 0..3 {
            let got = sandbox.ask("call_and_wait", [n, 0, 0, 0]).unwrap();
            assert_eq!(got, code(HostError::Failed));
        }
    });
}

#[test]
fn a_reply_after_the_sandbox_is_gone_is_harmless_and_the_call_is_closed_on_record() {
    with_raw(|builder| {
        let (sink, trail) = MemorySink::new(100);
        let (mut sandbox, handles) = with_handles(builder().audit(sink));
        let limit = Duration::from_millis(10);
        let args = (5_u64, 0_u64, 0_u64, 0_u64);
        let error = sandbox.call_within::<u64>(limit, "call_and_wait", args).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
        assert_eq!(sandbox.stats().in_flight, 1);
        drop(sandbox);
        let (reply, _) = handles.recv().unwrap();
        reply.reply(7);
        let records = trail.records();
        let [.., closed, dropped] = &records[..] else { panic!("{records:?}") };
        assert_eq!(dropped.event, Event::Dropped);
        let Event::HostCallClosed { request: 1, outcome: Outcome::Abandoned, .. } = closed.event
        else {
            panic!("{closed}")
        };
    });
}

#[test]
fn a_deferred_call_is_on_record_from_its_start_to_its_reply() {
    with_raw(|builder| {
        let (sink, trail) = MemorySink::new(100);
        let during = trail.clone();
        let mut sandbox = deferring(builder().audit(sink), move |reply, n| {
            let last = during.records().pop().unwrap().event;
            let open = matches!(&last, Event::HostCallOpened { verdict: Verdict::Allow, function, .. }
                if &**function == "slow");
            assert!(open, "{last:?}");
            std::thread::spawn(move || reply.reply(n));
        });
        sandbox.ask("call_and_wait", [300, 0, 0, 0]).unwrap();
        let records = trail.records();
        let closed = &records[records.len() - 2].event;
        let outcome = Outcome::Replied { bytes: 2 };
        assert!(
            matches!(closed, Event::HostCallClosed { outcome: o, .. } if *o == outcome),
            "{closed:?}"
        );
    });
}

#[test]
fn calls_over_the_limit_in_flight_are_refused_and_the_others_go_on() {
    with_raw(|builder| {
        let (sink, trail) = MemorySink::new(100);
        let (mut sandbox, handles) = with_handles(builder().audit(sink).in_flight(0));
        let got = sandbox.ask("call_and_wait", [1, 0, 0, 0]).unwrap();
        assert_eq!(got, code(HostError::OverBudget));
        assert!(handles.try_recv().is_err(), "it was not started");
        let denied = Verdict::Deny(HostError::OverBudget);
        let on_record = |event: &Event| matches!(event, Event::HostCallOpened { verdict, .. } if *verdict == denied);
        assert!(trail.records().iter().any(|record| on_record(&record.event)));
    });
}

#[test]
fn a_panic_when_a_deferred_call_starts_poisons_the_sandbox() {
    with_raw(|builder| {
        let mut sandbox = deferring(builder(), |_, _| panic!("on purpose"));
        let error = sandbox.ask("call_and_wait", [1, 0, 0, 0]).unwrap_err();
        assert_eq!(error.to_string(), "the host function `slow` panicked");
        assert_eq!(sandbox.poison(), Some(Poison::HostFunctionPanicked));
    });
}

#[test]
fn an_interrupt_ends_the_wait_for_a_reply() {
    with_raw(|builder| {
        let (mut sandbox, handles) = with_handles(builder());
        let handle = sandbox.interrupt_handle();
        let outcome = std::thread::scope(|scope| {
            let caller = scope.spawn(|| sandbox.ask("call_and_wait", [1, 0, 0, 0]));
            let _kept = handles.recv().unwrap();
            handle.interrupt();
            caller.join().unwrap()
        });
        assert!(matches!(outcome, Err(CallError::Interrupted { started: true })), "{outcome:?}");
    });
}

#[test]
fn a_call_that_waits_for_nothing_is_told_apart_from_one_that_waits_for_a_reply() {
    with_raw(|builder| {
        let (mut sandbox, handles) = with_handles(builder());
        let error = std::thread::scope(|scope| {
            // One reply comes, and the guest waits for a second one.
            let caller = scope.spawn(|| sandbox.ask("wait_for_nothing", [1, 0, 0, 0]));
            let (reply, n) = handles.recv().unwrap();
            reply.reply(n);
            caller.join().unwrap().unwrap_err()
        });
        assert!(matches!(error, CallError::Guest(GuestFault::WaitsForNothing)), "{error}");
        assert!(error.to_string().contains("every task waits"), "{error}");
    });
}

#[test]
fn answers_that_come_while_nobody_runs_the_sandbox_are_there_at_the_next_run() {
    with_raw(|builder| {
        let (mut sandbox, handles) = with_handles(builder());
        sandbox.ask("call_later", [5, 0, 0, 0]).unwrap();
        assert_eq!(sandbox.run_until_idle().unwrap().in_flight, 1);
        let (reply, n) = handles.recv().unwrap();
        reply.reply(n * 2);
        assert_eq!(sandbox.run_until_idle().unwrap().in_flight, 0);
        assert_eq!(sandbox.ask("last_reply", [0; 4]).unwrap(), 10);
    });
}

#[test]
fn a_reply_that_comes_while_the_guest_waits_in_a_run_is_taken_in() {
    with_raw(|builder| {
        let (mut sandbox, handles) = with_handles(builder());
        sandbox.ask("call_later", [5, 0, 0, 0]).unwrap();
        std::thread::scope(|scope| {
            let (reply, n) = handles.recv().unwrap();
            scope.spawn(move || reply.reply(n * 2));
            sandbox.run_for(Duration::from_millis(50)).unwrap();
        });
        assert_eq!(sandbox.stats().in_flight, 0);
        assert_eq!(sandbox.ask("last_reply", [0; 4]).unwrap(), 10);
    });
}

#[test]
fn more_replies_than_the_ring_holds_all_arrive() {
    with_raw(|builder| {
        let (mut sandbox, handles) = with_handles(builder());
        for n in 0..100 {
            sandbox.ask("call_later", [n, 0, 0, 0]).unwrap();
        }
        let taken: Vec<_> = handles.try_iter().collect();
        assert_eq!(taken.len(), 100);
        for (reply, n) in taken {
            reply.reply(n);
        }
        // The ring is full of replies, and a call still finds its slot.
        assert!(sandbox.ask("last_reply", [0; 4]).unwrap() < 100);
        sandbox.run_until_idle().unwrap();
        assert_eq!(sandbox.stats().in_flight, 0);
        assert_eq!(sandbox.ask("last_reply", [0; 4]).unwrap(), 99);
    });
}

#[test]
fn a_handle_outlives_every_thread_and_sandbox_in_any_order() {
    with_raw(|builder| {
        for _ in 0..50 {
            let (mut sandbox, handles) = with_handles(builder());
            sandbox.ask("call_later", [5, 0, 0, 0]).unwrap();
            let (reply, _) = handles.recv().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || reply.reply(1));
                scope.spawn(move || drop(sandbox));
            });
        }
    });
}
