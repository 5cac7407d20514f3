//! Producers, a consumer, and a queue of four places between them.
#![no_std]
#![no_main]

use cellule_guest::prelude::*;
use cellule_guest::sync::{Queue, Semaphore, Timeout, WaitError};
use cellule_guest::task::{Builder, JoinHandle, SpawnError};

/// What is on its way: who made it, and its number. `None` says that no more comes.
static BELT: Queue<Option<(u32, u32)>, 4> = Queue::new();
/// A unit for each producer that may start.
static START: Semaphore = Semaphore::new(0, 100);
/// A unit for each producer that has finished.
static FINISHED: Semaphore = Semaphore::new(0, 100);

/// Has so many producers make so many items each. Returns how many of each
/// producer's items the consumer got, and the sum of all their numbers.
#[guest_function]
fn run(producers: u32, items: u32) -> Result<(Vec<u32>, u64), String> {
    let consumer = consume(producers).map_err(|error| error.to_string())?;
    for producer in 0..producers {
        produce(producer, items).map_err(|error| error.to_string())?;
    }
    (0..producers).try_for_each(|_| START.give()).map_err(|full| full.to_string())?;
    for _ in 0..producers {
        FINISHED.take(Timeout::Forever).map_err(|error| error.to_string())?;
    }
    BELT.send(None, Timeout::Forever).map_err(|error| error.to_string())?;
    consumer.join().map_err(|error| error.to_string())
}

/// Spawns a producer: it waits for its start, and whenever the belt is full.
fn produce(producer: u32, items: u32) -> Result<JoinHandle<Result<(), WaitError>>, SpawnError> {
    Builder::new().name(format!("producer {producer}")).spawn(move || {
        START.take(Timeout::Forever)?;
        for number in 1..=items {
            BELT.send(Some((producer, number)), Timeout::Forever).map_err(|error| error.reason)?;
        }
        FINISHED.give().map_err(|_| WaitError::WouldBlock)
    })
}

/// Spawns the consumer: it waits whenever the belt is empty.
fn consume(producers: u32) -> Result<JoinHandle<(Vec<u32>, u64)>, SpawnError> {
    Builder::new().name("consumer").spawn(move || {
        let (mut counts, mut sum) = (vec![0; producers as usize], 0);
        while let Ok(Some((producer, number))) = BELT.receive(Timeout::Forever) {
            counts[producer as usize] += 1;
            sum += u64::from(number);
        }
        (counts, sum)
    })
}
