//! What a backend's steps take by themselves, measured with one-page guests.
//!
//! For reports: what a call costs above it is Cellule's.

use std::time::{Duration, Instant};

use crate::checkpoint::Checkpoint;
use crate::conformance::partition;
use crate::{Exit, Hypervisor, Partition};

/// `out 1, al`, and a jump back to it.
const RING: [u8; 4] = [0xe6, 1, 0xeb, 0xfc];

/// Measures `rings` round trips: the guest goes on, rings, and the host is back.
/// Returns them in ascending order.
///
/// # Errors
///
/// What came instead of a ring, as text.
pub fn doorbell(hypervisor: &dyn Hypervisor, rings: u32) -> Result<Vec<Duration>, String> {
    let mut partition = partition(hypervisor, &RING)?;
    ring(&mut *partition)?;
    repeat(rings, || ring(&mut *partition))
}

/// Measures making a partition of a template, its first ring, and taking it down
/// again, `times`. Returns them in ascending order.
///
/// # Errors
///
/// What came instead of a ring, as text.
pub fn create(hypervisor: &dyn Hypervisor, times: u32) -> Result<Vec<Duration>, String> {
    let template = crate::conformance::template(hypervisor, &RING)?;
    repeat(times, || {
        let mut partition = template.partition().map_err(|error| error.to_string())?;
        ring(&mut *partition)
    })
}

/// Measures bringing a guest back to a checkpoint after a ring for which it wrote
/// to a page, `times`; the ring is not measured. Returns them in ascending order.
///
/// # Errors
///
/// What came instead of a ring, as text.
pub fn restore(hypervisor: &dyn Hypervisor, times: u32) -> Result<Vec<Duration>, String> {
    // inc byte [0x402000]; out 1, al; jmp back
    const WRITE_AND_RING: [u8; 11] = [0xfe, 0x04, 0x25, 0, 0x20, 0x40, 0, 0xe6, 1, 0xeb, 0xf5];
    let text = |error: crate::RunError| error.to_string();
    let mut partition = partition(hypervisor, &WRITE_AND_RING)?;
    ring(&mut *partition)?;
    partition.position().map_err(text)?;
    let checkpoint = Checkpoint::take(&mut *partition).map_err(text)?;
    let mut took = Vec::new();
    for _ in 0..times {
        ring(&mut *partition)?;
        let before = Instant::now();
        partition.position().map_err(text)?;
        checkpoint.restore(&mut *partition).map_err(text)?;
        took.push(before.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn ring(partition: &mut dyn Partition) -> Result<(), String> {
    loop {
        match partition.run().map_err(|error| error.to_string())? {
            Exit::Doorbell(_) => return Ok(()),
            // A signal that somebody sent to this thread.
            Exit::Kicked => {}
            exit @ (Exit::Fault(_) | Exit::Unexpected(_)) => return Err(format!("{exit:x?}")),
        }
    }
}

fn repeat(
    times: u32,
    mut act: impl FnMut() -> Result<(), String>,
) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    for _ in 0..times {
        let before = Instant::now();
        act()?;
        took.push(before.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}
