//! The clock that a guest reads without leaving.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How a guest turns its processor's time-stamp counter into nanoseconds. OUT.
///
/// ```
/// use cellule_abi::clock::Clock;
/// // A counter of 2 GHz that stood at 1000 when a second had passed.
/// let clock = Clock::of_counter(2_000_000_000, 1000, 1_000_000_000);
/// assert_eq!(clock.nanoseconds(1000 + 3_000_000), 1_000_000_000 + 1_500_000);
/// // A counter that seems to run backwards does not make time do so.
/// assert_eq!(clock.nanoseconds(7), 1_000_000_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Clock {
    /// The counter when the guest's time was [`Clock::base_ns`].
    pub base_counter: u64,
    /// The guest's monotonic time then, in nanoseconds.
    pub base_ns: u64,
    /// Nanoseconds for each count, times 2^32. Zero for a [`ClockKind::Virtual`] clock.
    pub ratio: u64,
    /// What to add, modulo 2^64, to monotonic time for nanoseconds since
    /// 1970-01-01 UTC. The host sets it right before each entry of its own accord.
    pub wall_offset_ns: u64,
    /// A [`ClockKind`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

crate::codes! {
    /// What makes a guest's time pass.
    pub enum ClockKind: u32 {
        /// The time-stamp counter.
        Counter = 1,
        /// Nothing but the guest itself, when every task waits or works by script.
        Virtual = 2,
    }
}

impl Clock {
    /// The clock of a counter of `hertz` that shows `counter` at `now_ns`.
    pub const fn of_counter(hertz: u64, counter: u64, now_ns: u64) -> Self {
        let hertz = if hertz == 0 { 1 } else { hertz };
        let ratio = (1_000_000_000_u128 << 32) / hertz as u128;
        let kind = ClockKind::Counter as u32;
        let ratio = if ratio > u64::MAX as u128 { u64::MAX } else { low(ratio) };
        Self { base_counter: counter, base_ns: now_ns, ratio, wall_offset_ns: 0, kind, reserved: 0 }
    }

    /// A virtual clock that shows zero, at 1970-01-01.
    pub const fn still() -> Self {
        let kind = ClockKind::Virtual as u32;
        Self { base_counter: 0, base_ns: 0, ratio: 0, wall_offset_ns: 0, kind, reserved: 0 }
    }

    /// The monotonic time when the counter shows `counter`, in nanoseconds.
    pub const fn nanoseconds(&self, counter: u64) -> u64 {
        // A difference beyond the half is a counter from before the base.
        let passed = counter.wrapping_sub(self.base_counter);
        let passed = if passed > u64::MAX / 2 { 0 } else { passed };
        self.base_ns.saturating_add(low((passed as u128 * self.ratio as u128) >> 32))
    }
}

/// The low half: times of more than 500 years are not told apart.
#[allow(clippy::cast_possible_truncation, reason = "it is what the name says")]
const fn low(wide: u128) -> u64 {
    wide as u64
}

// Pinned: see ABI.md, "The clock".
const _: () = assert!(size_of::<Clock>() == 40);
const _: () = assert!(offset_of!(Clock, ratio) == 16 && offset_of!(Clock, wall_offset_ns) == 24);
