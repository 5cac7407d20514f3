//! Guests are interrupted at their deadlines and when replies come, wait without
//! the processor, and can lie about all of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::time::{Duration, Instant, SystemTime};

use cellule::{CallError, Poison, Time};
use support::raw::{Ask, LIMIT, plain, with_raw};

/// Longer than any scheduling hiccup of a busy machine is short.
const MILLI: u64 = 1_000_000;

#[test]
fn a_spinning_guest_gets_an_upcall_at_its_deadline_and_all_registers_stay() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        assert_eq!(sandbox.ask("upcalls_while_spinning", [1, MILLI, 0, 0]).unwrap(), 1);
        assert_eq!(sandbox.stats().upcalls, 1);
        assert_eq!(sandbox.poison(), None);
    });
}

#[test]
fn a_thousand_upcalls_leave_all_registers_intact() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        let exits = sandbox.stats().exits;
        assert_eq!(sandbox.ask("upcalls_while_spinning", [1000, 300_000, 0, 0]).unwrap(), 1);
        let stats = sandbox.stats();
        assert!(stats.upcalls >= 1000, "{stats:?}");
        let each = (stats.exits - exits) as f64 / stats.upcalls as f64;
        println!("{each:.2} exits an upcall, {stats:?}");
        assert!(each < 2.5, "an upcall is one exit, and one more if the guest is behind");
    });
}

#[test]
fn a_masked_guest_finds_the_pending_word_and_is_not_diverted() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        assert_eq!(sandbox.ask("upcalls_while_masked", [MILLI, 0, 0, 0]).unwrap(), 0);
        assert_eq!(sandbox.stats().upcalls, 0);
    });
}

#[test]
fn a_waiting_guest_goes_on_at_its_deadline_and_not_before() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        for micros in [1, 50, 1000, 5000] {
            let exits = sandbox.stats().exits;
            let slept = sandbox.ask("sleep", [micros * 1000, 0, 0, 0]).unwrap();
            assert!(slept >= micros * 1000, "{slept} ns");
            let exits = sandbox.stats().exits - exits;
            assert!(exits <= 2, "one for the wait, one for the return, not {exits}");
        }
    });
}

#[test]
fn a_waiting_guest_takes_no_processor_time() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        sandbox.ask("count", [0; 4]).unwrap();
        let before = thread_cpu();
        sandbox.ask("sleep", [200 * MILLI, 0, 0, 0]).unwrap();
        let used = thread_cpu() - before;
        assert!(used < Duration::from_millis(100), "{used:?} of 200 ms");
    });
}

/// What the scheduler says of this thread: nanoseconds on the processor come first.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

#[test]
fn the_clock_of_a_guest_runs_with_the_hosts() {
    with_raw(|builder| {
        let before = Instant::now();
        let mut sandbox = plain(builder());
        let built = before.elapsed();
        let first = sandbox.ask("time", [0; 4]).unwrap();
        let at_first = before.elapsed();
        sandbox.run_for(Duration::from_millis(20)).unwrap();
        let second = sandbox.ask("time", [0; 4]).unwrap();
        assert!(first <= u64::try_from(at_first.as_nanos()).unwrap(), "{first} after {at_first:?}");
        assert!(second >= first + 20 * MILLI, "{first}, {second}; built in {built:?}");
        let unix = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let before = unix();
        let wall = Duration::from_nanos(sandbox.ask("time", [1, 0, 0, 0]).unwrap());
        let slack = Duration::from_millis(1);
        assert!(wall + slack >= before && wall <= unix() + slack, "{wall:?} after {before:?}");
    });
}

#[test]
fn a_deadline_ends_the_wait_of_a_call() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        let limit = Duration::from_millis(20);
        let args = (3_600_000 * MILLI, 0_u64, 0_u64, 0_u64);
        let error = sandbox.call_within::<u64>(limit, "sleep", args).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
    });
}

#[test]
fn a_guest_that_is_idle_tells_its_next_deadline_and_stands_still() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        assert_eq!(sandbox.run_until_idle().unwrap().next_deadline, None);
        let hour = 3_600_000 * MILLI;
        sandbox.ask("background", [hour, 0, 0, 0]).unwrap();
        let idle = sandbox.run_until_idle().unwrap();
        let next = idle.next_deadline.unwrap();
        assert!(next <= Duration::from_nanos(hour), "{next:?}");
        assert!(next > Duration::from_nanos(hour / 2), "{next:?}");
        assert_eq!(sandbox.ask("ticks", [0; 4]).unwrap(), 0);
    });
}

#[test]
fn a_guest_ticks_for_as_long_as_it_may_run_and_not_longer() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        sandbox.ask("background", [2 * MILLI, 0, 0, 0]).unwrap();
        let before = sandbox.ask("ticks", [0; 4]).unwrap();
        sandbox.run_for(Duration::from_millis(30)).unwrap();
        let ticks = sandbox.ask("ticks", [0; 4]).unwrap();
        assert!(ticks > before, "{before}, {ticks}");
        // What was missed while nobody ran it is caught up within a run.
        sandbox.run_until_idle().unwrap();
        assert!(sandbox.stats().exits < 200, "{:?}", sandbox.stats());
    });
}

#[test]
fn a_busy_guest_stops_where_it_is_and_an_upcall_brings_it_the_next_call() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        sandbox.ask("background", [1, 0, 0, 0]).unwrap();
        for round in 1..=5 {
            sandbox.run_for(Duration::from_millis(2)).unwrap();
            assert_eq!(sandbox.ask("count", [0; 4]).unwrap(), round, "one upcall each");
        }
        assert_eq!(sandbox.poison(), None);
    });
}

#[test]
fn an_interrupt_ends_a_run_and_a_wait() {
    with_raw(|builder| {
        for round in 0..50_u32 {
            let mut sandbox = plain(builder());
            let waits = round % 2 == 0;
            sandbox.ask("background", [u64::from(!waits), 0, 0, 0]).unwrap();
            let handle = sandbox.interrupt_handle();
            let outcome = std::thread::scope(|scope| {
                scope.spawn(|| {
                    (0..round * 1000).for_each(|_| std::hint::spin_loop());
                    handle.interrupt();
                });
                sandbox.run_for(LIMIT)
            });
            let Err(CallError::Interrupted { started }) = outcome else { panic!("{outcome:?}") };
            assert_eq!(sandbox.poison(), started.then_some(Poison::Interrupted));
        }
    });
}

#[test]
fn a_virtual_clock_is_told_how_far_it_may_go_and_takes_no_time() {
    with_raw(|builder| {
        let mut sandbox = plain(builder().time(Time::Virtual));
        assert_eq!(sandbox.ask("time", [0; 4]).unwrap(), 0);
        assert_eq!(sandbox.ask("time", [1, 0, 0, 0]).unwrap(), 0, "it starts at 1970-01-01");
        assert_eq!(sandbox.ask("set_virtual_now", [500, 0, 0, 0]).unwrap(), u64::MAX);
        let day = Duration::from_secs(24 * 3600);
        sandbox.run_for(day).unwrap();
        let limit = sandbox.ask("limit_seen", [0; 4]).unwrap();
        assert_eq!(limit, 500 + u64::try_from(day.as_nanos()).unwrap());
        sandbox.run_until_idle().unwrap();
        assert_eq!(sandbox.ask("limit_seen", [0; 4]).unwrap(), 500, "it stands still");
        // A day later, by its own account.
        sandbox.ask("background", [day.as_secs() * 1_000_000_000, 0, 0, 0]).unwrap();
        let idle = sandbox.run_until_idle().unwrap();
        assert_eq!(idle.next_deadline, Some(day));
        assert!(sandbox.stats().kicks == 0, "no alarm is ever armed for it");
    });
}
