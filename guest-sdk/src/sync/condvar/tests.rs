use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::future::block_on;
use crate::sync::tests_support::{in_handler, poll_once, spawn_at};
use crate::task;
use crate::time::{self, Duration};

/// Waits with a new lock, and tells how that ended and whether it is locked then.
fn wait(
    mutex: &'static Mutex<u32>,
    condvar: &'static Condvar,
    timeout: Timeout,
) -> Result<u32, WaitError> {
    let guard = mutex.lock(Timeout::Forever).unwrap();
    match condvar.wait(guard, timeout) {
        Ok(guard) => Ok(*guard),
        Err(CondvarError::Wait(guard, error)) => {
            assert!(matches!(mutex.try_lock(), Err(LockError::Recursive)), "it should be locked");
            drop(guard);
            Err(error)
        }
        Err(CondvarError::OwnerDied(..)) => Err(WaitError::PeerDied),
    }
}

#[test]
fn tasks_are_notified_by_priority_then_by_time() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let enter = || {
        let guard = MUTEX.lock(Timeout::Forever).unwrap();
        let mut guard = CONDVAR.wait(guard, Timeout::Forever).unwrap();
        *guard += 1;
        *guard
    };
    let tasks = [spawn_at(9, enter), spawn_at(9, enter), spawn_at(20, enter)];
    CONDVAR.notify_one();
    CONDVAR.notify_one();
    assert_eq!(tasks[1].task().ended(), None);
    CONDVAR.notify_one();
    assert_eq!(tasks.map(|task| task.join().unwrap()), [2, 3, 1]);
    CONDVAR.notify_one();
    assert!(MUTEX.try_lock().is_ok_and(|guard| *guard == 3), "nothing is remembered");
}

#[test]
fn the_mutex_is_free_while_a_task_waits_and_locked_when_it_goes_on() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let waits = spawn_at(20, || wait(&MUTEX, &CONDVAR, Timeout::Forever));
    let mut guard = MUTEX.try_lock().unwrap();
    CONDVAR.notify_all();
    assert_eq!(waits.task().ended(), None, "it waits for the mutex");
    *guard = 5;
    drop(guard);
    assert_eq!(waits.join().unwrap(), Ok(5));
}

#[test]
fn the_guard_comes_back_however_the_wait_ends() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let start = time::now();
    assert_eq!(wait(&MUTEX, &CONDVAR, Timeout::Now), Err(WaitError::WouldBlock));
    let second = Duration::from_secs(1);
    assert_eq!(wait(&MUTEX, &CONDVAR, second.into()), Err(WaitError::TimedOut));
    assert_eq!(wait(&MUTEX, &CONDVAR, start.into()), Err(WaitError::TimedOut));
    assert_eq!(time::now(), start + second);
    let refused = in_handler(|| wait(&MUTEX, &CONDVAR, Timeout::Forever));
    assert_eq!(refused, Err(WaitError::WrongContext));
    let cancelled = spawn_at(9, || wait(&MUTEX, &CONDVAR, Timeout::At(time::Instant::MAX)));
    assert!(cancelled.task().cancel_wait());
    assert_eq!(cancelled.join().unwrap(), Err(WaitError::Cancelled));
    let killed = spawn_at(9, || wait(&MUTEX, &CONDVAR, Timeout::Forever));
    killed.task().kill();
    CONDVAR.notify_one();
    assert!(MUTEX.try_lock().is_ok());
}

#[test]
fn the_wait_for_the_mutex_has_no_end_and_cannot_be_called_off() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let waits = spawn_at(20, || wait(&MUTEX, &CONDVAR, Duration::from_secs(1).into()));
    let guard = MUTEX.try_lock().unwrap();
    time::sleep(Duration::from_secs(5)).unwrap();
    assert!(waits.task().cancel_wait());
    assert_eq!(waits.task().ended(), None);
    drop(guard);
    assert_eq!(waits.join().unwrap(), Err(WaitError::TimedOut));
}

#[test]
fn a_task_is_told_that_the_owner_of_the_mutex_died() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let waits = spawn_at(20, || wait(&MUTEX, &CONDVAR, Timeout::Forever));
    let dies = spawn_at(9, || {
        let _guard = MUTEX.try_lock().unwrap();
        CONDVAR.notify_one();
        time::sleep(Duration::MAX)
    });
    dies.task().kill();
    assert_eq!(waits.join().unwrap(), Err(WaitError::PeerDied));
}

#[test]
fn hundreds_of_tasks_wait_for_their_turn() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            task::spawn(move || {
                let guard = MUTEX.lock(Timeout::Forever).unwrap();
                let mut turn =
                    CONDVAR.wait_while(guard, |turn| *turn != n, Duration::from_secs(1)).unwrap();
                *turn += 1;
                drop(turn);
                CONDVAR.notify_all();
            })
            .unwrap()
        })
        .collect();
    tasks.into_iter().rev().for_each(|task| task.join().unwrap());
    assert_eq!(*MUTEX.try_lock().unwrap(), 200);
}

#[test]
fn waiting_while_something_is_so_ends_with_its_time() {
    static CONDVAR: Condvar = Condvar::new();
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let start = time::now();
    let ticker = spawn_at(9, || {
        (0..5).for_each(|_| {
            time::sleep(Duration::from_millis(300)).unwrap();
            CONDVAR.notify_all();
        });
    });
    let waited = CONDVAR.wait_while(MUTEX.try_lock().unwrap(), |_| true, Duration::from_secs(1));
    assert!(matches!(waited, Err(CondvarError::Wait(_, WaitError::TimedOut))));
    assert_eq!(time::now(), start + Duration::from_secs(1));
    drop(waited);
    ticker.join().unwrap();
}

/// Waits as a future, and tells what the mutex guards then.
async fn wait_async(
    mutex: &'static Mutex<u32>,
    condvar: &'static Condvar,
) -> Result<u32, WaitError> {
    let guard = mutex.lock_async().await.unwrap();
    match condvar.wait_async(guard).await {
        Ok(guard) => Ok(*guard),
        Err(CondvarError::OwnerDied(..)) => Err(WaitError::PeerDied),
        Err(CondvarError::Wait(_, reason)) => Err(reason),
    }
}

#[test]
fn tasks_and_futures_are_notified_in_one_line_and_hold_the_mutex_then() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let future = spawn_at(9, || block_on(wait_async(&MUTEX, &CONDVAR)).unwrap());
    let task = spawn_at(9, || wait(&MUTEX, &CONDVAR, Timeout::Forever));
    let last = spawn_at(9, || block_on(wait_async(&MUTEX, &CONDVAR)).unwrap());
    *MUTEX.try_lock().unwrap() = 1;
    CONDVAR.notify_one();
    assert_eq!((future.join().unwrap(), task.task().ended()), (Ok(1), None));
    let mut guard = MUTEX.try_lock().unwrap();
    CONDVAR.notify_all();
    *guard = 2;
    drop(guard);
    assert_eq!((task.join().unwrap(), last.join().unwrap()), (Ok(2), Ok(2)));
}

#[test]
fn a_notification_of_which_a_lost_future_was_told_goes_to_the_next() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let mut dropped = Box::pin(wait_async(&MUTEX, &CONDVAR));
    assert!(poll_once(dropped.as_mut()).is_none());
    assert!(MUTEX.try_lock().is_ok(), "it should be unlocked");
    let next = spawn_at(7, || wait(&MUTEX, &CONDVAR, Timeout::Forever));
    time::sleep(Duration::from_secs(1)).unwrap();
    CONDVAR.notify_one();
    time::sleep(Duration::from_secs(1)).unwrap();
    assert_eq!(next.task().ended(), None, "it is the future's turn");
    drop(dropped);
    assert_eq!(next.join().unwrap(), Ok(0));
    let killed = spawn_at(20, || {
        let mut future = Box::pin(wait_async(&MUTEX, &CONDVAR));
        assert!(poll_once(future.as_mut()).is_none());
        time::sleep(Duration::MAX)
    });
    let next = spawn_at(9, || wait(&MUTEX, &CONDVAR, Timeout::Forever));
    CONDVAR.notify_one();
    assert_eq!(next.task().ended(), None);
    killed.task().kill();
    assert_eq!(next.join().unwrap(), Ok(0));
}

#[test]
fn a_notification_for_all_is_not_passed_on_to_who_came_later() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let mut dropped = Box::pin(wait_async(&MUTEX, &CONDVAR));
    assert!(poll_once(dropped.as_mut()).is_none());
    CONDVAR.notify_all();
    let later = spawn_at(9, || wait(&MUTEX, &CONDVAR, Duration::from_secs(1).into()));
    drop(dropped);
    assert_eq!(later.join().unwrap(), Err(WaitError::TimedOut));
}

#[test]
fn a_future_locks_again_while_another_of_the_same_task_holds_the_mutex() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    let mut waits = Box::pin(wait_async(&MUTEX, &CONDVAR));
    assert!(poll_once(waits.as_mut()).is_none());
    let mut guard = MUTEX.try_lock().unwrap();
    CONDVAR.notify_one();
    assert!(poll_once(waits.as_mut()).is_none(), "the mutex is not free");
    *guard = 5;
    drop(guard);
    assert_eq!(poll_once(waits.as_mut()), Some(Ok(5)));
    // Unpolled, it unlocks when it is dropped.
    let unpolled = CONDVAR.wait_async(MUTEX.try_lock().unwrap());
    drop(unpolled);
    assert!(MUTEX.try_lock().is_ok());
}
