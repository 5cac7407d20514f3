//! What a guest's `rdtsc` shows: the host's counter, as nothing stands in between.

use std::arch::x86_64::{__cpuid, _rdtsc, _xgetbv};
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cellule_hv::clock::Together;
use cellule_hv::x86::usable_states;

/// How long the counter is compared with the clock at least: at 10 ms an error of
/// 50 ns at either end is one of 10 ppm.
const COMPARED: Duration = Duration::from_millis(10);
/// How often the two are read to read them at one time: some 2 us.
const ATTEMPTS: usize = 32;
const NS_PER_MS: u128 = 1_000_000;

/// The first reading, from when the first backend of this process was opened.
static FIRST: OnceLock<Together<Instant>> = OnceLock::new();
/// The counter's frequency: one machine, one counter.
static KHZ: OnceLock<u64> = OnceLock::new();

/// Takes the first of the two readings.
pub(crate) fn begin() {
    FIRST.get_or_init(read);
}

/// How many cycles of the counter are a millisecond.
///
/// # Errors
///
/// `Unsupported` if the processor does not say that the counter runs evenly.
///
/// # Blocking
///
/// The first time in a process until 10 ms have passed since its first reading.
pub(crate) fn khz() -> io::Result<u64> {
    // Inside a virtual machine CPUID takes tens of microseconds: asked once.
    if let Some(khz) = KHZ.get() {
        return Ok(*khz);
    }
    if !is_invariant() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(*KHZ.get_or_init(|| {
        let first = *FIRST.get_or_init(read);
        // A sleep could be longer by far than what is left.
        while first.value.elapsed() < COMPARED {
            std::hint::spin_loop();
        }
        frequency(first, read())
    }))
}

/// The vector registers that a guest has: those of this process.
pub(crate) fn vector_state() -> u64 {
    const OSXSAVE: u32 = 1 << 27;
    let [_, _, ecx, _] = cpuid(1);
    if ecx & OSXSAVE == 0 {
        return 0;
    }
    // SAFETY: there is the instruction, as CPUID says (SDM volume 2, XGETBV), and
    // register 0 always is.
    usable_states(unsafe { xcr0() })
}

/// Reads the host's counter.
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use
    // it unless they forbid it to themselves (PR_SET_TSC).
    unsafe { _rdtsc() }
}

/// Invariant TSC: SDM volume 3, section 19.17.1.
fn is_invariant() -> bool {
    const LEAF: u32 = 0x8000_0007;
    let [last, ..] = cpuid(0x8000_0000);
    let [_, _, _, edx] = cpuid(LEAF);
    last >= LEAF && edx >> 8 & 1 == 1
}

fn cpuid(leaf: u32) -> [u32; 4] {
    // SAFETY: every x86-64 processor has the instruction.
    #[allow(unused_unsafe, reason = "it is a safe function from Rust 1.94 on")]
    let result = unsafe { __cpuid(leaf) };
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// # Safety
///
/// The processor must have XGETBV, and the system must have switched it on.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// The clock and the counter, from the closest of some pairs.
fn read() -> Together<Instant> {
    let pair = || Together::read(host_tsc, Instant::now);
    let pairs = std::iter::repeat_with(pair).take(ATTEMPTS);
    pairs.min_by_key(|pair| pair.took).unwrap_or_else(pair)
}

fn frequency(first: Together<Instant>, last: Together<Instant>) -> u64 {
    let time = last.value.saturating_duration_since(first.value).as_nanos().max(1);
    let cycles = u128::from(last.tsc.wrapping_sub(first.tsc));
    u64::try_from((cycles * NS_PER_MS + time / 2) / time).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_cycles_over_time_to_the_nearest() {
        let first = Together { value: Instant::now(), tsc: u64::MAX, took: 0 };
        let last = |tsc| Together { value: first.value + Duration::from_millis(20), tsc, ..first };
        assert_eq!(frequency(first, last(50_000_000 - 1)), 2_500_000, "the counter may wrap");
        assert_eq!(frequency(first, last(50_000_000 - 1 + 11)), 2_500_001);
    }
}
