//! Firmware: one task takes samples, another adds them up.
#![no_std]
#![no_main]

use cellule_guest::prelude::*;
use cellule_guest::sync::Once;
use cellule_guest::time::{self, Duration};
use cellule_guest::{embassy::Executor, future, task};
use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::{channel::Channel, mutex::Mutex, signal::Signal};
use embassy_time::Ticker;

/// How many samples are wanted, and how far apart.
static ORDER: Signal<CriticalSectionRawMutex, (u32, Duration)> = Signal::new();
/// Samples, and whether one is the last.
static SAMPLES: Channel<CriticalSectionRawMutex, (u32, bool), 2> = Channel::new();
static SUM: Mutex<CriticalSectionRawMutex, u32> = Mutex::new(0);
static DONE: Signal<CriticalSectionRawMutex, ()> = Signal::new();

#[embassy_executor::task]
async fn take_samples() -> ! {
    loop {
        let (count, period) = ORDER.wait().await;
        let mut ticker = Ticker::every(period.try_into().unwrap());
        for number in 1..=count {
            ticker.next().await;
            SAMPLES.send((number, number == count)).await;
        }
    }
}

#[embassy_executor::task]
async fn add_up() -> ! {
    loop {
        let (sample, last) = SAMPLES.receive().await;
        *SUM.lock().await += sample;
        if last {
            DONE.signal(());
        }
    }
}

/// Takes samples. Returns their sum, and how long it took.
#[guest_function]
fn measure(count: u32, period: Duration) -> (u32, Duration) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let init = |spawner: Spawner| {
            spawner.spawn(take_samples().unwrap());
            spawner.spawn(add_up().unwrap());
        };
        task::spawn(move || Box::leak(Box::new(Executor::new())).run(init)).unwrap();
    });
    let start = time::now();
    let sum = future::block_on(async {
        *SUM.lock().await = 0;
        ORDER.signal((count, period));
        DONE.wait().await;
        *SUM.lock().await
    });
    (sum.unwrap(), time::now().saturating_since(start))
}
