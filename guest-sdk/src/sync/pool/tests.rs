use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::future::block_on;
use crate::sync::tests_support::{Counted, Drops, in_handler, poll_once, spawn_at};
use crate::task;
use crate::time::Duration;

#[test]
fn there_are_as_many_blocks_as_said_and_each_is_used_again() {
    let pool = Pool::<u64, 3>::new();
    for round in 0..4 {
        let mut boxes: Vec<_> =
            (0..3).map(|n| pool.allocate(round + n, Timeout::Now).unwrap()).collect();
        assert_eq!((pool.available(), pool.capacity()), (0, 3));
        let refused = pool.allocate(9, Timeout::Now).unwrap_err();
        assert_eq!(refused, AllocateError { value: 9, reason: WaitError::WouldBlock });
        *boxes[1] += 100;
        let second = boxes.remove(1);
        assert_eq!(second.into_inner(), round + 101);
        assert_eq!(*pool.allocate(7, Timeout::Now).unwrap(), 7);
        assert_eq!((*boxes[0], *boxes[1]), (round, round + 2), "others are not touched");
    }
    assert_eq!(pool.available(), 3);
}

#[test]
fn blocks_go_to_waiters_by_priority_then_by_time() {
    static POOL: Pool<Box<u32>, 1> = Pool::new();
    static ORDER: crate::sync::Queue<u32, 4> = crate::sync::Queue::new();
    let held = POOL.allocate(Box::new(0), Timeout::Now).unwrap();
    let take = |number: u32| {
        move || {
            let block = POOL.allocate(Box::new(number), Timeout::Forever).unwrap();
            ORDER.try_send(**block).unwrap();
        }
    };
    let tasks = [spawn_at(9, take(2)), spawn_at(9, take(3)), spawn_at(20, take(1))];
    drop(held);
    tasks.into_iter().for_each(|task| task.join().unwrap());
    assert_eq!([(); 3].map(|()| ORDER.try_receive().unwrap()), [1, 2, 3]);
}

#[test]
fn what_is_refused_comes_back_with_the_reason() {
    static POOL: Pool<u32, 1> = Pool::new();
    let held = POOL.allocate(0, Timeout::Now).unwrap();
    let reason = |timeout: Timeout| POOL.allocate(5, timeout).unwrap_err();
    assert_eq!(reason(Duration::from_secs(1).into()).reason, WaitError::TimedOut);
    let cancelled = spawn_at(9, || POOL.allocate(5, Timeout::Forever).map(|block| *block));
    assert!(cancelled.task().cancel_wait());
    let error = cancelled.join().unwrap().unwrap_err();
    assert_eq!((error.value, error.reason), (5, WaitError::Cancelled));
    let error = in_handler(|| POOL.allocate(6, Timeout::Forever).map(|block| *block)).unwrap_err();
    assert_eq!((error.value, error.reason), (6, WaitError::WrongContext));
    let killed = spawn_at(9, || POOL.allocate(5, Timeout::Forever).map(|block| *block));
    killed.task().kill();
    drop(held);
    assert_eq!(POOL.available(), 1);
}

#[test]
fn every_value_is_dropped_once() {
    let drops = Drops::default();
    let pool = Pool::<Counted, 2>::new();
    let first = pool.allocate(drops.value(1), Timeout::Now).unwrap();
    let second = pool.allocate(drops.value(2), Timeout::Now).unwrap();
    drop(pool.allocate(drops.value(3), Timeout::Now).unwrap_err());
    assert_eq!(drops.count(), 1);
    drop(first);
    assert_eq!(drops.count(), 2);
    let value = second.into_inner();
    assert_eq!(drops.count(), 2);
    drop((value, pool));
    assert_eq!(drops.count(), 3);
}

#[test]
fn hundreds_of_tasks_share_a_few_blocks() {
    static POOL: Pool<usize, 3> = Pool::new();
    let tasks: Vec<_> = (0..300)
        .map(|n| {
            task::spawn(move || {
                let block = POOL.allocate(n, Timeout::Forever).unwrap();
                task::yield_now();
                *block
            })
            .unwrap()
        })
        .collect();
    let sum: usize = tasks.into_iter().map(|task| task.join().unwrap()).sum();
    assert_eq!((sum, POOL.available()), (299 * 300 / 2, 3));
}

#[test]
fn futures_and_tasks_are_given_blocks_in_one_line() {
    static POOL: Pool<u32, 1> = Pool::new();
    let first = POOL.allocate(0, Timeout::Now).unwrap();
    let future = spawn_at(9, || block_on(POOL.allocate_async(1)).map(|block| *block));
    let task = spawn_at(9, || POOL.allocate(2, Timeout::Forever).map(|block| *block));
    let mut dropped = Box::pin(POOL.allocate_async(3));
    assert!(poll_once(dropped.as_mut()).is_none());
    drop(first);
    assert_eq!((future.join().unwrap(), task.join().unwrap()), (Ok(1), Ok(2)));
    drop(dropped);
    assert_eq!(POOL.available(), 1);
    assert_eq!(block_on(POOL.allocate_async(4)).map(PoolBox::into_inner), Ok(4));
}

#[test]
fn values_of_futures_are_dropped_once() {
    let (pool, drops) = (Pool::<Counted, 1>::new(), Drops::default());
    drop(pool.allocate_async(drops.value(0)));
    let block = poll_once(core::pin::pin!(pool.allocate_async(drops.value(1)))).unwrap();
    assert!(poll_once(core::pin::pin!(pool.allocate_async(drops.value(2)))).is_none());
    assert_eq!((drops.count(), block.1), (2, 1));
    drop(block);
    assert_eq!(drops.count(), 3);
}
