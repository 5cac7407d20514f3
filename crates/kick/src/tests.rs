use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

/// Stands for a vCPU call that the signal cannot interrupt: it sees the flag.
fn spin_until(flag: &AtomicU8) {
    while flag.load(Ordering::SeqCst) == 0 {
        std::hint::spin_loop();
    }
}

#[test]
fn a_kick_before_the_run_forbids_it() {
    let target = Target::new().unwrap();
    target.kicker().kick();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    assert!(unsafe { target.enter(flag.as_ptr()) }.is_none());
    target.clear();
    // SAFETY: the flag outlives the guard.
    assert!(unsafe { target.enter(flag.as_ptr()) }.is_some());
}

#[test]
fn a_kick_at_any_moment_stops_every_run() {
    for _ in 0..2000 {
        let target = Target::new().unwrap();
        let kicker = target.kicker();
        let (ready, wait) = mpsc::channel();
        let runner = std::thread::spawn(move || {
            let flag = AtomicU8::new(0);
            ready.send(()).unwrap();
            // SAFETY: the flag outlives the guard.
            if let Some(_running) = unsafe { target.enter(flag.as_ptr()) } {
                spin_until(&flag);
            }
        });
        wait.recv().unwrap();
        kicker.kick();
        runner.join().unwrap();
    }
}

#[test]
fn a_nudge_before_the_run_forbids_it_once_and_is_no_request_to_end() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    target.kicker().nudge();
    target.kicker().nudge();
    // SAFETY: the flag outlives the guard.
    assert!(unsafe { target.enter(flag.as_ptr()) }.is_none());
    assert!(!target.is_requested());
    // SAFETY: the flag outlives the guard.
    assert!(unsafe { target.enter(flag.as_ptr()) }.is_some());
}

#[test]
fn a_nudge_that_stopped_a_run_does_not_stop_the_next() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    // A signal to one's own thread is delivered before tgkill returns.
    target.kicker().nudge();
    assert_eq!(flag.swap(1, Ordering::SeqCst), 1);
    drop(running);
    flag.store(0, Ordering::SeqCst);
    // SAFETY: the flag outlives the guard.
    assert!(unsafe { target.enter(flag.as_ptr()) }.is_some());
}

#[test]
fn a_nudge_at_any_moment_stops_every_run() {
    for _ in 0..2000 {
        let target = Target::new().unwrap();
        let kicker = target.kicker();
        let (ready, wait) = mpsc::channel();
        let runner = std::thread::spawn(move || {
            let flag = AtomicU8::new(0);
            ready.send(()).unwrap();
            // SAFETY: the flag outlives the guard.
            if let Some(_running) = unsafe { target.enter(flag.as_ptr()) } {
                spin_until(&flag);
            }
            target.is_requested()
        });
        wait.recv().unwrap();
        kicker.nudge();
        assert!(!runner.join().unwrap(), "a nudge should NOT be a request to end");
    }
}

/// Every nudge follows a change, and the next change waits until this one was
/// seen: if a nudge were lost, at any point of a run, both would wait for ever.
#[test]
fn what_was_done_before_a_nudge_is_seen_after_a_stop() {
    const CHANGES: u64 = 20_000;
    static DONE: AtomicU64 = AtomicU64::new(0);
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let target = Target::new().unwrap();
    let kicker = target.kicker();
    let nudger = std::thread::spawn(move || {
        for change in 1..=CHANGES {
            DONE.store(change, Ordering::SeqCst);
            kicker.nudge();
            while SEEN.load(Ordering::SeqCst) < change {
                std::hint::spin_loop();
            }
        }
    });
    while SEEN.load(Ordering::SeqCst) < CHANGES {
        let flag = AtomicU8::new(0);
        // SAFETY: the flag outlives the guard.
        if let Some(_running) = unsafe { target.enter(flag.as_ptr()) } {
            spin_until(&flag);
        }
        SEEN.store(DONE.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    nudger.join().unwrap();
}

#[test]
fn an_alarm_stops_a_run_and_a_dropped_alarm_does_not() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    drop(Alarm::at(Instant::now() + Duration::from_secs(3600)).unwrap());
    assert_eq!(flag.load(Ordering::SeqCst), 0);
    let _alarm = Alarm::at(Instant::now() + Duration::from_millis(1)).unwrap();
    spin_until(&flag);
}

#[test]
fn an_alarm_between_two_runs_stops_the_second() {
    let target = Target::new().unwrap();
    let _alarm = Alarm::at(Instant::now()).unwrap();
    while !MISSED.get() {
        std::hint::spin_loop();
    }
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    assert!(unsafe { target.enter(flag.as_ptr()) }.is_none());
}

#[test]
fn an_alarm_within_an_alarm_gives_the_outer_one_back() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    let _outer = Alarm::at(Instant::now() + Duration::from_millis(5)).unwrap();
    drop(Alarm::at(Instant::now() + Duration::from_secs(3600)).unwrap());
    spin_until(&flag);
}

#[test]
fn an_alarm_in_the_past_rings_at_once() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    let _alarm = Alarm::at(Instant::now()).unwrap();
    spin_until(&flag);
}

#[test]
fn an_alarm_can_be_silenced_and_moved() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    let soon = Instant::now() + Duration::from_millis(1);
    let mut alarm = Alarm::at(soon + Duration::from_secs(3600)).unwrap();
    alarm.set(Some(soon + Duration::from_secs(1800))).unwrap();
    alarm.set(None).unwrap();
    assert_eq!(flag.load(Ordering::SeqCst), 0);
    alarm.set(Some(soon)).unwrap();
    spin_until(&flag);
    flag.store(0, Ordering::SeqCst);
    alarm.set(Some(Instant::now())).unwrap();
    spin_until(&flag);
}

#[test]
fn an_alarm_that_was_moved_gives_the_outer_one_back() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    let soon = Instant::now() + Duration::from_millis(5);
    let _outer = Alarm::at(soon).unwrap();
    let mut inner = Alarm::silent().unwrap();
    inner.set(Some(soon + Duration::from_secs(3600))).unwrap();
    inner.set(None).unwrap();
    drop(inner);
    spin_until(&flag);
}

/// The inner alarm rings at the outer one's time, and uses up that signal.
#[test]
fn an_outer_alarm_rings_again_after_an_inner_one_of_the_same_time() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    let soon = Instant::now() + Duration::from_millis(1);
    let _outer = Alarm::at(soon).unwrap();
    let inner = Alarm::at(soon).unwrap();
    spin_until(&flag);
    flag.store(0, Ordering::SeqCst);
    drop(inner);
    spin_until(&flag);
}

#[test]
fn an_outer_alarm_that_is_moved_takes_effect_once_it_is_the_innermost() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let _running = unsafe { target.enter(flag.as_ptr()) }.unwrap();
    let mut outer = Alarm::at(Instant::now() + Duration::from_secs(3600)).unwrap();
    let inner = Alarm::silent().unwrap();
    outer.set(Some(Instant::now())).unwrap();
    assert_eq!(flag.load(Ordering::SeqCst), 0);
    drop(inner);
    spin_until(&flag);
}

/// Stands for a run that a signal stops only while it waits.
fn wait_for_a_signal() {
    // SAFETY: no descriptors are named, so that it only waits.
    unsafe { libc::poll(ptr::null_mut(), 0, -1) };
}

#[test]
fn a_signal_that_comes_too_early_comes_again() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    for _ in 0..100 {
        // A late signal of the round before may stop one run for nothing.
        let running = std::iter::repeat_with(|| {
            // SAFETY: the flag outlives the guard.
            unsafe { target.enter_until_stopped(flag.as_ptr()) }.unwrap()
        });
        let running = { running }.flatten().next().unwrap();
        target.kicker().kick();
        assert_ne!(flag.swap(0, Ordering::SeqCst), 0, "the first signal should have come");
        wait_for_a_signal();
        assert_eq!(flag.load(Ordering::SeqCst), 1, "it should have come again");
        drop(running);
        target.clear();
        flag.store(0, Ordering::SeqCst);
    }
}

#[test]
fn a_signal_does_not_come_again_once_the_run_is_left() {
    let target = Target::new().unwrap();
    let flag = AtomicU8::new(0);
    // SAFETY: the flag outlives the guard.
    let running = unsafe { target.enter_until_stopped(flag.as_ptr()) }.unwrap();
    target.kicker().kick();
    drop(running);
    MISSED.set(false);
    let later = Instant::now() + 20 * AGAIN_EVERY;
    while Instant::now() < later {
        std::hint::spin_loop();
    }
    assert!(!MISSED.get(), "no signal should come");
}

#[test]
fn a_thread_that_is_ending_has_no_alarm_and_does_not_panic() {
    struct Last(mpsc::Sender<bool>);
    impl Drop for Last {
        fn drop(&mut self) {
            // Made before the timer, it goes after it.
            let refused = Alarm::at(Instant::now()).is_err();
            self.0.send(refused).unwrap();
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }
    let (told, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        LAST.set(Some(Last(told)));
        drop(Alarm::silent().unwrap());
    });
    thread.join().unwrap();
    // Which of the two goes first is the system's choice; neither may abort.
    println!("refused: {}", wait.recv().unwrap());
}
