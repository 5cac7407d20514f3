//! Tasks of embassy-executor, on the host: cooperative futures, polled by a loop.
#![allow(unsafe_code, reason = "the executor's hook and the critical section of this process")]

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use embassy_executor::Spawner;
use embassy_executor::raw::Executor;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;

use super::BATCH;

/// Whether a task is to be polled.
static WOKEN: AtomicBool = AtomicBool::new(false);

// SAFETY: embassy asks for a function of this name; this one may be called from
// anywhere, and nobody else in this program defines it.
#[unsafe(export_name = "__pender")]
fn pender(_: *mut ()) {
    WOKEN.store(true, Ordering::Release);
}

/// As on a processor without threads: only this thread uses embassy.
struct NoThreads;
critical_section::set_impl!(NoThreads);

// SAFETY: the critical sections of this program are entered by one thread, as
// only the functions of this module use embassy, one after the other.
unsafe impl critical_section::Impl for NoThreads {
    unsafe fn acquire() -> bool {
        false
    }

    unsafe fn release(_: bool) {}
}

type Line = Channel<CriticalSectionRawMutex, u64, 1>;

static THERE: Line = Channel::new();
static BACK: Line = Channel::new();
static ITEMS: Channel<CriticalSectionRawMutex, (u64, u64), 8> = Channel::new();

thread_local! {
    static TAKEN: Cell<Option<Vec<f64>>> = const { Cell::new(None) };
}

/// Answers messages for ever: there is one for each run.
#[embassy_executor::task(pool_size = 8)]
async fn server() {
    loop {
        let message = THERE.receive().await;
        BACK.send(message + 1).await;
    }
}

#[embassy_executor::task(pool_size = 8)]
async fn client(samples: u32) {
    let mut taken = Vec::new();
    for _ in 0..samples {
        let began = Instant::now();
        for _ in 0..BATCH {
            THERE.send(1).await;
            black_box(BACK.receive().await);
        }
        taken.push(began.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
    }
    TAKEN.set(Some(taken));
}

/// Runs what `start` spawns until the client has finished.
fn run(start: impl FnOnce(Spawner)) -> Vec<f64> {
    // Leaked, as embassy wants its tasks to be for ever.
    let executor: &'static Executor = Box::leak(Box::new(Executor::new(std::ptr::null_mut())));
    start(executor.spawner());
    loop {
        WOKEN.store(false, Ordering::Relaxed);
        // SAFETY: from one thread, and not from within (`pender` does not poll).
        unsafe { executor.poll() };
        if let Some(taken) = TAKEN.take() {
            return taken;
        }
    }
}

/// Sends a message to another task, which receives it and replies.
pub fn embassy_message(samples: u32) -> Vec<f64> {
    run(|spawner| {
        // Each run has its own of the pools.
        if let (Ok(server), Ok(client)) = (server(), client(samples)) {
            spawner.spawn(server);
            spawner.spawn(client);
        }
    })
}

/// One of the two turns of a message.
pub fn embassy_switch(samples: u32) -> Vec<f64> {
    embassy_message(samples).into_iter().map(|both| both / 2.0).collect()
}

/// Sends and receives an item of 16 bytes, which nobody waits for.
pub fn embassy_queue(samples: u32) -> Vec<f64> {
    super::sample(samples, || {
        let sent = ITEMS.try_send((1, 2)).is_ok();
        black_box((sent, ITEMS.try_receive().ok()));
    })
}
