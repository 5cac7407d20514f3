//! Why an ioctl failed, and the one line that names what is not there.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// An errno value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    /// What the last call into the C library left.
    pub(crate) fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// Leaves this for the caller to find.
    pub(crate) fn leave(self) {
        // SAFETY: it has no precondition, and returns this thread's errno.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: it points at this thread's errno, which only this thread uses.
        unsafe { place.write(self.0) };
    }
}

/// Says once on standard error that something is not there.
pub(crate) fn missing(what: &'static str, number: impl Into<u64> + Display + Copy) -> Errno {
    say(what, number.into());
    Errno(libc::ENOTTY)
}

/// Says something once on standard error.
pub(crate) fn say(what: &'static str, number: u64) {
    static SAID: Mutex<BTreeSet<(&str, u64)>> = Mutex::new(BTreeSet::new());
    let is_new = SAID.lock().unwrap_or_else(PoisonError::into_inner).insert((what, number));
    if is_new {
        // Nobody to tell if it cannot be written.
        let _ = writeln!(std::io::stderr(), "mshv shim: {what} {number:#x}");
    }
}
