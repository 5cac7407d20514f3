//! What a guest is made to find out, and what that costs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use cellule_hv::conformance::partition;
use cellule_hv::{Caps, Hypervisor};
use cellule_hv_kvm::Kvm;

/// A jump to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];
/// AVX, as in XCR0: Intel SDM volume 1, section 13.1.
const AVX: u64 = 1 << 2;

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let before = Instant::now();
    (act(), before.elapsed())
}

/// Prints what it costs.
#[test]
fn capabilities_are_found_out_once_and_have_avx_if_the_processor_has() {
    let (kvm, opened) = timed(Kvm::open);
    let kvm = match kvm {
        Ok(kvm) => kvm,
        Err(error) => return println!("backends: none ({error})"),
    };
    let (caps, first) = timed(|| kvm.capabilities());
    let Caps { vector_state, .. } = caps;
    let (again, second) = timed(|| kvm.clone().capabilities());
    println!("vector state {vector_state:#x}: opened in {opened:?}, {first:?}, then {second:?}");
    assert_eq!(again, caps);
    if std::arch::is_x86_feature_detected!("avx") {
        assert_eq!(vector_state & AVX, AVX, "a guest should save what it can use");
    }
}

/// Prints what the first template and its partition cost, and the second.
#[test]
fn capabilities_asked_for_after_a_template_cost_nothing() {
    let Ok(kvm) = Kvm::open() else { return println!("backends: none") };
    let (_, first) = timed(|| partition(&kvm, &SPIN).unwrap());
    let (_, second) = timed(|| partition(&kvm, &SPIN).unwrap());
    let (_, asked) = timed(|| kvm.capabilities());
    println!("first partition {first:?}, second {second:?}, capabilities {asked:?}");
    assert!(asked < Duration::from_millis(20), "no guest should be made: {asked:?}");
}
