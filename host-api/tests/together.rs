//! Tasks and the host: calls in flight, work in the background, clocks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cellule::{CallError, GuestFault, Image, Policy, ReplyHandle, Sandbox, SandboxBuilder, Time};
use support::backends;

/// Replies that the host owes.
type Owed = Arc<Mutex<Vec<(u32, ReplyHandle<u32>)>>>;

/// Runs a test on every backend. `later` is answered from another thread when
/// `group` calls are there, the last first; `now` at once.
fn with_group(group: usize, test: impl Fn(SandboxBuilder, Owed)) {
    let image = Image::from_bytes(cellule_test_guests::together()).unwrap();
    for backend in backends() {
        let owed = Owed::default();
        let of_function = Arc::clone(&owed);
        let builder = Sandbox::builder(&image)
            .backend(backend)
            .host_function("now", |number: u32| number + 1)
            .deferred_host_function("later", move |reply: ReplyHandle<u32>, number: u32| {
                let mut owed = of_function.lock().unwrap();
                owed.push((number, reply));
                if owed.len() == group {
                    let group: Vec<_> = owed.drain(..).rev().collect();
                    std::thread::spawn(move || {
                        take_a_while();
                        group.into_iter().for_each(|(number, reply)| reply.reply(number * 10));
                    });
                }
            })
            .policy(Policy::deny_all().allow("now").allow("later"));
        test(builder, owed);
    }
}

/// So long that the guest goes on meanwhile, whatever the machine does.
fn take_a_while() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_hundred_tasks_have_calls_in_flight_and_each_gets_its_own_answer() {
    with_group(100, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        let numbers: Vec<u32> = (0..100).collect();
        for _ in 0..3 {
            let answers: Vec<Result<u32, String>> =
                sandbox.call("ask_for_all", (numbers.clone(), false)).unwrap();
            assert!(answers.into_iter().eq((0..100).map(|n| Ok(n * 10))));
        }
    });
}

#[test]
fn calls_that_are_answered_at_once_go_to_their_own_tasks() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        let numbers: Vec<u32> = (0..50).collect();
        let answers: Vec<Result<u32, String>> =
            sandbox.call("ask_for_all", (numbers, true)).unwrap();
        assert!(answers.into_iter().eq((1..=50).map(Ok)));
    });
}

#[test]
fn a_task_that_waits_for_the_host_lets_the_others_run() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        let (answer, counted): (u32, u64) = sandbox.call("count_while_waiting", (7_u32,)).unwrap();
        assert_eq!(answer, 70);
        assert!(counted > 0, "the other task should have run, and been interrupted");
    });
}

#[test]
fn the_reply_of_a_killed_task_disturbs_nobody() {
    with_group(usize::MAX, |builder, owed| {
        let mut sandbox = builder.build().unwrap();
        let all_at_once = std::thread::spawn({
            let owed = Arc::clone(&owed);
            move || {
                let mut answered = 0;
                while answered < 4 {
                    let next = owed.lock().unwrap().pop();
                    match next {
                        Some((number, reply)) => {
                            reply.reply(number + 100);
                            answered += 1;
                        }
                        None => std::thread::yield_now(),
                    }
                }
            }
        });
        let answers: Vec<u32> = sandbox.call("kill_one_that_waits", (9_u32,)).unwrap();
        assert_eq!(answers, [101, 102, 103]);
        all_at_once.join().unwrap();
    });
}

#[test]
fn tasks_killed_with_their_replies_do_not_clog_the_ring() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        let limit = Duration::from_secs(20);
        let answer: u32 =
            sandbox.call_within(limit, "kill_those_that_were_answered", (40_u32,)).unwrap();
        assert_eq!(answer, 70);
    });
}

#[test]
fn tasks_stand_still_between_calls_and_go_on_while_they_may() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.time(Time::Virtual).build().unwrap();
        sandbox.call::<()>("start_ticking", (1_000_000_u64,)).unwrap();
        let before: u64 = sandbox.call("ticks", ()).unwrap();
        assert_eq!(before, 0, "no time passes while nobody waits");
        sandbox.run_for(Duration::from_millis(250)).unwrap();
        assert_eq!(sandbox.call::<u64>("ticks", ()).unwrap(), 250);
        let idle = sandbox.run_until_idle().unwrap();
        assert_eq!(idle.next_deadline, Some(Duration::from_millis(1)));
        sandbox.run_for(Duration::from_secs(3600)).unwrap();
        assert_eq!(sandbox.call::<u64>("ticks", ()).unwrap(), 250 + 3_600_000);
        let (monotonic, wall): (u64, u64) = sandbox.call("clocks", ()).unwrap();
        assert_eq!((monotonic, wall), (3_600_250_000_000, 3_600_250_000_000));
    });
}

#[test]
fn a_spinning_task_is_stopped_when_its_time_is_over_and_a_more_urgent_call_goes_first() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        sandbox.call::<()>("start_spinning", (20_u8,)).unwrap();
        sandbox.run_for(Duration::from_millis(20)).unwrap();
        let first: u64 = sandbox.call("ticks", ()).unwrap();
        assert!(first > 0);
        sandbox.run_for(Duration::from_millis(20)).unwrap();
        assert!(sandbox.call::<u64>("ticks", ()).unwrap() > first);
        // A call that is less urgent than a task which never waits does not return.
        let limit = Duration::from_millis(50);
        let outcome = sandbox.call_within::<u64>(limit, "ticks_patiently", ());
        assert!(matches!(outcome, Err(CallError::DeadlineExceeded { .. })), "{outcome:?}");
    });
}

#[test]
fn the_guests_clocks_are_the_hosts() {
    with_group(1, |builder, _| {
        let before = SystemTime::now();
        let mut sandbox = builder.build().unwrap();
        let (first, wall): (u64, u64) = sandbox.call("clocks", ()).unwrap();
        let after = SystemTime::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall);
        // A millisecond, for what the two clocks are read apart and rounded.
        let slack = Duration::from_millis(1);
        assert!(before <= wall + slack && wall <= after + slack, "{before:?} {wall:?} {after:?}");
        assert!(Duration::from_nanos(first) <= after.duration_since(before).unwrap() + slack);
        let (second, _): (u64, u64) = sandbox.call("clocks", ()).unwrap();
        assert!(second > first);
    });
}

#[test]
fn a_call_that_waits_for_what_never_comes_is_named_so() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        let error = sandbox.call::<()>("wait_for_ever", ()).unwrap_err();
        assert!(matches!(error, CallError::Guest(GuestFault::WaitsForNothing)), "{error}");
    });
}

#[test]
fn a_call_whose_task_is_killed_fails_and_the_sandbox_goes_on() {
    with_group(1, |builder, _| {
        let mut sandbox = builder.build().unwrap();
        for _ in 0..3 {
            let error = sandbox.call::<()>("kill_myself", ()).unwrap_err();
            assert!(matches!(error, CallError::TaskEnded), "{error}");
            assert_eq!(sandbox.call::<u64>("ticks", ()).unwrap(), 0);
        }
        assert_eq!(sandbox.poison(), None);
    });
}
