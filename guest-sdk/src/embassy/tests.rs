//! Tests: the clock is virtual.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::pending;
use core::sync::atomic::{AtomicU32, Ordering};

use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use embassy_time::{Timer, with_timeout};

use super::Executor;
use crate::future::block_on;
use crate::sync::{Queue, Semaphore, Timeout, WaitError};
use crate::task::{self, Builder, Priority, Task};
use crate::time::{self, Duration, Instant};

type EmbassyDuration = embassy_time::Duration;

const SECOND: u64 = 1_000_000_000;

/// Runs an executor in a task of this priority.
fn run(priority: u8, init: impl FnOnce(Spawner) + Send + 'static) -> Task {
    let priority = Priority::new(priority).unwrap();
    let executor = || Box::leak(Box::new(Executor::new())).run(init);
    Builder::new().priority(priority).spawn(executor).unwrap().task().clone()
}

/// Waits for a whole second to begin at, as the clock is all tests' together.
fn start() -> Instant {
    // From now on this thread has the kernel, and the clock.
    task::yield_now();
    let second = time::now().as_nanos().next_multiple_of(SECOND);
    time::sleep_until(Instant::from_nanos(second)).unwrap();
    assert_eq!(embassy_time::Instant::now().as_micros() * 1000, second);
    time::now()
}

/// How many seconds have passed since then.
fn since(start: Instant) -> u64 {
    time::now().saturating_since(start).as_secs()
}

#[test]
fn an_hour_of_timers_takes_exactly_an_hour_of_virtual_time() {
    static SEEN: Queue<(u64, u64), 8> = Queue::new();

    #[embassy_executor::task(pool_size = 3)]
    async fn sleep(start: Instant, secs: u64) {
        Timer::after_secs(secs).await;
        SEEN.send_async((secs, since(start))).await;
    }

    let start = start();
    run(8, move |spawner| {
        for secs in [3600, 1, 60] {
            spawner.spawn(sleep(start, secs).unwrap());
        }
    });
    let next = || SEEN.receive(Timeout::Forever).unwrap();
    assert_eq!([next(), next(), next()], [(1, 1), (60, 60), (3600, 3600)]);
    assert_eq!(time::now(), start + Duration::from_secs(3600));
}

#[test]
fn the_more_urgent_of_two_executors_preempts_the_other() {
    static REQUESTS: Channel<CriticalSectionRawMutex, u32, 1> = Channel::new();
    static ANSWER: Signal<CriticalSectionRawMutex, u32> = Signal::new();
    static ANSWERED_AT_ONCE: AtomicU32 = AtomicU32::new(0);
    static DONE: Semaphore = Semaphore::binary();

    #[embassy_executor::task]
    async fn answer() {
        loop {
            ANSWER.signal(REQUESTS.receive().await * 2);
        }
    }

    #[embassy_executor::task]
    async fn ask() {
        for number in 0..10 {
            Timer::after_millis(1).await;
            REQUESTS.send(number).await;
            // No `.await` between: the other executor has run in `send`.
            if ANSWER.try_take() == Some(number * 2) {
                ANSWERED_AT_ONCE.fetch_add(1, Ordering::Relaxed);
            }
        }
        DONE.give().unwrap();
    }

    let start = start();
    run(20, |spawner| spawner.spawn(answer().unwrap()));
    run(5, |spawner| spawner.spawn(ask().unwrap()));
    DONE.take(Timeout::Forever).unwrap();
    assert_eq!(ANSWERED_AT_ONCE.load(Ordering::Relaxed), 10);
    assert_eq!(time::now(), start + Duration::from_millis(10));
}

#[test]
fn a_timer_that_was_dropped_delays_nothing_and_nothing_comes_of_it() {
    static SEEN: Queue<u64, 8> = Queue::new();

    #[embassy_executor::task]
    async fn drop_and_sleep(start: Instant) {
        let slow = with_timeout(EmbassyDuration::from_secs(1), Timer::after_secs(100)).await;
        assert!(slow.is_err());
        SEEN.send_async(since(start)).await;
        // The first one's wake at 100 s finds this, which is not ready then.
        Timer::after_secs(200).await;
        SEEN.send_async(since(start)).await;
    }

    let start = start();
    run(8, move |spawner| spawner.spawn(drop_and_sleep(start).unwrap()));
    assert_eq!(SEEN.receive(Timeout::Forever), Ok(1));
    assert_eq!(SEEN.receive(Timeout::Forever), Ok(201));
}

#[test]
fn with_timeout_gives_the_result_or_the_time() {
    static VALUES: Queue<u32, 1> = Queue::new();
    static SEEN: Queue<(Option<u32>, u64), 4> = Queue::new();

    #[embassy_executor::task]
    async fn receive(start: Instant) {
        for _ in 0..2 {
            let second = EmbassyDuration::from_secs(1);
            let value = with_timeout(second, VALUES.receive_async()).await.ok();
            SEEN.send_async((value, since(start))).await;
        }
    }

    let start = start();
    run(8, move |spawner| spawner.spawn(receive(start).unwrap()));
    assert_eq!(SEEN.receive(Timeout::Forever), Ok((None, 1)));
    VALUES.try_send(7).unwrap();
    assert_eq!(SEEN.receive(Timeout::Forever), Ok((Some(7), 1)));
    // The first was dropped: it has taken nothing.
    assert_eq!(VALUES.try_receive(), Err(WaitError::WouldBlock));
}

#[test]
fn timers_work_in_futures_that_no_executor_of_embassys_polls() {
    let start = start();
    let slow = with_timeout(EmbassyDuration::from_secs(5), pending::<()>());
    assert!(block_on(slow).unwrap().is_err());
    assert_eq!(since(start), 5);
    block_on(Timer::after_secs(5)).unwrap();
    assert_eq!(since(start), 10);
}

#[test]
fn a_timer_of_no_time_yields_and_time_stands_still() {
    static SEEN: Queue<u32, 8> = Queue::new();

    #[embassy_executor::task(pool_size = 2)]
    async fn take_turns(first: u32) {
        for number in 0..3 {
            SEEN.send_async(first + number).await;
            Timer::after_ticks(0).await;
        }
    }

    let start = start();
    run(8, |spawner| {
        spawner.spawn(take_turns(10).unwrap());
        spawner.spawn(take_turns(20).unwrap());
    });
    let mut seen: Vec<_> = (0..6).map(|_| SEEN.receive(Timeout::Forever).unwrap()).collect();
    assert_eq!(time::now(), start);
    seen.sort_unstable();
    assert_eq!(seen, [10, 11, 12, 20, 21, 22]);
}

#[test]
fn an_executor_goes_on_when_its_wait_is_called_off() {
    static DONE: Semaphore = Semaphore::binary();

    #[embassy_executor::task]
    async fn sleep() {
        Timer::after_secs(2).await;
        DONE.give().unwrap();
    }

    let start = start();
    let task = run(8, |spawner| spawner.spawn(sleep().unwrap()));
    time::sleep(Duration::from_secs(1)).unwrap();
    assert!(task.cancel_wait());
    DONE.take(Timeout::Forever).unwrap();
    assert_eq!(since(start), 2);
}

#[test]
fn tasks_are_spawned_from_elsewhere() {
    static SPAWNER: Queue<embassy_executor::SendSpawner, 1> = Queue::new();
    static SEEN: Queue<u32, 1> = Queue::new();

    #[embassy_executor::task]
    async fn say(number: u32) {
        SEEN.send_async(number).await;
    }

    run(8, |spawner| assert!(SPAWNER.try_send(spawner.make_send()).is_ok()));
    time::sleep(Duration::from_secs(1)).unwrap();
    SPAWNER.try_receive().unwrap().spawn(say(7).unwrap());
    assert_eq!(SEEN.receive(Timeout::Forever), Ok(7));
}

#[test]
fn an_executor_that_was_killed_is_woken_in_vain() {
    static DONE: AtomicU32 = AtomicU32::new(0);

    #[embassy_executor::task]
    async fn sleep() {
        Timer::after_secs(1).await;
        DONE.store(1, Ordering::Relaxed);
    }

    run(8, |spawner| spawner.spawn(sleep().unwrap())).kill();
    time::sleep(Duration::from_secs(2)).unwrap();
    assert_eq!(DONE.load(Ordering::Relaxed), 0);
}
