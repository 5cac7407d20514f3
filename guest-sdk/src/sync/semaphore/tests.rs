use alloc::vec::Vec;

use super::*;
use crate::sync::Queue;
use crate::sync::tests_support::{in_handler, spawn_at};
use crate::task;
use crate::time::{self, Duration, Instant};

#[test]
fn units_are_counted_up_to_the_limit() {
    let semaphore = Semaphore::new(1, 2);
    assert_eq!((semaphore.give(), semaphore.give()), (Ok(()), Err(Full)));
    assert_eq!((semaphore.try_take(), semaphore.try_take()), (Ok(()), Ok(())));
    assert_eq!(semaphore.try_take(), Err(WaitError::WouldBlock));
    assert_eq!(Semaphore::binary().count(), 0);
}

#[test]
fn units_go_to_waiters_by_priority_then_by_time() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    static ORDER: Queue<u32, 9> = Queue::new();
    let take = |number: u32| {
        move || ITEMS.take(Timeout::Forever).map(|()| ORDER.try_send(number).unwrap())
    };
    let tasks = [spawn_at(9, take(2)), spawn_at(9, take(3)), spawn_at(20, take(1))];
    (0..3).for_each(|_| ITEMS.give().unwrap());
    tasks.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), Ok(())));
    assert_eq!([(); 3].map(|()| ORDER.try_receive().unwrap()), [1, 2, 3]);
}

#[test]
fn a_wait_ends_with_its_time() {
    let (semaphore, start) = (Semaphore::new(0, 1), time::now());
    assert_eq!(semaphore.take(Duration::ZERO), Err(WaitError::WouldBlock));
    assert_eq!(semaphore.take(Duration::from_secs(1)), Err(WaitError::TimedOut));
    assert_eq!(semaphore.take(start), Err(WaitError::TimedOut));
    assert_eq!(time::now(), start + Duration::from_secs(1));
}

#[test]
fn who_was_killed_or_called_off_takes_nothing() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    let killed = spawn_at(9, || ITEMS.take(Timeout::Forever));
    let cancelled = spawn_at(9, || ITEMS.take(Instant::MAX));
    killed.task().kill();
    assert!(cancelled.task().cancel_wait());
    ITEMS.give().unwrap();
    assert_eq!(ITEMS.count(), 1);
    assert_eq!(cancelled.join().unwrap(), Err(WaitError::Cancelled));
}

#[test]
fn a_timers_function_gives_and_does_not_wait() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    let waits = spawn_at(20, || ITEMS.take(Timeout::Forever));
    let took = in_handler(|| {
        ITEMS.give().unwrap();
        ITEMS.take(Timeout::Forever)
    });
    assert_eq!((took, waits.join().unwrap()), (Err(WaitError::WrongContext), Ok(())));
}

#[test]
fn hundreds_of_tasks_wait_for_units() {
    static ITEMS: Semaphore = Semaphore::new(0, 999);
    let tasks: Vec<_> =
        (0..300).map(|_| task::spawn(|| ITEMS.take(Timeout::Forever)).unwrap()).collect();
    task::yield_now();
    (0..301).for_each(|_| ITEMS.give().unwrap());
    assert!(tasks.into_iter().all(|task| task.join().unwrap() == Ok(())));
    assert_eq!(ITEMS.count(), 1);
}
