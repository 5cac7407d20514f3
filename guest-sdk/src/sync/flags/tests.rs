use alloc::vec::Vec;

use super::*;
use crate::sync::tests_support::{in_handler, spawn_at};
use crate::task;
use crate::time::{self, Duration, Instant};

#[test]
fn whoever_waits_for_any_gets_and_clears_what_is_there() {
    let flags = EventFlags::new();
    flags.set(0b1011);
    assert_eq!(flags.wait_any(0b0110, Timeout::Now), Ok(0b0010));
    assert_eq!(flags.get(), 0b1001, "only what matched");
}

#[test]
fn whoever_waits_for_all_gets_all_or_nothing() {
    let flags = EventFlags::new();
    flags.set(0b0001);
    assert_eq!(flags.wait_all(0b0011, Timeout::Now), Err(WaitError::WouldBlock.into()));
    assert_eq!(flags.get(), 0b0001);
    flags.set(0b0110);
    assert_eq!(flags.wait_all(0b0011, Timeout::Now), Ok(0b0011));
    assert_eq!(flags.get(), 0b0100);
    flags.clear(u32::MAX);
    assert_eq!(flags.get(), 0);
}

#[test]
fn nobody_waits_for_no_flags() {
    let flags = EventFlags::new();
    assert_eq!(flags.wait_any(0, Timeout::Forever), Err(FlagsError::NoBits));
    assert_eq!(flags.wait_all(0, Timeout::Forever), Err(FlagsError::NoBits));
    let later = crate::future::block_on(flags.wait_all_async(0)).unwrap();
    assert_eq!(later, Err(FlagsError::NoBits));
}

#[test]
fn flags_are_offered_by_priority_then_by_time_and_passed_over_waiters_keep_their_place() {
    static FLAGS: EventFlags = EventFlags::new();
    // In order: the urgent one wants what is not there; the first of two equals
    // takes what both want.
    let urgent = spawn_at(20, || FLAGS.wait_all(0b1001, Timeout::Forever));
    let first = spawn_at(10, || FLAGS.wait_any(0b0001, Timeout::Forever));
    let second = spawn_at(10, || FLAGS.wait_any(0b0011, Timeout::Forever));
    FLAGS.set(0b0001);
    assert_eq!(first.join().unwrap(), Ok(0b0001));
    assert_eq!((urgent.task().ended(), second.task().ended()), (None, None));
    FLAGS.set(0b1001);
    assert_eq!(urgent.join().unwrap(), Ok(0b1001));
    FLAGS.set(0b0010);
    assert_eq!(second.join().unwrap(), Ok(0b0010));
}

#[test]
fn a_wait_ends_with_its_time_and_an_instant_in_the_past_is_over() {
    let (flags, start) = (EventFlags::new(), time::now());
    let timed_out = Err(FlagsError::Wait(WaitError::TimedOut));
    assert_eq!(flags.wait_any(1, Duration::from_secs(2)), timed_out);
    assert_eq!(time::now(), start + Duration::from_secs(2));
    assert_eq!(flags.wait_any(1, start), timed_out);
    assert_eq!(time::now(), start + Duration::from_secs(2));
}

#[test]
fn a_wait_can_be_called_off_and_its_task_killed_without_effect_on_the_flags() {
    static FLAGS: EventFlags = EventFlags::new();
    let cancelled = spawn_at(10, || FLAGS.wait_any(1, Timeout::Forever));
    let killed = spawn_at(10, || FLAGS.wait_any(1, Timeout::At(Instant::MAX)));
    assert!(cancelled.task().cancel_wait());
    killed.task().kill();
    FLAGS.set(1);
    assert_eq!(cancelled.join().unwrap(), Err(WaitError::Cancelled.into()));
    assert_eq!(FLAGS.get(), 1);
}

#[test]
fn a_timers_function_sets_flags_and_does_not_wait_for_them() {
    static FLAGS: EventFlags = EventFlags::new();
    let refused = in_handler(|| {
        let refused = FLAGS.wait_any(1, Timeout::Forever);
        FLAGS.set(1);
        (refused, FLAGS.wait_any(1, Timeout::Forever))
    });
    assert_eq!(refused, (Err(WaitError::WrongContext.into()), Ok(1)));
}

#[test]
fn hundreds_of_tasks_each_get_their_flag() {
    static FLAGS: EventFlags = EventFlags::new();
    let tasks: Vec<_> = (0..320_u32)
        .map(|n| task::spawn(move || FLAGS.wait_any(1 << (n % 32), Timeout::Forever)).unwrap())
        .collect();
    task::yield_now();
    (0..10).for_each(|_| FLAGS.set(u32::MAX));
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.join().unwrap(), Ok(1 << (n % 32)));
    }
    assert_eq!(FLAGS.get(), 0);
}
