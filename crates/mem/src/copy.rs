//! The one door from a checked range to host memory.
//!
//! Copies are single `rep movsb` instructions: to the Rust abstract machine an
//! opaque effect, so that a guest (or, in a test, another thread) writing the
//! same bytes at the same moment can tear the copy but not the program.

use std::sync::atomic::{AtomicU32, Ordering};

/// Copies `len` bytes.
///
/// JUSTIFICATION for assembly: `ptr::copy_nonoverlapping` would be a data race
/// in the language's sense. Measured on 1 MiB: the same speed as `memcpy`.
///
/// # Safety
///
/// `from` must be readable and `to` writable for `len` bytes, both mapped for
/// the duration, and the ranges must not overlap.
#[inline]
pub(crate) unsafe fn bytes(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(not(miri))]
    // SAFETY: both ranges are valid for `len` bytes and disjoint, says the
    // caller; the direction flag is clear by the ABI; the three registers are
    // declared clobbered.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(miri)]
    // SAFETY: as above; miri has no concurrent guest.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, len);
    }
}

/// Reads a word that the other side publishes: what it wrote before is visible.
///
/// # Safety
///
/// `at` must be mapped, readable and four-byte aligned.
#[inline]
pub(crate) unsafe fn load_u32(at: *mut u32) -> u32 {
    // SAFETY: valid and aligned, says the caller; the other side may write it
    // at any time, which an atomic permits.
    unsafe { AtomicU32::from_ptr(at) }.load(Ordering::Acquire)
}

/// Publishes a word: what was written before is visible to who reads it.
///
/// # Safety
///
/// `at` must be mapped, writable and four-byte aligned.
#[inline]
pub(crate) unsafe fn store_u32(at: *mut u32, value: u32) {
    // SAFETY: as for `load_u32`.
    unsafe { AtomicU32::from_ptr(at) }.store(value, Ordering::Release);
}
