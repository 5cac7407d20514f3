use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

use super::*;
use crate::sync::tests_support::{Drops, in_handler, spawn_at};
use crate::task;
use crate::time::{self, Duration};

#[test]
fn a_value_is_set_once_and_the_second_comes_back() {
    let drops = Drops::default();
    let mut cell = OnceLock::new();
    assert!(cell.get().is_none() && cell.get_mut().is_none());
    assert!(cell.set(drops.value(1)).is_ok());
    assert_eq!(cell.set(drops.value(2)).unwrap_err().1, 2);
    assert_eq!(cell.get_mut().unwrap().1, 1);
    assert_eq!(drops.count(), 1);
    drop(cell);
    assert_eq!(drops.count(), 2);
}

#[test]
fn others_wait_while_one_makes_the_value() {
    static CELL: OnceLock<u32> = OnceLock::new();
    static MADE: AtomicU32 = AtomicU32::new(0);
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            task::spawn(move || {
                *CELL.get_or_init(|| {
                    time::sleep(Duration::from_secs(1)).unwrap();
                    MADE.fetch_add(1, Ordering::Relaxed);
                    n
                })
            })
            .unwrap()
        })
        .collect();
    assert!(tasks.into_iter().all(|task| task.join().unwrap() == 0));
    assert_eq!(MADE.load(Ordering::Relaxed), 1);
}

#[test]
fn if_the_task_that_makes_it_ends_the_next_one_does() {
    static CELL: OnceLock<&str> = OnceLock::new();
    let killed = spawn_at(9, || {
        *CELL.get_or_init(|| {
            time::sleep(Duration::MAX).unwrap();
            "never"
        })
    });
    let waits = spawn_at(9, || *CELL.get_or_init(|| "second"));
    killed.task().kill();
    assert_eq!(waits.join().unwrap(), "second");
    assert_eq!(CELL.get(), Some(&"second"));
}

#[test]
fn if_a_task_is_killed_while_nobody_waits_the_next_one_makes_it() {
    static CELL: OnceLock<&str> = OnceLock::new();
    let killed = spawn_at(9, || {
        *CELL.get_or_init(|| {
            time::sleep(Duration::MAX).unwrap();
            "never"
        })
    });
    killed.task().kill();
    assert_eq!(CELL.set("set"), Ok(()));
}

#[test]
fn a_value_that_needs_itself_is_refused() {
    static CELL: OnceLock<String> = OnceLock::new();
    let inner = CELL.get_or_init(|| match CELL.try_get_or_init(String::new) {
        Err(error) => alloc::format!("{error}"),
        Ok(_) => String::new(),
    });
    assert_eq!(inner, "the value is needed to make itself");
    static FAILS: Lazy<u32> = Lazy::new(|| *FAILS + 1);
    assert_eq!(task::spawn(|| *FAILS).unwrap().join(), Err(task::JoinError::Failed));
}

#[test]
fn where_one_may_not_wait_a_value_in_the_making_is_refused() {
    static CELL: OnceLock<u32> = OnceLock::new();
    let maker = spawn_at(9, || {
        *CELL.get_or_init(|| {
            time::sleep(Duration::from_secs(1)).unwrap();
            1
        })
    });
    let refused = in_handler(|| CELL.try_get_or_init(|| 2).copied());
    assert_eq!(refused, Err(InitError::Wait(WaitError::WrongContext)));
    assert_eq!(maker.join().unwrap(), 1);
    assert_eq!(in_handler(|| *CELL.get_or_init(|| 2)), 1);
}

#[test]
fn a_wait_for_a_value_goes_on_when_called_off() {
    static CELL: OnceLock<u32> = OnceLock::new();
    let maker = spawn_at(9, || {
        *CELL.get_or_init(|| {
            time::sleep(Duration::from_secs(1)).unwrap();
            1
        })
    });
    let waits = spawn_at(9, || *CELL.get_or_init(|| 2));
    assert!(waits.task().cancel_wait());
    assert_eq!((waits.join().unwrap(), maker.join().unwrap()), (1, 1));
}

#[test]
fn a_once_is_done_again_if_its_task_failed() {
    static ONCE: Once = Once::new();
    let fails = task::spawn(|| ONCE.call_once(|| panic!("on purpose"))).unwrap();
    assert_eq!(fails.join(), Err(task::JoinError::Failed));
    assert!(!ONCE.is_completed());
    ONCE.call_once(|| {});
    assert!(ONCE.is_completed());
    assert_eq!(ONCE.try_call_once(|| panic!("it is done")), Ok(()));
}
