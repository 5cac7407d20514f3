use alloc::vec::Vec;

use super::*;
use crate::sync::Queue;
use crate::sync::tests_support::{in_handler, spawn_at};
use crate::task;
use crate::time::{self, Duration};

#[test]
fn a_mutex_is_handed_over_by_priority_then_by_time() {
    static MUTEX: Mutex<()> = Mutex::new(());
    static ORDER: Queue<u32, 9> = Queue::new();
    let held = MUTEX.try_lock().unwrap();
    let enter = |number: u32| {
        move || MUTEX.lock(Timeout::Forever).map(|_guard| ORDER.try_send(number).unwrap()).is_ok()
    };
    let tasks = [spawn_at(9, enter(2)), spawn_at(9, enter(3)), spawn_at(20, enter(1))];
    drop(held);
    assert!(tasks.into_iter().all(|task| task.join().unwrap()));
    assert_eq!([(); 3].map(|()| ORDER.try_receive().unwrap()), [1, 2, 3]);
}

#[test]
fn a_lock_in_vain_says_why() {
    static MUTEX: Mutex<()> = Mutex::new(());
    let held = MUTEX.try_lock().unwrap();
    assert!(matches!(MUTEX.try_lock(), Err(LockError::Recursive)));
    let why = |lock: Result<MutexGuard<'_, ()>, LockError<'_, ()>>| match lock {
        Err(LockError::Wait(error)) => Some(error),
        _ => None,
    };
    let (timed_out, busy) =
        spawn_at(9, move || (why(MUTEX.lock(Duration::from_secs(1))), why(MUTEX.try_lock())))
            .join()
            .unwrap();
    assert_eq!((timed_out, busy), (Some(WaitError::TimedOut), Some(WaitError::WouldBlock)));
    let cancelled = spawn_at(9, move || why(MUTEX.lock(Timeout::Forever)));
    assert!(cancelled.task().cancel_wait());
    assert_eq!(cancelled.join().unwrap(), Some(WaitError::Cancelled));
    drop(held);
    let holds = spawn_at(9, || {
        let _guard = MUTEX.try_lock().unwrap();
        time::sleep(Duration::from_secs(1)).unwrap();
    });
    let refused = in_handler(|| {
        matches!(MUTEX.lock(Timeout::Forever), Err(LockError::Wait(WaitError::WrongContext)))
    });
    assert!(refused);
    holds.join().unwrap();
}

#[test]
fn whoever_is_next_is_told_that_the_owner_died() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let dies = |value| {
        move || {
            *MUTEX.lock(Timeout::Forever).unwrap_or_else(|error| match error {
                LockError::OwnerDied(guard) => guard,
                other => panic!("{other}"),
            }) = value;
            core::mem::forget(MUTEX.try_lock().unwrap());
            time::sleep(Duration::MAX)
        }
    };
    spawn_at(9, dies(1)).task().kill();
    assert!(matches!(MUTEX.try_lock(), Err(LockError::OwnerDied(guard)) if *guard == 1));
    let owner = spawn_at(9, dies(2));
    let waits = spawn_at(
        9,
        || matches!(MUTEX.lock(Timeout::Forever), Err(LockError::OwnerDied(guard)) if *guard == 2),
    );
    owner.task().kill();
    assert!(waits.join().unwrap());
    assert!(MUTEX.try_lock().is_ok(), "only the first is told");
}

#[test]
fn hundreds_of_tasks_take_turns() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            task::spawn(|| {
                let mut guard = MUTEX.lock(Timeout::Forever).unwrap();
                let before = *guard;
                task::yield_now();
                *guard = before + 1;
            })
            .unwrap()
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    assert_eq!(*MUTEX.try_lock().unwrap(), 300);
}
