use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::future::block_on;
use crate::sync::tests_support::{poll_once, spawn_at};
use crate::sync::{EventFlags, Queue, Semaphore};
use crate::{task, time};

const SECOND: Duration = Duration::from_secs(1);

/// A timer that counts its expiries.
fn counting() -> (Timer, &'static AtomicU32) {
    let count: &'static AtomicU32 = Box::leak(Box::default());
    let timer = Timer::calling_with(
        |count: &AtomicU32| {
            count.fetch_add(1, Ordering::Relaxed);
        },
        count,
    );
    (timer, count)
}

#[test]
fn a_timer_expires_once() {
    let (timer, count) = counting();
    assert!(!timer.is_active());
    timer.start_once(SECOND).unwrap();
    assert!(timer.is_active());
    time::sleep(SECOND - Duration::from_nanos(1)).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 0);
    time::sleep(SECOND).unwrap();
    assert_eq!((count.load(Ordering::Relaxed), timer.is_active()), (1, false));
    time::sleep(10 * SECOND).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_timer_expires_every_period_and_does_not_drift() {
    let (timer, count) = counting();
    let start = time::now();
    timer.start_periodic(SECOND, 2 * SECOND).unwrap();
    time::sleep_until(start + Duration::from_millis(9500)).unwrap();
    assert_eq!((count.load(Ordering::Relaxed), timer.is_active()), (5, true));
    assert!(timer.stop());
    assert!(!timer.stop());
    time::sleep(10 * SECOND).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 5);
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let (timer, count) = counting();
    time::sleep(5 * SECOND).unwrap();
    timer.start_once_at(Instant::from_nanos(0)).unwrap();
    timer.start_once(Duration::ZERO).unwrap();
    assert_eq!((count.load(Ordering::Relaxed), timer.is_active()), (2, false));
    let waited = Timer::new();
    waited
        .start_periodic_at(Instant::from_nanos(time::now().as_nanos() - 3_500_000_000), SECOND)
        .unwrap();
    assert_eq!(waited.wait(Timeout::Now), Ok(4), "those that have passed come as one");
    assert_eq!(waited.wait(SECOND), Ok(1));
}

#[test]
fn a_deadline_at_the_end_of_all_time_does_not_come() {
    let (timer, count) = counting();
    timer.start_once(Duration::MAX).unwrap();
    let (periodic, other) = counting();
    periodic.start_periodic(SECOND, Duration::MAX).unwrap();
    time::sleep(1000 * SECOND).unwrap();
    assert_eq!((count.load(Ordering::Relaxed), other.load(Ordering::Relaxed)), (0, 1));
    assert!(timer.is_active() && periodic.is_active() && timer.stop() && periodic.stop());
}

#[test]
fn a_period_of_zero_is_refused() {
    let (timer, count) = counting();
    assert_eq!(timer.start_periodic(SECOND, Duration::ZERO), Err(StartError::ZeroPeriod));
    time::sleep(10 * SECOND).unwrap();
    assert_eq!((count.load(Ordering::Relaxed), timer.is_active()), (0, false));
}

#[test]
fn a_timer_that_is_dropped_does_not_expire() {
    let (timer, count) = counting();
    timer.start_periodic(SECOND, SECOND).unwrap();
    drop(timer);
    time::sleep(10 * SECOND).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn a_timer_of_a_killed_task_goes_on_and_touches_no_stack() {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let killed = spawn_at(9, || {
        let timer = Timer::calling(|| {
            COUNT.fetch_add(1, Ordering::Relaxed);
        });
        timer.start_once(SECOND).unwrap();
        time::sleep(Duration::MAX)
    });
    killed.task().kill();
    let other = spawn_at(9, || [0_u8; 1024]);
    time::sleep(2 * SECOND).unwrap();
    assert_eq!((COUNT.load(Ordering::Relaxed), other.join().unwrap()), (1, [0; 1024]));
}

#[test]
fn a_timers_function_may_stop_restart_and_drop_it() {
    static TIMER: Timer = Timer::calling(|| match COUNT.fetch_add(1, Ordering::Relaxed) {
        0..3 => TIMER.start_once(SECOND).unwrap(),
        _ => assert!(!TIMER.is_active()),
    });
    static COUNT: AtomicU32 = AtomicU32::new(0);
    TIMER.start_once(SECOND).unwrap();
    time::sleep(10 * SECOND).unwrap();
    assert_eq!(COUNT.load(Ordering::Relaxed), 4);
    static DROPS: std::sync::Mutex<Option<Timer>> = std::sync::Mutex::new(None);
    let timer = DROPS
        .lock()
        .unwrap()
        .insert(Timer::calling(|| *DROPS.lock().unwrap() = None))
        .start_once(SECOND);
    time::sleep(2 * SECOND).unwrap();
    assert!(timer.is_ok() && DROPS.lock().unwrap().is_none());
}

#[test]
fn a_timers_function_wakes_a_more_urgent_task_at_once() {
    static FLAGS: EventFlags = EventFlags::new();
    static TIMER: Timer = Timer::calling_with(|flags: &EventFlags| flags.set(1), &FLAGS);
    let waits = spawn_at(20, || FLAGS.wait_any(1, Timeout::Forever).map(|_| time::now()));
    let start = time::now();
    TIMER.start_once(SECOND).unwrap();
    time::work(3 * SECOND);
    assert_eq!(waits.join().unwrap(), Ok(start + SECOND));
}

#[test]
fn all_who_wait_are_told_and_nobody_twice() {
    static TIMER: Timer = Timer::new();
    let waits = [9, 9, 20].map(|p| spawn_at(p, || TIMER.wait(Timeout::Forever)));
    TIMER.start_periodic(SECOND, SECOND).unwrap();
    time::sleep(Duration::from_millis(1500)).unwrap();
    assert_eq!(waits.map(|task| task.join().unwrap()), [Ok(1), Ok(1), Ok(1)]);
    assert_eq!(TIMER.wait(Timeout::Now), Err(WaitError::WouldBlock));
    time::sleep(3 * SECOND).unwrap();
    assert_eq!(TIMER.wait(Timeout::Forever), Ok(3));
    TIMER.stop();
}

#[test]
fn a_wait_in_vain_says_why() {
    static TIMER: Timer = Timer::new();
    assert_eq!(TIMER.wait(SECOND), Err(WaitError::TimedOut));
    let cancelled = spawn_at(9, || TIMER.wait(Timeout::Forever));
    let killed = spawn_at(9, || TIMER.wait(Timeout::Forever));
    assert!(cancelled.task().cancel_wait());
    killed.task().kill();
    assert_eq!(cancelled.join().unwrap(), Err(WaitError::Cancelled));
    TIMER.start_once(SECOND).unwrap();
    assert_eq!(TIMER.wait(Timeout::Forever), Ok(1));
    static REFUSED: std::sync::Mutex<Option<WaitError>> = std::sync::Mutex::new(None);
    let other = Timer::calling(|| *REFUSED.lock().unwrap() = TIMER.wait(Timeout::Forever).err());
    other.start_once(Duration::ZERO).unwrap();
    assert_eq!(*REFUSED.lock().unwrap(), Some(WaitError::WrongContext));
    time::sleep(SECOND).unwrap();
}

#[test]
fn timers_of_one_moment_expire_in_the_order_in_which_they_were_started() {
    static ORDER: Queue<u32, 500> = Queue::new();
    let numbers: Vec<&'static u32> = (0..500).map(|n| &*Box::leak(Box::new(n))).collect();
    let timers: Vec<_> = numbers
        .iter()
        .map(|n| Timer::calling_with(|n: &u32| ORDER.try_send(*n).unwrap(), *n))
        .collect();
    let due = time::now() + SECOND;
    timers.iter().for_each(|timer| timer.start_once_at(due).unwrap());
    time::sleep(SECOND).unwrap();
    assert!((0..500).all(|n| ORDER.try_receive() == Ok(n)));
}

#[test]
fn a_watchdog_that_is_fed_does_nothing() {
    static BITTEN: Semaphore = Semaphore::new(0, 9);
    let watchdog = Watchdog::new(SECOND, Action::Call(|| BITTEN.give().unwrap()));
    assert!(!watchdog.feed(), "it does not watch yet");
    watchdog.start().unwrap();
    for _ in 0..10 {
        time::sleep(SECOND * 9 / 10).unwrap();
        assert!(watchdog.feed());
    }
    assert!(!watchdog.has_expired() && watchdog.is_active() && watchdog.stop());
    time::sleep(10 * SECOND).unwrap();
    assert_eq!(BITTEN.count(), 0);
    watchdog.start().unwrap();
    time::sleep(10 * SECOND).unwrap();
    assert_eq!((BITTEN.count(), watchdog.has_expired(), watchdog.feed()), (1, true, false));
    watchdog.start().unwrap();
    assert!(!watchdog.has_expired());
}

#[test]
fn a_watchdog_kills_a_task_that_hangs() {
    let hangs = task::spawn(|| {
        loop {
            time::work(SECOND / 10);
        }
    });
    let hangs = hangs.unwrap();
    let watchdog = Watchdog::new(SECOND, Action::Kill(hangs.task().clone()));
    let start = time::now();
    watchdog.start().unwrap();
    assert_eq!(hangs.join(), Err(task::JoinError::Killed));
    assert_eq!(time::now(), start + SECOND);
    // It has ended: nothing happens to the task that has its number now.
    let other = spawn_at(9, || time::sleep(5 * SECOND));
    watchdog.start().unwrap();
    assert_eq!(other.join().unwrap(), Ok(()));
    assert!(watchdog.has_expired());
}

#[test]
fn what_a_timer_gives_comes_before_a_timeout_of_the_same_moment_that_was_armed_later() {
    static GIVEN: Semaphore = Semaphore::new(0, 9);
    static TIMER: Timer = Timer::calling(|| GIVEN.give().unwrap());
    let due = time::now() + SECOND;
    TIMER.start_once_at(due).unwrap();
    assert_eq!((GIVEN.take(due), time::now()), (Ok(()), due));
    // The other way round, the timeout is first; also if tasks are at work.
    let due = due + SECOND;
    let takes = spawn_at(20, move || (GIVEN.take(due), time::now()));
    TIMER.start_once_at(due).unwrap();
    time::work(3 * SECOND);
    assert_eq!(takes.join().unwrap(), (Err(WaitError::TimedOut), due));
    assert_eq!(GIVEN.try_take(), Ok(()));
    // A chain within one moment.
    static SECONDS: Semaphore = Semaphore::new(0, 9);
    static NEXT: Timer = Timer::calling(|| {
        GIVEN.try_take().unwrap();
        SECONDS.give().unwrap();
    });
    let due = time::now() + SECOND;
    TIMER.start_once_at(due).unwrap();
    NEXT.start_once_at(due).unwrap();
    assert_eq!(SECONDS.take(due), Ok(()));
}

#[test]
fn a_timer_stops_another_of_the_same_moment() {
    static FIRST: Timer = Timer::calling(|| assert!(SECOND_TIMER.stop()));
    static SECOND_TIMER: Timer = Timer::calling(|| panic!("it should have been stopped"));
    let due = time::now() + SECOND;
    FIRST.start_once_at(due).unwrap();
    SECOND_TIMER.start_once_at(due).unwrap();
    time::sleep(2 * SECOND).unwrap();
    assert!(!SECOND_TIMER.is_active());
}

#[test]
fn what_is_due_while_upcalls_are_masked_comes_after_that() {
    let (timers, counts): (Vec<_>, Vec<_>) = (0..3).map(|_| counting()).unzip();
    let due = time::now() + SECOND;
    timers.iter().for_each(|timer| timer.start_once_at(due).unwrap());
    let of = || counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u32>();
    crate::critical::with(|_| {
        time::work(3 * SECOND);
        assert_eq!((of(), time::now()), (0, due + 2 * SECOND));
    });
    assert_eq!(of(), 3);
}

#[test]
fn futures_and_tasks_are_told_of_an_expiry_and_nobody_twice() {
    static TIMER: Timer = Timer::new();
    let futures = [9, 20].map(|p| spawn_at(p, || block_on(TIMER.wait_async()).unwrap()));
    let task = spawn_at(9, || TIMER.wait(Timeout::Forever));
    TIMER.start_periodic(SECOND, SECOND).unwrap();
    time::sleep(Duration::from_millis(1500)).unwrap();
    assert_eq!(futures.map(|task| task.join().unwrap()), [Ok(1), Ok(1)]);
    assert_eq!(task.join().unwrap(), Ok(1));
    assert_eq!(TIMER.wait(Timeout::Now), Err(WaitError::WouldBlock));
    time::sleep(3 * SECOND).unwrap();
    assert_eq!(block_on(TIMER.wait_async()).unwrap(), Ok(3));
    TIMER.stop();
}

#[test]
fn an_expiry_of_which_only_a_dropped_future_was_told_is_not_lost() {
    let timer = Timer::new();
    let mut dropped = Box::pin(timer.wait_async());
    assert!(poll_once(dropped.as_mut()).is_none());
    timer.start_periodic(SECOND, SECOND).unwrap();
    time::sleep(2 * SECOND).unwrap();
    drop(dropped);
    assert_eq!(timer.wait(Timeout::Now), Ok(2), "that one, and the one that nobody waited for");
    let (mut dropped, mut hears) = (Box::pin(timer.wait_async()), Box::pin(timer.wait_async()));
    assert!(poll_once(dropped.as_mut()).is_none() && poll_once(hears.as_mut()).is_none());
    time::sleep(SECOND).unwrap();
    drop(dropped);
    assert_eq!(poll_once(hears.as_mut()), Some(Ok(1)));
    assert_eq!(timer.wait(Timeout::Now), Err(WaitError::WouldBlock), "another was told");
    // Two expiries, each of which one future alone was told of.
    let waits = || {
        let mut future = Box::pin(timer.wait_async());
        assert!(poll_once(future.as_mut()).is_none());
        time::sleep(SECOND).unwrap();
        future
    };
    let (first, second) = (waits(), waits());
    drop((first, second));
    assert_eq!(timer.wait(Timeout::Now), Ok(2));
}
