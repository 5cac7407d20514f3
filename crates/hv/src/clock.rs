//! The guest's clock as the host sees it.

use std::time::{Duration, Instant};

/// What a guest's `rdtsc` shows, and what that means on the host.
///
/// `tsc` and `at` are one point in time, read for this value; the next reading
/// has new ones. To convert, go from a recent reading: the two clocks drift
/// apart by what the system's time keeping corrects, up to some parts in 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestClock {
    /// Cycles in a millisecond.
    pub tsc_khz: u64,
    /// What the guest's `rdtsc` shows less what the host's shows, wrapping.
    pub tsc_offset: i64,
    /// What the guest's `rdtsc` would have shown at `at`.
    pub tsc: u64,
    /// The host's time of the reading.
    pub at: Instant,
}

const NS_PER_MS: u128 = 1_000_000;

/// How often two clocks are read to read them at one time: the closest pair
/// counts, lest the thread lost its processor in between.
pub const ATTEMPTS: u8 = 3;

/// Something that was read, and the host's counter at the middle of that.
#[derive(Debug, Clone, Copy)]
pub struct Together<T> {
    /// What was read.
    pub value: T,
    /// The host's time stamp counter halfway.
    pub tsc: u64,
    /// How many cycles the reading took: it may err by half of them.
    pub took: u64,
}

impl<T> Together<T> {
    /// Reads something, and the host's time stamp counter before and after.
    pub fn read(counter: fn() -> u64, read: impl FnOnce() -> T) -> Self {
        let before = counter();
        let value = read();
        let took = counter().wrapping_sub(before);
        Self { value, tsc: before.wrapping_add(took / 2), took }
    }
}

impl GuestClock {
    /// Reads the guest's and the host's clock at one time. `counter` reads the
    /// host's time stamp counter.
    pub fn read(tsc_khz: u64, tsc_offset: i64, counter: fn() -> u64) -> Self {
        let pairs = (0..ATTEMPTS).map(|_| Together::read(counter, Instant::now));
        let best = pairs.min_by_key(|pair| pair.took);
        let best = best.unwrap_or_else(|| Together::read(counter, Instant::now));
        let tsc = best.tsc.wrapping_add_signed(tsc_offset);
        Self { tsc_khz, tsc_offset, tsc, at: best.value }
    }

    /// The host's time at which the guest's `rdtsc` shows `tsc`: `None` if it
    /// is further away than the host can tell.
    ///
    /// A guest may name any number: half of them lie in the past.
    pub fn instant(&self, tsc: u64) -> Option<Instant> {
        // The counter is 64 bits and wraps: the difference has a sign.
        let ahead = tsc.wrapping_sub(self.tsc).cast_signed();
        let span = self.duration(ahead.unsigned_abs());
        if ahead < 0 { self.at.checked_sub(span) } else { self.at.checked_add(span) }
    }

    /// How long the guest's `rdtsc` takes to count so many cycles.
    pub fn duration(&self, cycles: u64) -> Duration {
        let ns = u128::from(cycles) * NS_PER_MS / u128::from(self.tsc_khz.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2.5 GHz: two and a half cycles are a nanosecond.
    fn clock() -> GuestClock {
        GuestClock { tsc_khz: 2_500_000, tsc_offset: 0, tsc: 1000, at: Instant::now() }
    }

    #[test]
    fn cycles_ahead_and_behind_are_times_ahead_and_behind() {
        let clock = clock();
        assert_eq!(clock.instant(1000), Some(clock.at));
        assert_eq!(clock.instant(3500), Some(clock.at + Duration::from_micros(1)));
        assert_eq!(clock.instant(500), Some(clock.at - Duration::from_nanos(200)));
        assert_eq!(clock.duration(2_500_000_000), Duration::from_secs(1));
    }

    #[test]
    fn no_number_is_too_large_to_convert() {
        let clock = clock();
        for tsc in [0, u64::MAX, 1 << 63, (1 << 63) + 1000, i64::MAX.cast_unsigned()] {
            let _ = clock.instant(tsc);
        }
        let stopped = GuestClock { tsc_khz: 0, ..clock };
        assert_eq!(stopped.duration(u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
