//! What a backend's steps take by themselves, with one-page guests.
//!
//! For reports: what a call costs above it is Cellule's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::{Checkpoint, Restored};
use crate::conformance::{partition, template};
use crate::{Exit, Hypervisor, Partition, RunError, Template};

/// `out 1, al`, and a jump back to it.
const RING: [u8; 4] = [0xe6, 1, 0xeb, 0xfc];
/// `inc byte [0x402000]; out 1, al`, and a jump back to both.
const WRITE_AND_RING: [u8; 11] = [0xfe, 0x04, 0x25, 0, 0x20, 0x40, 0, 0xe6, 1, 0xeb, 0xf5];

/// Measures `rings` round trips: the guest goes on, rings, and the host is back.
/// Returns them in ascending order.
///
/// # Errors
///
/// What came instead of a ring, as text.
pub fn doorbell(hypervisor: &dyn Hypervisor, rings: u32) -> Result<Vec<Duration>, String> {
    let mut ringer = Ringer::new(hypervisor)?;
    let mut took = Vec::new();
    for _ in 0..rings {
        let before = Instant::now();
        ringer.ring()?;
        took.push(before.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

/// A guest that does nothing but ring.
#[derive(Debug)]
pub struct Ringer(Box<dyn Partition>);

impl Ringer {
    /// Makes the guest, and has it ring once.
    ///
    /// # Errors
    ///
    /// What the backend said, or what came instead of a ring, as text.
    pub fn new(hypervisor: &dyn Hypervisor) -> Result<Self, String> {
        let mut partition = partition(hypervisor, &RING)?;
        ring(&mut *partition)?;
        Ok(Self(partition))
    }

    /// Lets it ring again: one round trip.
    ///
    /// # Errors
    ///
    /// What came instead, as text.
    pub fn ring(&mut self) -> Result<(), String> {
        ring(&mut *self.0)
    }
}

/// Makes guests that ring once.
#[derive(Debug)]
pub struct Maker(Arc<dyn Template>);

impl Maker {
    /// Prepares what all of them share.
    ///
    /// # Errors
    ///
    /// What the backend said, as text.
    pub fn new(hypervisor: &dyn Hypervisor) -> Result<Self, String> {
        Ok(Self(template(hypervisor, &RING)?))
    }

    /// Makes a partition, lets it ring, and takes it down.
    ///
    /// # Errors
    ///
    /// What the backend said, or what came instead of a ring, as text.
    pub fn make(&self) -> Result<(), String> {
        let mut partition = self.0.partition().map_err(|error| error.to_string())?;
        ring(&mut *partition)
    }
}

/// A guest that writes to a page before it rings, and a checkpoint of it.
#[derive(Debug)]
pub struct Returner {
    partition: Box<dyn Partition>,
    checkpoint: Checkpoint,
}

impl Returner {
    /// Makes the guest and takes the checkpoint.
    ///
    /// # Errors
    ///
    /// What the backend said, or what came instead of a ring, as text.
    pub fn new(hypervisor: &dyn Hypervisor) -> Result<Self, String> {
        let mut partition = partition(hypervisor, &WRITE_AND_RING)?;
        ring(&mut *partition)?;
        partition.position().map_err(text)?;
        let checkpoint = Checkpoint::take(&mut *partition).map_err(text)?;
        Ok(Self { partition, checkpoint })
    }

    /// Lets it write and ring.
    ///
    /// # Errors
    ///
    /// What came instead, as text.
    pub fn write_and_ring(&mut self) -> Result<(), String> {
        ring(&mut *self.partition)
    }

    /// Brings it back to the checkpoint.
    ///
    /// # Errors
    ///
    /// What the backend said, as text.
    pub fn restore(&mut self) -> Result<Restored, String> {
        self.partition.position().map_err(text)?;
        self.checkpoint.restore(&mut *self.partition).map_err(text)
    }
}

fn ring(partition: &mut dyn Partition) -> Result<(), String> {
    loop {
        match partition.run().map_err(text)? {
            Exit::Doorbell(_) => return Ok(()),
            // A signal that somebody sent to this thread.
            Exit::Kicked => {}
            exit @ (Exit::Fault(_) | Exit::Unexpected(_)) => return Err(format!("{exit:x?}")),
        }
    }
}

fn text(error: RunError) -> String {
    error.to_string()
}
