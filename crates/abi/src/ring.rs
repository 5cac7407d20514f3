//! The arithmetic of a ring whose two ends trust each other in nothing.
//!
//! Indices count records ever published or consumed and wrap at 2^32; the slot
//! is the index modulo the (power of two) number of entries.

use crate::page::RING_ENTRIES;

/// A ring whose indices cannot be those of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "ring indices out of step: {published} published, {consumed} consumed, \
     which is not between 0 and {RING_ENTRIES} apart"
)]
pub struct OutOfStep {
    /// Records ever published, modulo 2^32.
    pub published: u32,
    /// Records ever consumed, modulo 2^32.
    pub consumed: u32,
}

/// Returns how many records wait between the two indices.
///
/// ```
/// use cellule_abi::ring::waiting;
/// assert_eq!(waiting(3, 1), Ok(2));
/// assert_eq!(waiting(1, u32::MAX), Ok(2));
/// assert!(waiting(1, 3).is_err());
/// ```
///
/// # Errors
///
/// [`OutOfStep`] if that is more than the ring holds.
pub const fn waiting(published: u32, consumed: u32) -> Result<u32, OutOfStep> {
    let waiting = published.wrapping_sub(consumed);
    if waiting > RING_ENTRIES {
        return Err(OutOfStep { published, consumed });
    }
    Ok(waiting)
}
