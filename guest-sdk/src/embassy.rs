//! Embassy on tasks, with the feature `embassy`: an executor, and the driver of
//! `embassy-time`.
//!
//! Firmware that is written with `embassy-executor`, `embassy-time` and
//! `embassy-sync` runs in a guest as it is. Its tasks are futures, many to an
//! [`Executor`]; each executor is run by a task of the SDK, with a priority, and
//! so does what Embassy calls an interrupt executor elsewhere. Between them they
//! use `embassy_sync` with `CriticalSectionRawMutex`, or the SDK's primitives,
//! of which the `..._async` operations can be awaited.
//!
//! ```
//! use cellule_guest::embassy::Executor;
//! use cellule_guest::{sync::Timeout, task, time};
//! use embassy_executor::Spawner;
//! use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
//! use embassy_sync::channel::Channel;
//! use embassy_time::{Duration, Ticker};
//!
//! static SAMPLES: Channel<CriticalSectionRawMutex, u32, 2> = Channel::new();
//! static DONE: cellule_guest::sync::Queue<u32, 1> = cellule_guest::sync::Queue::new();
//!
//! #[embassy_executor::task]
//! async fn sample() {
//!     let mut every_minute = Ticker::every(Duration::from_secs(60));
//!     for number in 1..=60 {
//!         every_minute.next().await;
//!         SAMPLES.send(number).await;
//!     }
//! }
//!
//! #[embassy_executor::task]
//! async fn add() {
//!     let mut sum = 0;
//!     for _ in 0..60 {
//!         sum += SAMPLES.receive().await;
//!     }
//!     DONE.send_async(sum).await;
//! }
//!
//! task::spawn(|| {
//!     let executor = Box::leak(Box::new(Executor::new()));
//!     executor.run(|spawner| {
//!         spawner.spawn(sample().unwrap());
//!         spawner.spawn(add().unwrap());
//!     })
//! })?;
//! // The clock of this test is virtual: an hour takes no time.
//! assert_eq!(DONE.receive(Timeout::Forever)?, 1830);
//! assert_eq!(time::now(), time::Instant::from_nanos(3600 * 1_000_000_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In a guest's manifest
//!
//! `embassy-executor` without a `platform-…` or `executor-…` feature: those are
//! other platforms, and the SDK is this one. For the same reason there is no
//! `#[embassy_executor::main]`. `embassy-time` with any `tick-hz-…`, or none for
//! microseconds, and without `std` or `mock-driver`. One version of each.
//!
//! # Time
//!
//! An `embassy_time::Instant` counts from the same zero as [`time::now`], in
//! whole ticks, and follows a virtual clock. A timer is ready as soon as its tick
//! has begun, in virtual time in that very nanosecond. Timers work in any future,
//! whoever polls it, for instance under [`block_on`](crate::future::block_on).
//!
//! # Cost
//!
//! Of a timer: that of one kernel timer for all, which is set when the earliest
//! changes, and a look at each waiting task when it expires. No allocation for
//! Embassy's tasks; one for the first timer of all and one for each waker of
//! another executor.
//!
//! [`time::now`]: crate::time::now

mod driver;
mod executor;

pub use executor::Executor;

#[cfg(test)]
mod tests;
