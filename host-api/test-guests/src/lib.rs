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
program! {
    /// Is interrupted, waits and lies, all by hand: a guest without the SDK.
    upcalls, "CELLULE_GUEST_UPCALLS"
}

program! {
    /// Tasks: what they do to each other, and what that costs; no imports.
    tasks, "CELLULE_GUEST_TASKS"
}

program! {
    /// Random numbers, and the seed that they come from; no imports.
    entropy, "CELLULE_GUEST_ENTROPY"
}

program! {
    /// What the services of the kernel cost in cycles; no imports.
    costs, "CELLULE_GUEST_COSTS"
}

program! {
    /// Tasks and the host: imports `now` and `later`.
    together, "CELLULE_GUEST_TOGETHER"
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
