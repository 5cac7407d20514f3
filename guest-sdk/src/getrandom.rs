//! The backend of the crate `getrandom` in a guest.
//!
//! Chosen by `--cfg getrandom_backend="custom"`, which all guests are built with. The
//! name is the one that version 0.3 introduced, and 0.4 kept for both.

use ::getrandom::Error;

use crate::random::try_fill;

/// # Safety
///
/// As the name says in `getrandom`'s documentation: `to` must be valid for writes of
/// `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(to: *mut u8, len: usize) -> Result<(), Error> {
    if len == 0 {
        return Ok(());
    }
    // They may not have been written yet, and a slice of bytes must have been.
    // SAFETY: by the caller's promise, they may be.
    unsafe { to.write_bytes(0, len) };
    // SAFETY: by the caller's promise, and they are written now; the caller has no
    // other reference while it waits for this function.
    let bytes = unsafe { core::slice::from_raw_parts_mut(to, len) };
    try_fill(bytes).map_err(|_| Error::UNEXPECTED)
}
