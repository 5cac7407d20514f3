//! A partition goes from thread to thread: whoever has it can run it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::cell::RefCell;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use cellule_hv::conformance::partition;
use cellule_hv::{Exit, Hypervisor, Partition};
use cellule_hv_process::Process;

/// inc eax; out 1, al; jmp to the start.
const COUNT: [u8; 6] = [0xff, 0xc0, 0xe6, 1, 0xeb, 0xfa];
/// A jump to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];
/// `syscall`.
const CALL: [u8; 2] = [0x0f, 0x05];

fn guest(code: &[u8]) -> Box<dyn Partition> {
    partition(&Process::open().unwrap(), code).unwrap()
}

/// The next ring. A late signal of an earlier run may stop one.
fn ring(partition: &mut dyn Partition) -> Exit {
    let mut exits = std::iter::repeat_with(|| partition.run().unwrap());
    exits.find(|exit| *exit != Exit::Kicked).unwrap()
}

fn on_another_thread<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(act).join().unwrap()
}

#[test]
fn a_guest_is_made_run_and_dropped_on_threads_that_end_in_between() {
    println!("backends: {}", Process::open().unwrap().name());
    let mut partition = on_another_thread(|| guest(&COUNT));
    for round in 1..=20 {
        partition = on_another_thread(move || {
            assert_eq!(ring(&mut *partition), Exit::Doorbell(round));
            partition
        });
    }
    assert_eq!(ring(&mut *partition), Exit::Doorbell(21));
    on_another_thread(move || drop(partition));
}

#[test]
fn a_guest_is_taken_from_a_thread_that_waits() {
    let (give, take) = mpsc::channel::<Box<dyn Partition>>();
    let (end, ended) = mpsc::channel::<()>();
    let owner = thread::spawn(move || {
        let mut partition = guest(&COUNT);
        assert_eq!(ring(&mut *partition), Exit::Doorbell(1));
        give.send(partition).unwrap();
        // Here it waits until the other has had its turns.
        ended.recv().unwrap();
    });
    let mut partition = take.recv().unwrap();
    for round in 2..=20 {
        assert_eq!(ring(&mut *partition), Exit::Doorbell(round));
    }
    end.send(()).unwrap();
    owner.join().unwrap();
    assert_eq!(ring(&mut *partition), Exit::Doorbell(21));
}

#[test]
fn a_guest_is_taken_from_a_thread_that_runs_another() {
    let (give, take) = mpsc::channel();
    let owner = thread::spawn(move || {
        let mut partition = guest(&COUNT);
        let mut spinning = guest(&SPIN);
        assert_eq!(ring(&mut *partition), Exit::Doorbell(1));
        give.send((partition, spinning.kicker())).unwrap();
        assert_eq!(spinning.run().unwrap(), Exit::Kicked);
    });
    let (mut partition, kicker) = take.recv().unwrap();
    for round in 2..=20 {
        assert_eq!(ring(&mut *partition), Exit::Doorbell(round));
    }
    kicker.kick();
    owner.join().unwrap();
}

#[test]
fn a_guest_that_is_dropped_by_who_never_ran_it_is_gone() {
    let (give, take) = mpsc::channel::<Box<dyn Partition>>();
    let (end, ended) = mpsc::channel::<()>();
    let owner = thread::spawn(move || {
        give.send(guest(&COUNT)).unwrap();
        ended.recv().unwrap();
    });
    drop(take.recv().unwrap());
    end.send(()).unwrap();
    owner.join().unwrap();
}

/// The owner ends at the very moment that the guest is asked for.
#[test]
fn a_guest_is_taken_from_a_thread_that_ends() {
    for _ in 0..300 {
        let (give, take) = mpsc::channel::<Box<dyn Partition>>();
        let owner = thread::spawn(move || {
            let mut partition = guest(&COUNT);
            assert_eq!(ring(&mut *partition), Exit::Doorbell(1));
            give.send(partition).unwrap();
        });
        let mut partition = take.recv().unwrap();
        assert_eq!(ring(&mut *partition), Exit::Doorbell(2));
        owner.join().unwrap();
        assert_eq!(ring(&mut *partition), Exit::Doorbell(3));
    }
}

thread_local! {
    /// Dropped when its thread ends, after what was first used later.
    static KEPT: RefCell<Option<Box<dyn Partition>>> = const { RefCell::new(None) };
}

#[test]
fn a_guest_is_dropped_as_its_thread_ends() {
    for _ in 0..20 {
        on_another_thread(move || {
            KEPT.with_borrow_mut(|kept| {
                let mut partition = guest(&COUNT);
                assert_eq!(ring(&mut *partition), Exit::Doorbell(1));
                *kept = Some(partition);
            });
        });
    }
}

/// What a stop at a system call is to the kernel differs from other stops.
#[test]
fn a_guest_that_faulted_in_a_system_call_starts_anew_on_another_thread() {
    let mut partition = guest(&[&CALL[..], &COUNT].concat());
    let position = partition.position().unwrap().unwrap();
    for _ in 0..10 {
        partition = on_another_thread(move || {
            let exit = ring(&mut *partition);
            assert!(matches!(exit, Exit::Fault(fault) if fault.vector == 6), "{exit:x?}");
            partition
        });
        let registers = cellule_hv::Registers {
            rip: position.rip.0,
            rsp: position.rsp.0,
            // -ERESTARTSYS: in a system call the kernel would do it again.
            rax: (-512_i64).cast_unsigned(),
            ..cellule_hv::Registers::default()
        };
        partition.restart(&registers).unwrap();
    }
}

/// Each of the threads runs all of the partitions, one after another, at the same
/// time as the others run theirs.
#[test]
fn a_hundred_guests_go_round_among_eight_threads() {
    const THREADS: usize = 8;
    const GUESTS: usize = 104;
    const ROUNDS: u8 = 24;
    let hands: Vec<_> = (0..THREADS).map(|_| mpsc::channel::<Box<dyn Partition>>()).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) = hands.into_iter().unzip();
    for n in 0..GUESTS {
        senders[n % THREADS].send(guest(&COUNT)).unwrap();
    }
    let start = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (receivers.into_iter().enumerate())
        .map(|(n, receiver)| {
            let (next, start) = (senders[(n + 1) % THREADS].clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for round in 1..=ROUNDS {
                    for _ in 0..GUESTS / THREADS {
                        let mut partition = receiver.recv().unwrap();
                        assert_eq!(ring(&mut *partition), Exit::Doorbell(round));
                        // The last one may have nobody to give it to any more.
                        let _ = next.send(partition);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_thousand_guests_at_once_run_on_eight_threads() {
    const EACH: usize = 125;
    let all_are_there = Arc::new(Barrier::new(8));
    let threads = (0..8).map(|_| {
        let all_are_there = Arc::clone(&all_are_there);
        thread::spawn(move || {
            let mut guests: Vec<_> = (0..EACH).map(|_| guest(&COUNT)).collect();
            all_are_there.wait();
            for round in 1..=3 {
                for partition in &mut guests {
                    assert_eq!(ring(&mut **partition), Exit::Doorbell(round));
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
