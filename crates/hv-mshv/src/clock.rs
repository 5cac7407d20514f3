//! What a guest's `rdtsc` shows.
//!
//! The hypervisor tells what it believes that the guest's time stamp counter
//! shows, and how fast it counts. A guest that looks decides whether the first
//! is so (see `look` in `cellule-hv`); if nobody tells the second, it is measured.

use std::arch::x86_64::_rdtsc;
use std::io;
use std::time::{Duration, Instant};

use cellule_hv::clock::{ATTEMPTS, Together};

use crate::registers::TSC;
use crate::vcpu::Vcpu;

/// How long the counter is watched to measure it: an error of a microsecond at
/// each end is one in 10,000.
const WATCHED: Duration = Duration::from_millis(20);
const HZ_PER_KHZ: u64 = 1000;
/// What a counter's frequency may be at all; else it was not meant.
const PLAUSIBLE_KHZ: std::ops::Range<u64> = 100_000..100_000_000;

/// The guest's counter less the host's, as the hypervisor believes: three calls.
pub(crate) fn believed_offset(vcpu: &mut Vcpu) -> io::Result<i64> {
    let mut best = None;
    for _ in 0..ATTEMPTS {
        let Together { value, tsc, took } = Together::read(host_tsc, || vcpu.register(TSC));
        let found = (took, value?.wrapping_sub(tsc).cast_signed());
        best = Some(best.map_or(found, |best| found.min(best)));
    }
    Ok(best.map_or(0, |(_, offset)| offset))
}

/// The counter's frequency, if what the hypervisor calls the processor's clock
/// frequency can be it.
pub(crate) fn khz_of(hz: u64) -> Option<u64> {
    let khz = hz / HZ_PER_KHZ;
    PLAUSIBLE_KHZ.contains(&khz).then_some(khz)
}

/// Measures the counter's frequency against the system's clock.
///
/// # Blocking
///
/// For [`WATCHED`].
pub(crate) fn measure_khz() -> u64 {
    let read = || {
        let pairs = (0..ATTEMPTS).map(|_| Together::read(host_tsc, Instant::now));
        pairs.min_by_key(|pair| pair.took)
    };
    let start = read();
    let Some(start) = start else { return 0 };
    while start.value.elapsed() < WATCHED {
        std::hint::spin_loop();
    }
    let Some(end) = read() else { return 0 };
    khz_between((start.value, start.tsc), (end.value, end.tsc))
}

fn khz_between(start: (Instant, u64), end: (Instant, u64)) -> u64 {
    const NS_PER_MS: u128 = 1_000_000;
    let cycles = u128::from(end.1.wrapping_sub(start.1));
    let ns = end.0.saturating_duration_since(start.0).as_nanos();
    u64::try_from(cycles * NS_PER_MS / ns.max(1)).unwrap_or(0)
}

pub(crate) fn host_tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets
    // programs use it unless they forbid it to themselves (PR_SET_TSC).
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_that_cannot_be_one_is_none() {
        assert_eq!(khz_of(2_100_000_000), Some(2_100_000));
        assert_eq!(khz_of(0), None);
        assert_eq!(khz_of(2_100), None, "that would be MHz");
        assert_eq!(khz_of(u64::MAX), None);
    }

    #[test]
    fn cycles_in_a_time_are_a_frequency() {
        let start = Instant::now();
        let end = start + Duration::from_millis(20);
        assert_eq!(khz_between((start, u64::MAX), (end, 41_999_999)), 2_100_000, "wraps");
        assert_eq!(khz_between((end, 0), (start, 1)), 1_000_000, "no time has no frequency");
    }

    #[test]
    fn what_is_measured_can_be_a_frequency() {
        assert!(PLAUSIBLE_KHZ.contains(&measure_khz()));
    }
}
