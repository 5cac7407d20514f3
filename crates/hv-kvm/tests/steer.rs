//! What it costs to stop a guest and send it elsewhere, and how well its clock
//! is known.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use cellule_hv::conformance::{STACK, SUPERVISOR, TEXT, partition};
use cellule_hv::space::PAGE_BYTES;
use cellule_hv::{Counters, Exit, Gva, Partition, Position, Registers, Start};
use cellule_hv_kvm::Kvm;
use cellule_kick::Alarm;

/// `out 1, al`, and a jump to itself.
const RING_AND_SPIN: [u8; 4] = [0xe6, 1, 0xeb, 0xfe];
/// `ud2`.
const FAULT: [u8; 2] = [0x0f, 0x0b];

/// A guest, or a line that says why there is none.
fn guest(code: &[u8]) -> Option<Box<dyn Partition>> {
    match Kvm::open() {
        Ok(kvm) => Some(partition(&kvm, code).unwrap()),
        Err(error) => {
            println!("backends: none ({error})");
            None
        }
    }
}

/// What an action adds to the counters.
fn cost(partition: &mut dyn Partition, act: impl FnOnce(&mut dyn Partition)) -> Counters {
    let before = partition.counters();
    act(partition);
    let after = partition.counters();
    Counters { exits: after.exits - before.exits, hypercalls: after.hypercalls - before.hypercalls }
}

fn hypercalls(hypercalls: u64) -> Counters {
    Counters { exits: 0, hypercalls }
}

/// Moves the guest to where it is.
fn divert(partition: &mut dyn Partition) {
    let position = partition.position().unwrap().unwrap();
    partition.divert(position).unwrap();
}

fn interrupt(partition: &mut dyn Partition) {
    let _alarm = Alarm::at(Instant::now() + Duration::from_micros(200)).unwrap();
    assert_eq!(partition.run().unwrap(), Exit::Kicked);
}

#[test]
fn diverting_costs_nothing_after_a_kick_and_a_hypercall_at_the_doorbell() {
    let Some(mut partition) = guest(&RING_AND_SPIN) else { return };
    assert_eq!(cost(&mut *partition, divert), hypercalls(0), "at the start");
    assert_eq!(partition.run().unwrap(), Exit::Doorbell(0));
    assert_eq!(cost(&mut *partition, divert), hypercalls(1));
    assert_eq!(cost(&mut *partition, divert), hypercalls(0), "asked again");
    interrupt(&mut *partition);
    assert_eq!(cost(&mut *partition, divert), hypercalls(0));
}

#[test]
fn a_nudge_at_the_doorbell_costs_no_entry() {
    let Some(mut partition) = guest(&RING_AND_SPIN) else { return };
    assert_eq!(partition.run().unwrap(), Exit::Doorbell(0));
    let stopped = cost(&mut *partition, |partition| {
        partition.kicker().nudge();
        assert_eq!(partition.run().unwrap(), Exit::Kicked);
        assert!(!partition.is_kicked(), "a nudge should NOT be a request to end");
    });
    assert_eq!(stopped, hypercalls(0));
    assert_eq!(cost(&mut *partition, divert), hypercalls(1));
}

/// Ring 3 can point RIP at an exception stub. It is taken for one that is under
/// way, and run on; its next instruction ends that.
#[test]
fn a_guest_that_stands_at_a_stub_is_not_diverted_and_faults() {
    const STUB: Gva = Gva(SUPERVISOR + PAGE_BYTES);
    let Some(mut partition) = guest(&RING_AND_SPIN) else { return };
    let position = partition.position().unwrap().unwrap();
    partition.divert(Position { rip: STUB, ..position }).unwrap();
    assert_eq!(partition.position().unwrap(), None);
    partition.divert(position).unwrap_err();
    let Exit::Fault(fault) = partition.run().unwrap() else { panic!("a fault should come") };
    assert_eq!((fault.rip, fault.address), (STUB, Some(STUB)));
}

/// The entry, and CR2 for the fault.
#[test]
fn a_fault_and_a_new_start_cost_an_entry_and_a_hypercall() {
    let Some(mut partition) = guest(&FAULT) else { return };
    let stack = Gva(STACK + PAGE_BYTES);
    let start = Start { entry: Gva(TEXT), stack, argument: Gva(0) };
    for _ in 0..2 {
        let turn = cost(&mut *partition, |partition| {
            assert!(matches!(partition.run().unwrap(), Exit::Fault(_)));
            partition.restart(&Registers::start(start)).unwrap();
        });
        assert_eq!(turn, Counters { exits: 1, hypercalls: 2 });
    }
}

#[test]
fn the_clock_costs_three_hypercalls_at_most_and_only_the_first_time() {
    let Some(mut partition) = guest(&RING_AND_SPIN) else { return };
    let read = |partition: &mut dyn Partition| {
        partition.clock().unwrap();
    };
    let first = cost(&mut *partition, read);
    assert!(first.hypercalls <= 3, "{first:?}");
    assert_eq!(cost(&mut *partition, read), hypercalls(0));
}

/// Prints the error of the frequency: a system that corrects its time keeping
/// runs up to 0.05 % faster or slower than the processor, and a reading may err
/// by microseconds on a busy machine.
#[test]
fn the_clock_runs_as_the_host_s() {
    let Some(mut partition) = guest(&RING_AND_SPIN) else { return };
    let first = partition.clock().unwrap();
    let later = first.at + Duration::from_millis(100);
    while Instant::now() < later {
        std::hint::spin_loop();
    }
    let last = partition.clock().unwrap();
    let (host, guest) = (last.at - first.at, first.duration(last.tsc - first.tsc));
    let error = guest.as_secs_f64() / host.as_secs_f64() - 1.0;
    println!("{} kHz, offset {}: error {error:+.1e}", last.tsc_khz, last.tsc_offset);
    assert!(error.abs() < 1e-2, "the unit should be a millisecond: {error:+.1e}");
}
