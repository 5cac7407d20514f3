//! What tasks do to each other, with what a user would otherwise pick: threads of
//! the standard library, which wait by futex, and an embedded executor, both on
//! the host.
//!
//! Each function measures batches of one operation, and returns nanoseconds for
//! each operation, a batch a sample.

mod embassy;
mod threads;

use std::time::Instant;

pub use embassy::{embassy_message, embassy_queue, embassy_switch};
pub use threads::{
    thread_hand_over, thread_message, thread_mutex, thread_queue, thread_semaphore, thread_switch,
};

/// Operations in a batch.
const BATCH: u32 = 16;

/// Measures `operation`, a batch a sample.
fn sample(samples: u32, mut operation: impl FnMut()) -> Vec<f64> {
    (0..BATCH).for_each(|_| operation());
    let batch = |_| {
        let began = Instant::now();
        (0..BATCH).for_each(|_| operation());
        began.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
    };
    (0..samples).map(batch).collect()
}
