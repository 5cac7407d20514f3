//! What an idle sandbox takes of the host's memory.

use std::fs;

use cellule::Sandbox;

use crate::subject::{Failure, KIB, basics_image};

/// Resident user-space memory of each further sandbox of one image.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    /// Built, and never called, in bytes.
    pub built_bytes: f64,
    /// After its first call, in bytes.
    pub called_bytes: f64,
}

/// Builds `count` sandboxes beside one that exists, calls each once, and looks
/// what this process has resident after either step.
///
/// # Errors
///
/// The sandboxes' own, and if /proc cannot be read.
pub fn measure(count: u32) -> Result<Resident, Failure> {
    let image = basics_image()?;
    let build = || Sandbox::builder(&image).build();
    let mut first = build()?;
    first.call::<i32>("add", (2, 3))?;
    let mut sandboxes = Vec::with_capacity(usize::try_from(count)?);
    let before = resident_bytes()?;
    for _ in 0..count {
        sandboxes.push(build()?);
    }
    let built = resident_bytes()?;
    for sandbox in &mut sandboxes {
        sandbox.call::<i32>("add", (2, 3))?;
    }
    let called = resident_bytes()?;
    let each = |now: f64| (now - before) / f64::from(count);
    Ok(Resident { built_bytes: each(built), called_bytes: each(called) })
}

/// `smaps_rollup`, not `statm`: the latter's counters lag behind.
fn resident_bytes() -> Result<f64, Failure> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no Rss in smaps")?;
    Ok(f64::from(kib.trim().parse::<u32>()?) * f64::from(u32::try_from(KIB)?))
}
