//! Many sandboxes at once, on many threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use cellule::{Image, Sandbox};
use cellule_test_guests::basics;
use support::backends;

const SANDBOXES: usize = 1000;
const THREADS: usize = 8;

/// The user-space memory of this process that is in RAM, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The tests of this file count what the process has: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_thousand_sandboxes_live_and_answer_round_robin_on_eight_threads() {
    let _alone = alone();
    let descriptors = rlimit::increase_nofile_limit(8192).unwrap();
    assert!(
        descriptors >= 3000,
        "1000 sandboxes need 2000 descriptors, the limit is {descriptors}"
    );
    let image = Image::from_bytes(basics()).unwrap();
    for backend in backends() {
        let make = || {
            let mut sandbox = Sandbox::builder(&image).backend(backend).build().unwrap();
            sandbox.call::<i32>("add", (1, 2)).unwrap();
            sandbox
        };
        let first = make();
        let before = resident_kib();
        let mut sandboxes: Vec<Sandbox> = (1..SANDBOXES).map(|_| make()).collect();
        let each = (resident_kib() - before) / (SANDBOXES as u64 - 1);
        println!("{each} KiB of user-space memory for each further sandbox");
        assert!(each <= 100, "an idle sandbox should take at most 100 KiB, not {each}");
        sandboxes.push(first);
        std::thread::scope(|scope| {
            for share in sandboxes.chunks_mut(SANDBOXES / THREADS) {
                scope.spawn(move || {
                    for round in 0..5_u64 {
                        for sandbox in &mut *share {
                            assert_eq!(sandbox.call::<u64>("count", ()).unwrap(), round);
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn a_sandbox_moves_between_threads() {
    let _alone = alone();
    let image = Image::from_bytes(basics()).unwrap();
    for backend in backends() {
        let mut sandbox = Sandbox::builder(&image).backend(backend).build().unwrap();
        for expected in 0..20_u64 {
            sandbox = std::thread::spawn(move || {
                assert_eq!(sandbox.call::<u64>("count", ()).unwrap(), expected);
                sandbox
            })
            .join()
            .unwrap();
        }
    }
}

#[test]
fn a_program_that_builds_and_drops_for_long_does_not_grow() {
    let _alone = alone();
    let image = Image::from_bytes(basics()).unwrap();
    for backend in backends() {
        let cycle = |times: u32| {
            for n in 0..times {
                let heap = (64 << 10) + u64::from(n % 40) * 4096;
                let builder = Sandbox::builder(&image).backend(backend).heap_bytes(heap);
                builder.build().unwrap().call::<()>("nothing", ()).unwrap();
            }
        };
        cycle(200);
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (files, memory) = (open(), resident_kib());
        cycle(400);
        let grown = resident_kib().saturating_sub(memory);
        assert!(grown < 4 << 10, "400 more sandboxes should leave nothing, not {grown} KiB");
        let left = open().saturating_sub(files);
        println!("{left} descriptors more, {grown} KiB more");
    }
}
