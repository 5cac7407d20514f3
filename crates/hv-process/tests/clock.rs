//! How well the frequency of the time stamp counter is known.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use cellule_hv::conformance::partition;
use cellule_hv::{GuestClock, Hypervisor};
use cellule_hv_kvm::Kvm;
use cellule_hv_process::Process;

fn clock(hypervisor: &dyn Hypervisor) -> GuestClock {
    partition(hypervisor, &[0xeb, 0xfe]).unwrap().clock().unwrap()
}

fn parts_per_million(of: u64, from: u64) -> f64 {
    (of as f64 - from as f64) * 1e6 / from as f64
}

/// Compared over a longer time than it was found in. A system that corrects its time
/// keeping runs up to 500 parts in a million faster or slower than the processor.
#[test]
fn the_frequency_is_that_of_the_host_s_clock() {
    let process = Process::open().unwrap();
    let first = clock(&process);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        std::hint::spin_loop();
    }
    let last = clock(&process);
    let time = u64::try_from((last.at - first.at).as_nanos()).unwrap();
    let khz = (last.tsc - first.tsc) as f64 * 1e6 / time as f64;
    let error = (first.tsc_khz as f64 - khz) * 1e6 / khz;
    println!("backends: process: {} kHz, {error:.2} ppm from 300 ms later", first.tsc_khz);
    assert!(error.abs() < 100.0, "{error} ppm");
    match Kvm::open() {
        Ok(kvm) => {
            let there = clock(&kvm).tsc_khz;
            println!("kvm: {there} kHz, {:.2} ppm", parts_per_million(first.tsc_khz, there));
        }
        Err(error) => println!("no kvm: {error}"),
    }
}
