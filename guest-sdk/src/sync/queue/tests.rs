use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::future::block_on;
use crate::sync::HeapQueue;
use crate::sync::tests_support::{Drops, in_handler, spawn_at};
use crate::task;
use crate::time::{self, Duration, Instant};

#[test]
fn items_come_out_in_the_order_in_which_they_went_in() {
    let queue = Queue::<u32, 3>::new();
    for round in 0..5 {
        (0..3).for_each(|n| queue.try_send(round * 3 + n).unwrap());
        assert_eq!((queue.len(), queue.capacity(), queue.is_empty()), (3, 3, false));
        assert_eq!(queue.try_receive(), Ok(round * 3));
        queue.try_send(100).unwrap();
        assert_eq!(queue.try_receive(), Ok(round * 3 + 1));
        assert_eq!(queue.try_receive(), Ok(round * 3 + 2));
        assert_eq!(queue.try_receive(), Ok(100));
    }
    assert_eq!(queue.try_receive(), Err(WaitError::WouldBlock));
}

#[test]
fn items_go_to_receivers_by_priority_then_by_time() {
    static QUEUE: Queue<Box<u32>, 1> = Queue::new();
    let low = [9, 9].map(|p| spawn_at(p, || QUEUE.receive(Timeout::Forever)));
    let high = spawn_at(20, || QUEUE.receive(Timeout::Forever));
    (1..=3).for_each(|n| QUEUE.try_send(Box::new(n)).unwrap());
    assert_eq!(high.join().unwrap(), Ok(Box::new(1)));
    assert_eq!(low.map(|task| task.join().unwrap()), [Ok(Box::new(2)), Ok(Box::new(3))]);
}

#[test]
fn room_goes_to_senders_by_priority_then_by_time_and_items_keep_their_order() {
    static QUEUE: Queue<Box<u32>, 2> = Queue::new();
    (1..=2).for_each(|n| QUEUE.try_send(Box::new(n)).unwrap());
    let later = [4, 5].map(|n| spawn_at(9, move || QUEUE.send(Box::new(n), Timeout::Forever)));
    let urgent = spawn_at(20, || QUEUE.send(Box::new(3), Timeout::Forever));
    let received: Vec<_> = (0..5).map(|_| *QUEUE.try_receive().unwrap()).collect();
    assert_eq!(received, [1, 2, 3, 4, 5]);
    assert!(urgent.join().unwrap().is_ok());
    later.into_iter().for_each(|task| assert!(task.join().unwrap().is_ok()));
    assert!(QUEUE.is_empty());
}

#[test]
fn what_is_refused_comes_back_with_the_reason() {
    static QUEUE: Queue<Box<u32>, 1> = Queue::new();
    QUEUE.try_send(Box::new(0)).unwrap();
    let start = time::now();
    let refused = |timeout: Timeout| {
        let SendError { value, reason } = QUEUE.send(Box::new(7), timeout).unwrap_err();
        (*value, reason)
    };
    assert_eq!(refused(Timeout::Now), (7, WaitError::WouldBlock));
    assert_eq!(refused(Duration::ZERO.into()), (7, WaitError::WouldBlock));
    assert_eq!(refused(Duration::from_secs(1).into()), (7, WaitError::TimedOut));
    assert_eq!(time::now(), start + Duration::from_secs(1));
    assert_eq!(refused(start.into()), (7, WaitError::TimedOut));
    assert_eq!(time::now(), start + Duration::from_secs(1), "it should NOT have waited");
    let cancelled = spawn_at(9, || QUEUE.send(Box::new(7), Instant::MAX));
    assert!(cancelled.task().cancel_wait());
    let error = cancelled.join().unwrap().unwrap_err();
    assert_eq!((*error.value, error.reason), (7, WaitError::Cancelled));
    assert_eq!(QUEUE.len(), 1);
}

#[test]
fn a_receive_in_vain_says_why() {
    static QUEUE: Queue<Box<u32>, 1> = Queue::new();
    assert_eq!(QUEUE.receive(Timeout::Now), Err(WaitError::WouldBlock));
    assert_eq!(QUEUE.receive(Duration::from_secs(1)), Err(WaitError::TimedOut));
    let cancelled = spawn_at(9, || QUEUE.receive(Timeout::Forever));
    assert!(cancelled.task().cancel_wait());
    assert_eq!(cancelled.join().unwrap(), Err(WaitError::Cancelled));
    QUEUE.try_send(Box::new(1)).unwrap();
    assert_eq!(QUEUE.len(), 1, "nobody waits any more");
}

#[test]
fn a_timers_function_tries_and_does_not_wait() {
    static QUEUE: Queue<u32, 1> = Queue::new();
    let waiter =
        spawn_at(20, || (QUEUE.receive(Timeout::Forever), QUEUE.receive(Timeout::Forever)));
    let (sent, full, got, empty) = in_handler(|| {
        QUEUE.try_send(1).unwrap();
        QUEUE.try_send(2).unwrap();
        let full = QUEUE.send(3, Timeout::Forever);
        let got = QUEUE.receive(Timeout::Forever);
        let empty = QUEUE.receive(Duration::from_secs(1));
        let sent = QUEUE.try_send(4);
        (sent, full, got, empty)
    });
    assert_eq!((sent, got, empty), (Ok(()), Ok(2), Err(WaitError::WrongContext)));
    assert_eq!(full, Err(SendError { value: 3, reason: WaitError::WrongContext }));
    assert_eq!(waiter.join().unwrap(), (Ok(1), Ok(4)));
}

#[test]
fn a_killed_waiter_takes_and_gives_nothing() {
    static FULL: Queue<Box<u32>, 1> = Queue::new();
    static EMPTY: Queue<Box<u32>, 1> = Queue::new();
    FULL.try_send(Box::new(1)).unwrap();
    let sender = spawn_at(9, || FULL.send(Box::new(2), Timeout::Forever));
    let receiver = spawn_at(9, || EMPTY.receive(Timeout::Forever));
    sender.task().kill();
    receiver.task().kill();
    // Others use the stacks on which the items were.
    let others = [3, 4].map(|n| spawn_at(9, move || [n; 64]));
    assert_eq!(FULL.try_receive(), Ok(Box::new(1)));
    assert!(FULL.is_empty());
    EMPTY.try_send(Box::new(5)).unwrap();
    assert_eq!(EMPTY.try_receive(), Ok(Box::new(5)));
    assert_eq!(others.map(|task| task.join().unwrap()[63]), [3, 4]);
}

#[test]
fn every_item_is_dropped_once() {
    let drops = Drops::default();
    let queue: &'static Queue<_, 2> = Box::leak(Box::new(Queue::new()));
    let values = drops.clone();
    let sender = spawn_at(20, move || {
        (0..10).for_each(|n| queue.send(values.value(n), Timeout::Forever).unwrap());
    });
    for n in 0..8 {
        assert_eq!(queue.try_receive().unwrap().1, n);
        assert_eq!(drops.count(), n + 1);
    }
    sender.join().unwrap();
    assert_eq!((queue.len(), drops.count()), (2, 8));
}

#[test]
fn items_that_are_left_are_dropped_with_the_queue() {
    let drops = Drops::default();
    let (small, large) = (Queue::<_, 4>::new(), HeapQueue::new(4).unwrap());
    for n in 0..3 {
        small.try_send(drops.value(n)).unwrap();
        large.try_send(drops.value(n)).unwrap();
    }
    drop((small.try_receive(), large.try_receive()));
    assert_eq!(drops.count(), 2);
    drop((small, large));
    assert_eq!(drops.count(), 6);
}

#[test]
fn a_heap_queue_has_the_room_that_was_asked_for() {
    use crate::sync::CreateError;
    let queue = HeapQueue::new(5).unwrap();
    (0..5).for_each(|n| queue.try_send(n).unwrap());
    assert_eq!((queue.try_send(5).unwrap_err().value, queue.capacity()), (5, 5));
    assert!((0..5).all(|n| queue.try_receive() == Ok(n)));
    assert_eq!(HeapQueue::<u32>::new(0).unwrap_err(), CreateError::ZeroCapacity);
    let capacity = usize::MAX;
    assert_eq!(HeapQueue::<u32>::new(capacity).unwrap_err(), CreateError::NoMemory { capacity });
}

#[test]
fn hundreds_of_tasks_pass_everything_on() {
    static QUEUE: Queue<usize, 7> = Queue::new();
    let senders: Vec<_> = (0..200)
        .map(|n| task::spawn(move || QUEUE.send(n, Timeout::Forever).is_ok()).unwrap())
        .collect();
    let receivers: Vec<_> = (0..200)
        .map(|_| task::spawn(|| QUEUE.receive(Timeout::Forever).unwrap()).unwrap())
        .collect();
    let sum: usize = receivers.into_iter().map(|task| task.join().unwrap()).sum();
    assert_eq!(sum, 199 * 200 / 2);
    assert!(senders.into_iter().all(|task| task.join().unwrap()));
}

#[test]
fn futures_and_tasks_meet() {
    static QUEUE: Queue<Box<u32>, 1> = Queue::new();
    let receiver = spawn_at(20, || block_on(QUEUE.receive_async()));
    QUEUE.send(Box::new(1), Timeout::Forever).unwrap();
    assert_eq!(receiver.join().unwrap(), Ok(Box::new(1)));
    QUEUE.try_send(Box::new(2)).unwrap();
    let sender = spawn_at(20, || block_on(QUEUE.send_async(Box::new(3))));
    assert_eq!(QUEUE.receive(Timeout::Forever), Ok(Box::new(2)));
    assert_eq!(QUEUE.receive(Timeout::Forever), Ok(Box::new(3)));
    sender.join().unwrap().unwrap();
}
