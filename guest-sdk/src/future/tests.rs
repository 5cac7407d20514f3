use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::sync::tests_support::{Drops, in_handler, spawn_at};
use crate::sync::{EventFlags, Mutex, Pool, Queue, Semaphore, Timeout};
use crate::time::Duration;
use crate::{task, time};

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn of(self: &Arc<Self>) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls a future once.
fn poll<F: Future + ?Sized>(future: Pin<&mut F>, count: &Arc<Count>) -> Option<F::Output> {
    let waker = Waker::from(Arc::clone(count));
    match future.poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn a_task_sleeps_until_its_future_is_woken() {
    let start = time::now();
    let woken = block_on(async {
        sleep(Duration::from_secs(1)).await;
        sleep_until(start).await;
        sleep_until(start + Duration::from_secs(3)).await;
        time::now()
    });
    assert_eq!(woken, Ok(start + Duration::from_secs(3)));
}

#[test]
fn what_is_ready_needs_no_place_in_line() {
    let semaphore = Semaphore::new(1, 1);
    let count = Arc::new(Count::default());
    assert_eq!(poll(pin!(semaphore.take_async()), &count), Some(()));
    assert_eq!((semaphore.count(), count.of(), Arc::strong_count(&count)), (0, 0, 1));
}

#[test]
fn a_future_is_woken_once_and_keeps_no_waker() {
    let semaphore = Semaphore::new(0, 9);
    let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut take = pin!(semaphore.take_async());
    assert_eq!(poll(take.as_mut(), &first), None);
    assert_eq!(poll(take.as_mut(), &second), None, "the last waker counts");
    assert_eq!(Arc::strong_count(&first), 1);
    semaphore.give().unwrap();
    semaphore.give().unwrap();
    assert_eq!((first.of(), second.of()), (0, 1));
    assert_eq!(poll(take.as_mut(), &second), Some(()));
    assert_eq!((semaphore.count(), Arc::strong_count(&second)), (1, 1));
}

#[test]
fn futures_and_tasks_stand_in_one_line_by_priority_then_by_time() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    static ORDER: Queue<&str, 9> = Queue::new();
    let tasks = [
        spawn_at(9, || block_on(ITEMS.take_async()).map(|()| ORDER.try_send("future"))),
        spawn_at(9, || ITEMS.take(Timeout::Forever).map(|()| ORDER.try_send("task"))),
        spawn_at(20, || block_on(ITEMS.take_async()).map(|()| ORDER.try_send("urgent"))),
    ];
    (0..3).for_each(|_| ITEMS.give().unwrap());
    tasks.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), Ok(Ok(()))));
    let order: Vec<_> = core::iter::from_fn(|| ORDER.try_receive().ok()).collect();
    assert_eq!(order, ["urgent", "future", "task"]);
}

#[test]
fn a_notified_future_that_is_late_keeps_its_place() {
    let semaphore = Semaphore::new(0, 9);
    let count = Arc::new(Count::default());
    let (mut first, mut second) = (pin!(semaphore.take_async()), pin!(semaphore.take_async()));
    assert_eq!((poll(first.as_mut(), &count), poll(second.as_mut(), &count)), (None, None));
    semaphore.give().unwrap();
    semaphore.try_take().unwrap();
    assert_eq!(poll(first.as_mut(), &count), None, "another was faster");
    semaphore.give().unwrap();
    assert_eq!(count.of(), 2, "one each time");
    assert_eq!(poll(first.as_mut(), &count), Some(()));
    assert_eq!(poll(second.as_mut(), &count), None);
}

#[test]
fn a_unit_of_which_a_dropped_future_was_told_goes_to_the_next() {
    static ITEMS: Semaphore = Semaphore::new(0, 1);
    let count = Arc::new(Count::default());
    let mut dropped = alloc::boxed::Box::pin(ITEMS.take_async());
    assert_eq!(poll(dropped.as_mut(), &count), None);
    let mut next = pin!(ITEMS.take_async());
    assert_eq!(poll(next.as_mut(), &count), None);
    let last = task::spawn(|| ITEMS.take(Timeout::Forever)).unwrap();
    task::yield_now();
    ITEMS.give().unwrap();
    assert_eq!(count.of(), 1);
    drop(dropped);
    assert_eq!(count.of(), 2, "a future is told");
    assert_eq!(poll(next.as_mut(), &count), Some(()));
    let mut dropped = alloc::boxed::Box::pin(ITEMS.take_async());
    // More urgent than the task, as the future is polled by this one.
    last.task().set_priority(task::Priority::LOWEST);
    assert_eq!(poll(dropped.as_mut(), &count), None);
    ITEMS.give().unwrap();
    drop(dropped);
    assert_eq!(last.join().unwrap(), Ok(()), "a task is given it");
    assert_eq!(ITEMS.count(), 0);
}

#[test]
fn an_item_of_which_a_dropped_future_was_told_goes_to_the_next() {
    static QUEUE: Queue<u32, 2> = Queue::new();
    let count = Arc::new(Count::default());
    let mut dropped = alloc::boxed::Box::pin(QUEUE.receive_async());
    assert_eq!(poll(dropped.as_mut(), &count), None);
    let next = task::spawn(|| QUEUE.receive(Timeout::Forever)).unwrap();
    task::yield_now();
    QUEUE.try_send(7).unwrap();
    assert_eq!((QUEUE.len(), next.task().ended()), (1, None), "it is the future's turn");
    drop(dropped);
    assert_eq!(next.join().unwrap(), Ok(7));
}

#[test]
fn room_of_which_a_dropped_future_was_told_goes_to_the_next() {
    static QUEUE: Queue<u32, 1> = Queue::new();
    QUEUE.try_send(1).unwrap();
    let count = Arc::new(Count::default());
    let mut dropped = alloc::boxed::Box::pin(QUEUE.send_async(2));
    assert_eq!(poll(dropped.as_mut(), &count), None);
    let next = task::spawn(|| QUEUE.send(3, Timeout::Forever)).unwrap();
    task::yield_now();
    assert_eq!(QUEUE.try_receive(), Ok(1));
    assert_eq!((QUEUE.len(), count.of()), (0, 1), "it is the future's turn");
    drop(dropped);
    assert_eq!(QUEUE.try_receive(), Ok(3));
    assert_eq!(next.join().unwrap(), Ok(()));
}

#[test]
fn flags_of_which_a_dropped_future_was_told_are_offered_to_the_next() {
    static FLAGS: EventFlags = EventFlags::new();
    let count = Arc::new(Count::default());
    let mut dropped = alloc::boxed::Box::pin(FLAGS.wait_any_async(3));
    assert!(poll(dropped.as_mut(), &count).is_none());
    let mut next = pin!(FLAGS.wait_all_async(1));
    assert!(poll(next.as_mut(), &count).is_none());
    FLAGS.set(1);
    drop(dropped);
    assert_eq!(poll(next.as_mut(), &count), Some(Ok(1)));
    assert_eq!(FLAGS.get(), 0);
}

#[test]
fn a_mutex_of_which_a_dropped_future_was_told_goes_to_the_next() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let count = Arc::new(Count::default());
    let owner = spawn_at(9, || {
        let guard = MUTEX.lock(Timeout::Forever).unwrap();
        time::sleep(Duration::from_secs(1)).unwrap();
        drop(guard);
    });
    let mut dropped = alloc::boxed::Box::pin(MUTEX.lock_async());
    assert!(poll(dropped.as_mut(), &count).is_none());
    let next = task::spawn(|| MUTEX.lock(Timeout::Forever).map(|guard| *guard).ok()).unwrap();
    owner.join().unwrap();
    assert_eq!((count.of(), next.task().ended()), (1, None));
    drop(dropped);
    assert_eq!(next.join().unwrap(), Some(0));
}

#[test]
fn the_owner_of_a_mutex_is_as_urgent_as_the_future_that_waits() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let owner = spawn_at(9, || {
        let guard = MUTEX.lock(Timeout::Forever).unwrap();
        time::sleep(Duration::from_secs(1)).unwrap();
        drop(guard);
    });
    let urgent = spawn_at(20, || block_on(MUTEX.lock_async()).map(|guard| guard.is_ok()));
    let (base, effective) = owner.task().priority().unwrap();
    assert_eq!((base.get(), effective.get()), (9, 20));
    assert_eq!(urgent.join().unwrap(), Ok(true));
}

#[test]
fn a_future_is_told_that_the_owner_of_the_mutex_died() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let owner = spawn_at(9, || {
        let _guard = MUTEX.lock(Timeout::Forever).unwrap();
        time::sleep(Duration::MAX).unwrap();
    });
    let waiter = spawn_at(9, || {
        block_on(MUTEX.lock_async())
            .map(|lock| matches!(lock, Err(crate::sync::LockError::OwnerDied(_))))
    });
    owner.task().kill();
    assert_eq!(waiter.join().unwrap(), Ok(true));
}

#[test]
fn values_of_futures_are_dropped_once() {
    let drops = Drops::default();
    let queue = Queue::<_, 1>::new();
    let count = Arc::new(Count::default());
    let unpolled = queue.send_async(drops.value(0));
    assert!(poll(pin!(queue.send_async(drops.value(1))), &count).is_some());
    assert!(poll(pin!(queue.send_async(drops.value(2))), &count).is_none());
    assert_eq!(drops.count(), 1, "refused and dropped");
    drop(unpolled);
    assert_eq!(drops.count(), 2);
    drop(poll(pin!(queue.receive_async()), &count));
    drop(queue);
    assert_eq!(drops.count(), 3);
}

#[test]
fn blocking_on_a_future_can_be_called_off_and_is_refused_where_nobody_waits() {
    static NEVER: Semaphore = Semaphore::new(0, 1);
    let task = spawn_at(9, || block_on(NEVER.take_async()));
    assert!(task.task().cancel_wait());
    assert_eq!(task.join().unwrap(), Err(WaitError::Cancelled));
    NEVER.give().unwrap();
    assert_eq!(NEVER.count(), 1, "the future was dropped");
    assert_eq!(in_handler(|| block_on(NEVER.take_async())), Err(WaitError::WrongContext));
    assert_eq!(NEVER.count(), 1);
}

#[test]
fn a_killed_task_leaves_no_future_in_line() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    let killed = spawn_at(20, || block_on(ITEMS.take_async()));
    let next = spawn_at(9, || ITEMS.take(Timeout::Forever));
    killed.task().kill();
    ITEMS.give().unwrap();
    assert_eq!((next.join().unwrap(), ITEMS.count()), (Ok(()), 0));
}

#[test]
fn a_future_of_a_killed_task_stands_in_line_anew_when_another_polls_it() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    type Take = Pin<alloc::boxed::Box<dyn Future<Output = ()> + Send>>;
    static SHARED: std::sync::Mutex<Option<Take>> = std::sync::Mutex::new(None);
    *SHARED.lock().unwrap() = Some(alloc::boxed::Box::pin(ITEMS.take_async()));
    let killed = spawn_at(9, || {
        let mut take = SHARED.lock().unwrap().take().unwrap();
        assert!(poll(take.as_mut(), &Arc::default()).is_none());
        *SHARED.lock().unwrap() = Some(take);
        time::sleep(Duration::MAX)
    });
    killed.task().kill();
    let mut take = SHARED.lock().unwrap().take().unwrap();
    let count = Arc::new(Count::default());
    assert_eq!(poll(take.as_mut(), &count), None);
    ITEMS.give().unwrap();
    assert_eq!((count.of(), poll(take.as_mut(), &count)), (1, Some(())));
}

#[test]
fn a_waker_may_outlive_its_task_and_ends_no_other_wait() {
    let start = time::now();
    let (send, wakers) = std::sync::mpsc::channel();
    let waiter = spawn_at(9, move || {
        block_on(core::future::poll_fn(|context| {
            send.send(context.waker().clone()).unwrap();
            // Another wait, within a future: the waker is not meant for it.
            Poll::Ready(time::sleep(Duration::from_secs(1)))
        }))
        .map(|slept| (slept, time::now()))
    });
    let waker = wakers.recv().unwrap();
    waker.wake_by_ref();
    assert_eq!(waiter.join().unwrap(), Ok((Ok(()), start + Duration::from_secs(1))));
    let next = spawn_at(9, || block_on(sleep(Duration::from_secs(1))));
    waker.wake();
    next.join().unwrap().unwrap();
    assert_eq!(time::now(), start + Duration::from_secs(2));
}

#[test]
fn a_wake_that_an_inner_future_used_up_is_not_lost() {
    static OUTER: Semaphore = Semaphore::new(0, 1);
    static INNER: Semaphore = Semaphore::new(0, 1);
    let task = spawn_at(9, || {
        let mut outer = pin!(OUTER.take_async());
        block_on(core::future::poll_fn(move |context| {
            let polled = outer.as_mut().poll(context);
            if polled.is_pending() {
                block_on(INNER.take_async()).unwrap();
            }
            polled
        }))
    });
    OUTER.give().unwrap();
    INNER.give().unwrap();
    assert_eq!(task.join().unwrap(), Ok(()));
}

#[test]
fn hundreds_of_futures_wait_in_one_task() {
    static ITEMS: Semaphore = Semaphore::new(0, 1000);
    let count = Arc::new(Count::default());
    let mut futures: Vec<_> =
        (0..500).map(|_| alloc::boxed::Box::pin(ITEMS.take_async())).collect();
    assert!(futures.iter_mut().all(|future| poll(future.as_mut(), &count).is_none()));
    (0..500).for_each(|_| ITEMS.give().unwrap());
    assert_eq!(count.of(), 500);
    assert!(futures.iter_mut().all(|future| poll(future.as_mut(), &count).is_some()));
}

/// A task that polls a future once and then waits for ever: its future may be
/// notified and is not polled again.
fn polled_by_another<F: Future>(make: impl FnOnce() -> F + Send + 'static) -> task::Task {
    let task = spawn_at(20, move || {
        let mut future = pin!(make());
        assert!(poll(future.as_mut(), &Arc::default()).is_none());
        time::sleep(Duration::MAX).unwrap();
    });
    task.task().clone()
}

#[test]
fn a_unit_of_which_a_killed_task_s_future_was_told_goes_to_the_next() {
    static ITEMS: Semaphore = Semaphore::new(0, 9);
    let killed = polled_by_another(|| ITEMS.take_async());
    let next = spawn_at(9, || ITEMS.take(Timeout::Forever));
    ITEMS.give().unwrap();
    assert_eq!((ITEMS.count(), next.task().ended()), (1, None), "it is the future's turn");
    killed.kill();
    assert_eq!((next.join().unwrap(), ITEMS.count()), (Ok(()), 0));
    // The next is a future, too; and both of the killed task's own were told.
    let killed = spawn_at(20, || {
        let (mut one, mut two) = (pin!(ITEMS.take_async()), pin!(ITEMS.take_async()));
        assert!(poll(one.as_mut(), &Arc::default()).is_none());
        assert!(poll(two.as_mut(), &Arc::default()).is_none());
        time::sleep(Duration::MAX)
    });
    let next = [9, 9].map(|p| spawn_at(p, || block_on(ITEMS.take_async())));
    ITEMS.give().unwrap();
    ITEMS.give().unwrap();
    killed.task().kill();
    assert_eq!(next.map(|task| task.join().unwrap()), [Ok(()), Ok(())]);
    // Nobody is next: it stays.
    let killed = polled_by_another(|| ITEMS.take_async());
    ITEMS.give().unwrap();
    killed.kill();
    assert_eq!(ITEMS.count(), 1);
}

#[test]
fn an_item_and_room_of_which_a_killed_task_s_future_was_told_go_to_the_next() {
    static QUEUE: Queue<u32, 1> = Queue::new();
    let killed = polled_by_another(|| QUEUE.receive_async());
    let next = spawn_at(9, || QUEUE.receive(Timeout::Forever));
    QUEUE.try_send(7).unwrap();
    killed.kill();
    assert_eq!(next.join().unwrap(), Ok(7));
    QUEUE.try_send(1).unwrap();
    let killed = polled_by_another(|| QUEUE.send_async(2));
    let next = spawn_at(9, || QUEUE.send(3, Timeout::Forever));
    assert_eq!(QUEUE.try_receive(), Ok(1));
    killed.kill();
    assert_eq!((next.join().unwrap(), QUEUE.try_receive()), (Ok(()), Ok(3)));
}

#[test]
fn a_mutex_and_a_block_of_which_a_killed_task_s_future_was_told_go_to_the_next() {
    static MUTEX: Mutex<u32> = Mutex::new(5);
    static POOL: Pool<u32, 1> = Pool::new();
    let (guard, block) = (MUTEX.try_lock().unwrap(), POOL.allocate(1, Timeout::Now).unwrap());
    let killed =
        [polled_by_another(|| MUTEX.lock_async()), polled_by_another(|| POOL.allocate_async(2))];
    let locks = spawn_at(9, || MUTEX.lock(Timeout::Forever).map(|guard| *guard).ok());
    let allocates = spawn_at(9, || POOL.allocate(3, Timeout::Forever).map(|block| *block));
    // They must wait first: until then this task is as urgent as the future.
    time::sleep(Duration::from_secs(1)).unwrap();
    drop(guard);
    drop(block);
    assert_eq!((locks.task().ended(), allocates.task().ended()), (None, None));
    killed.iter().for_each(task::Task::kill);
    assert_eq!((locks.join().unwrap(), allocates.join().unwrap()), (Some(5), Ok(3)));
}

/// Only who waits for it says where an object is: a future may be forgotten, and
/// the object be moved after that.
#[test]
fn what_a_forgotten_future_was_told_is_found_where_the_object_is_now() {
    let killed = spawn_at(20, || {
        let first = Semaphore::new(0, 1);
        let mut forgotten = alloc::boxed::Box::pin(first.take_async());
        assert!(poll(forgotten.as_mut(), &Arc::default()).is_none());
        core::mem::forget(forgotten);
        let moved: &Semaphore = alloc::boxed::Box::leak(alloc::boxed::Box::new(first));
        let waiter = spawn_at(9, || moved.take(Timeout::Forever));
        time::sleep(Duration::from_secs(1)).unwrap();
        moved.give().unwrap();
        task::current().kill();
        waiter
    });
    assert!(killed.join().is_err());
    // The waiter, which has nobody who could join it, has ended.
    task::settle().unwrap();
    assert_eq!(task::list().len(), 1, "only this task should be left");
}

#[test]
fn a_task_that_is_killed_in_a_sleeping_future_leaves_no_timer() {
    let kill_one = || {
        let sleeper = spawn_at(20, || block_on(sleep(Duration::from_secs(3600))));
        sleeper.task().kill();
    };
    kill_one();
    let slots = Section::enter().capacity();
    (0..50).for_each(|_| kill_one());
    assert_eq!(Section::enter().capacity(), slots, "their slots should be used again");
    assert_eq!(Section::enter().next_deadline(), None);
}

#[test]
fn a_sleep_of_a_killed_task_goes_on_when_another_polls_it() {
    type Sleep = Pin<alloc::boxed::Box<dyn Future<Output = ()> + Send>>;
    static SHARED: std::sync::Mutex<Option<Sleep>> = std::sync::Mutex::new(None);
    let start = time::now();
    *SHARED.lock().unwrap() = Some(alloc::boxed::Box::pin(sleep(Duration::from_secs(5))));
    let killed = spawn_at(20, || {
        let mut sleep = SHARED.lock().unwrap().take().unwrap();
        assert!(poll(sleep.as_mut(), &Arc::default()).is_none());
        *SHARED.lock().unwrap() = Some(sleep);
        time::sleep(Duration::MAX)
    });
    killed.task().kill();
    // Another timer has that number now.
    let mut other = pin!(sleep(Duration::from_secs(1)));
    let count = Arc::new(Count::default());
    assert!(poll(other.as_mut(), &count).is_none());
    block_on(SHARED.lock().unwrap().take().unwrap()).unwrap();
    assert_eq!((time::now(), count.of()), (start + Duration::from_secs(5), 1));
}

#[test]
fn a_timeout_may_be_converted_by_what_enters_the_kernel() {
    static INNER: Semaphore = Semaphore::new(0, 1);
    struct Tries;
    impl From<Tries> for Timeout {
        fn from(_: Tries) -> Self {
            assert_eq!(INNER.try_take(), Err(WaitError::WouldBlock));
            Self::Now
        }
    }
    static MUTEX: Mutex<u32> = Mutex::new(0);
    assert_eq!(INNER.take(Tries), Err(WaitError::WouldBlock));
    assert!(MUTEX.lock(Tries).is_ok());
}
