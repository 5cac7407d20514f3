//! Guest programs for the tests and benchmarks of cellule, as bytes.
//!
//! The programs are in `guests/src/bin`, one for each subject.
#![forbid(unsafe_code)]

/// A file's bytes at an address that suits any structure in them.
macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $variable:literal) => {
        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            include_bytes!(env!($variable))
        }
    };
}

program! {
    /// Values of all kinds, there and back; no imports.
    basics, "CELLULE_GUEST_BASICS"
}
program! {
    /// Calls host functions and writes log records.
    hosted, "CELLULE_GUEST_HOSTED"
}
program! {
    /// Does what ring 3 may not, one export for each way; no imports.
    faults, "CELLULE_GUEST_FAULTS"
}
program! {
    /// Lies in the shared rings.
    hostile, "CELLULE_GUEST_HOSTILE"
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
