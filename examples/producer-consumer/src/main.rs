//! Three tasks make items, one takes them, and a queue of four places is between.
//!
//! Whoever finds the queue full or empty waits, and another task runs. All of
//! that happens in the guest: the host sees one call. `cargo run --release -p
//! producer-consumer`
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use cellule::{Backend, Image, Sandbox};

/// The guest in `guest/`, as this package's build script compiled it.
const GUEST: &[u8] = include_bytes!(env!("CELLULE_GUEST_PRODUCER_CONSUMER_GUEST"));

const PRODUCERS: u32 = 3;
/// Of each producer.
const ITEMS: u32 = 1000;

fn main() -> ExitCode {
    match producer_consumer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("producer-consumer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn producer_consumer() -> Result<(), Box<dyn Error>> {
    let image = Image::from_bytes(GUEST)?;
    let mut sandbox = Sandbox::builder(&image).backend(Backend::for_development()).build()?;

    let outcome: Result<(Vec<u32>, u64), String> = sandbox.call("run", (PRODUCERS, ITEMS))?;
    let (counts, sum) = outcome?;
    let exits = sandbox.stats().exits;

    for (producer, count) in counts.iter().enumerate() {
        println!("producer {producer}: the consumer got {count} items");
    }
    println!("They came through a queue of 4 places; their numbers add up to {sum}.");
    println!("For all of it the guest was left {exits} times: once to get stacks for its tasks,");
    println!("and once to return. Tasks that wait for each other do not leave the guest.");

    assert_eq!(counts, [ITEMS; PRODUCERS as usize], "no item is lost, and none comes twice");
    assert_eq!(sum, u64::from(PRODUCERS) * u64::from(ITEMS) * u64::from(ITEMS + 1) / 2);
    assert_eq!(exits, 2, "however many items there are");
    Ok(())
}
