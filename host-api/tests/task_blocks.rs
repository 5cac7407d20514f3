//! What a guest without the SDK can make of its task block: stacks, faults of tasks,
//! traces, and lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::mem::offset_of;
use std::time::Duration;

use cellule::abi::page::{Boot, TASKS_GVA_OFFSET};
use cellule::abi::tasks::{TaskBlock, TraceEvent};
use cellule::{
    CallError, Event, GuestFault, Gva, MemorySink, Poison, Sandbox, SandboxBuilder, TaskFaults,
    Traced,
};
use support::raw::{Ask, plain, with_raw};

const MILLI: u64 = 1_000_000;
const STACKS: u64 = offset_of!(Boot, stacks) as u64;

/// The address and the size of the first task stack.
fn first_stack(sandbox: &mut Sandbox) -> (u64, u64) {
    let gva = sandbox.ask("boot_word", [STACKS, 0, 0, 0]).unwrap();
    (gva, sandbox.ask("boot_word", [STACKS + 8, 0, 0, 0]).unwrap())
}

fn ending_tasks(builder: SandboxBuilder) -> Sandbox {
    plain(builder.task_faults(TaskFaults::EndTask))
}

#[test]
fn the_guest_is_told_of_its_stacks_and_each_has_a_guard_page() {
    with_raw(|builder| {
        let stacks: &[(u64, u32)] = &[(60_000, 3), (8192, 2)];
        let mut sandbox = plain(builder().task_stacks(stacks));
        let told: Vec<_> = (0..9)
            .map(|word| sandbox.ask("boot_word", [STACKS + 8 * word, 0, 0, 0]).unwrap())
            .collect();
        assert_eq!((told[1], told[2]), (8192, 2));
        assert_eq!((told[4], told[5]), (61_440, 3));
        assert_eq!(told[6..], [0, 0, 0]);
        for (gva, bytes, count) in [(told[0], told[1], told[2]), (told[3], told[4], told[5])] {
            for index in 0..count {
                let stack = gva + index * (bytes + 4096);
                for inside in [stack, stack + bytes - 8] {
                    assert_eq!(sandbox.ask("write_late", [inside, 0, 0, 0]).unwrap(), 7);
                }
                let below = stack - 8;
                let error = plain(builder().task_stacks(stacks));
                let error = { error }.ask("write_late", [below, 0, 0, 0]).unwrap_err().to_string();
                assert!(error.contains("the guard page below the task stack"), "{error}");
            }
        }
    });
}

#[test]
fn stacks_are_late_memory_and_cost_nothing_before() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        let (gva, bytes) = first_stack(&mut sandbox);
        assert_eq!(bytes, 16 << 10);
        let error = sandbox.ask("fail", [gva, 1, 0, 0]).unwrap_err().to_string();
        assert!(error.contains("which is task stack (rw-) not asked for yet"), "{error}");
    });
}

#[test]
fn a_task_that_faults_ends_alone_and_the_guest_goes_on() {
    with_raw(|builder| {
        let (sink, trail) = MemorySink::new(100);
        let mut sandbox = ending_tasks(builder().audit(sink));
        for (what, vector) in [(0, 6), (8, 14), (1 << 47, 13)] {
            let error = sandbox.ask("fail", [what, 0, 0, 0]).unwrap_err();
            assert!(matches!(error, CallError::TaskEnded), "{error}");
            assert_eq!(error.poisons(), None);
            let told = trail.records().into_iter().rev().find_map(|record| match record.event {
                Event::TaskFaulted { fault, .. } => Some(fault),
                _ => None,
            });
            assert_eq!(told.unwrap().vector, vector);
        }
        assert_eq!(sandbox.ask("count", [0; 4]).unwrap() >> 32, 3);
        assert_eq!(sandbox.stats().task_faults, 3);
    });
}

#[test]
fn without_the_policy_a_fault_ends_the_sandbox() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        let error = sandbox.ask("fail", [0; 4]).unwrap_err();
        assert!(matches!(error, CallError::Guest(GuestFault::Exception(_))), "{error}");
        assert_eq!(sandbox.poison(), Some(Poison::Guest));
    });
}

#[test]
fn a_fault_while_masked_ends_the_sandbox_whatever_the_policy() {
    with_raw(|builder| {
        let mut sandbox = ending_tasks(builder());
        let error = sandbox.ask("fail", [0, 1, 0, 0]).unwrap_err();
        assert!(error.to_string().contains("#UD"), "{error}");
        assert_eq!(sandbox.poison(), Some(Poison::Guest));
    });
}

#[test]
fn an_upcall_that_finds_no_stack_is_the_guests_page_fault() {
    with_raw(|builder| {
        let unmapped = [0, 8, 136, 0x3_0000_0000, 0x40_0000, 1 << 47, u64::MAX];
        for rsp in unmapped {
            let mut sandbox = plain(builder());
            let error = sandbox.ask("fail_at_stack", [rsp, MILLI, 0, 0]).unwrap_err();
            let CallError::Guest(GuestFault::Exception(exception)) = &error else {
                panic!("{rsp:#x}: {error}")
            };
            assert_eq!(exception.fault.address, Some(Gva(rsp.wrapping_sub(136))), "{error}");
            let mut sandbox = ending_tasks(builder());
            let error = sandbox.ask("fail_at_stack", [rsp, MILLI, 0, 0]).unwrap_err();
            assert!(matches!(error, CallError::TaskEnded), "{rsp:#x}: {error}");
        }
        let mut sandbox = plain(builder());
        let (stack, _) = first_stack(&mut sandbox);
        let error = sandbox.ask("fail_at_stack", [stack + 100, MILLI, 0, 0]).unwrap_err();
        assert!(error.to_string().contains("the guard page below the task stack"), "{error}");
    });
}

#[test]
fn a_task_block_that_is_not_the_guests_own_aligned_memory_ends_the_guest() {
    with_raw(|builder| {
        let block = plain(builder()).ask("boot_word", [u64::MAX, 0, 0, 0]).unwrap();
        let (stack, _) = first_stack(&mut plain(builder()));
        let bad = [1, 63, block + 1, block + 32, 0x40_0000, u64::MAX, 1 << 63, stack - 64];
        for gva in bad.into_iter().chain([0xffff_ffff_ffff_ffc0, 0x1_0000]) {
            let mut sandbox = plain(builder());
            let error = sandbox.ask("publish", [gva, 0, 0, 0]).unwrap_err();
            let CallError::Guest(GuestFault::BadTaskBlock { gva: named }) = error else {
                panic!("{gva:#x}: {error}")
            };
            assert_eq!(named, Gva(gva));
        }
        // None, and another place that is the guest's, harm nobody. The stacks are there
        // once the guest has asked for late memory.
        for gva in [0, stack] {
            let mut sandbox = plain(builder());
            sandbox.ask("write_late", [stack + 4096, 0, 0, 0]).unwrap();
            assert_eq!(sandbox.ask("publish", [gva, 0, 0, 0]).unwrap(), 0);
            assert_eq!(sandbox.ask("count", [0; 4]).unwrap(), 0);
        }
        assert_eq!(TASKS_GVA_OFFSET, 0x108, "what the guest's program writes");
    });
}

#[test]
fn an_upcall_entry_that_is_no_code_ends_the_guest() {
    let offset = offset_of!(TaskBlock, upcall_entry) as u64;
    with_raw(|builder| {
        for (entry, text) in [
            (8, "#PF"),
            (0x3_0000_0000, "#PF"),
            ((1 << 36) - 1, "#PF"),
            (1 << 36, "wants to go on at the upcall entry 0x1000000000"),
            (1 << 47, "wants to go on at"),
            (0x8000_0000_0000_0000, "wants to go on at"),
            (u64::MAX, "wants to go on at"),
        ] {
            let mut sandbox = plain(builder());
            sandbox.ask("poke_block", [offset, entry, 0, 0]).unwrap();
            let args = [1, MILLI, 0, 0];
            let error = sandbox.ask("upcalls_while_spinning", args).unwrap_err().to_string();
            assert!(error.contains(text), "{entry:#x}: {error}");
            assert_eq!(sandbox.poison(), Some(Poison::Guest));
        }
    });
}

#[test]
fn a_fault_entry_that_is_no_code_ends_the_guest() {
    let entry = offset_of!(TaskBlock, fault_entry) as u64;
    let stack = offset_of!(TaskBlock, fault_stack) as u64;
    with_raw(|builder| {
        for (field, value, text) in [
            (entry, 8, "#PF"),
            (entry, 0x3_0000_0000, "#PF"),
            (entry, 1 << 47, "the fault entry 0x800000000000"),
            (entry, u64::MAX, "the fault entry"),
            (entry, 0, "#UD"),
            (stack, 0, "#PF"),
            (stack, 0x40_0000, "#PF"),
            (stack, u64::MAX, "the top of the fault stack"),
        ] {
            let mut sandbox = ending_tasks(builder());
            sandbox.ask("poke_block", [field, value, 0, 0]).unwrap();
            let error = sandbox.ask("fail", [0; 4]).unwrap_err().to_string();
            assert!(error.contains(text), "{value:#x}: {error}");
            assert_eq!(sandbox.poison(), Some(Poison::Guest));
        }
    });
}

#[test]
fn no_value_of_any_field_of_the_block_can_hurt_the_host() {
    with_raw(|builder| {
        for offset in (0..size_of::<TaskBlock>() as u64).step_by(8) {
            for value in [0, 1, 0x8000_0000_0000_0000, u64::MAX, 0x40_0000, 0xffff_ffff] {
                for operation in [1_u8, 2] {
                    let mut sandbox = ending_tasks(builder().trace(64));
                    // It may wait for a deadline that it made up.
                    let limit = Duration::from_millis(50);
                    let args = (offset, value, 100_000_u64, u64::from(operation));
                    match sandbox.call_within::<u64>(limit, "poke_and_ring", args) {
                        Ok(_) | Err(CallError::Guest(_) | CallError::TaskEnded) => {}
                        Err(CallError::DeadlineExceeded { .. }) => {}
                        Err(other) => panic!("{offset:#x} = {value:#x}: {other}"),
                    }
                    let _ = sandbox.trace().to_chrome_json();
                    // Whatever it was, the next call answers or refuses.
                    let _ = sandbox.ask("count", [0; 4]);
                    let _ = sandbox.run_for(Duration::from_micros(200));
                }
            }
        }
    });
}

#[test]
fn deadlines_that_are_always_past_or_move_backwards_hurt_nobody() {
    let (deadline, following) =
        (offset_of!(TaskBlock, deadline_ns) as u64, offset_of!(TaskBlock, following_ns) as u64);
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        for value in [0, 1, 0, u64::MAX - 1, 5, 0] {
            sandbox.ask("poke_block", [deadline, value, 0, 0]).unwrap();
            sandbox.ask("poke_block", [following, value / 2, 0, 0]).unwrap();
            assert_eq!(sandbox.ask("count", [0; 4]).unwrap(), 0);
        }
        // At the doorbell with a deadline in the past, it never is idle.
        let handle = sandbox.interrupt_handle();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..1_000_000).for_each(|_| std::hint::spin_loop());
                handle.interrupt();
            });
            sandbox.run_until_idle()
        });
        assert!(matches!(outcome, Err(CallError::Interrupted { .. })), "{outcome:?}");
    });
}

#[test]
fn a_trace_has_the_guests_events_and_the_hosts() {
    with_raw(|builder| {
        let mut sandbox = plain(builder().trace(100));
        sandbox.ask("write_trace", [16, 0, 16, 0]).unwrap();
        sandbox.ask("call_and_wait", [1, 0, 0, 0]).unwrap();
        sandbox.ask("upcalls_while_spinning", [1, MILLI, 0, 0]).unwrap();
        let trace = sandbox.trace();
        assert_eq!((trace.skipped(), trace.lost()), (7, 0), "seven events are unknown ones");
        let events = trace.events();
        let has = |what: &dyn Fn(&Traced) -> bool| events.iter().any(|event| what(&event.what));
        assert!(has(&|what| matches!(what, Traced::Task { task: 5, event: TraceEvent::Runs, .. })));
        assert!(has(&|what| matches!(what, Traced::HostCall { request: 1, task: 1, .. })));
        assert!(has(&|what| matches!(what, Traced::HostReply { request: 1, .. })));
        assert!(has(&|what| matches!(what, Traced::Upcall)));
        assert!(has(&|what| matches!(what, Traced::Exit { .. })));
        assert!(events.is_sorted_by_key(|event| event.at));
        let json = trace.to_chrome_json();
        assert!(json.contains(r#""a\"b\\\\n\\u{1b}[31m (task 5)""#), "{json}");
        assert!(json.contains(r#""name":"slow""#), "{json}");
    });
}

#[test]
fn a_trace_is_empty_unless_it_is_asked_for() {
    with_raw(|builder| {
        let mut sandbox = plain(builder());
        sandbox.ask("write_trace", [16, 0, 16, 0]).unwrap();
        assert!(sandbox.trace().events().is_empty());
        let told = |builder: SandboxBuilder| {
            let offset = offset_of!(Boot, task_faults) as u64;
            plain(builder).ask("boot_word", [offset, 0, 0, 0]).unwrap()
        };
        assert_eq!(told(builder()), 0);
        let both = builder().trace(100).task_faults(TaskFaults::EndTask);
        assert_eq!(told(both), 128 << 32 | 1);
        let error = builder().trace(70_000).build().unwrap_err().to_string();
        assert_eq!(error, "70000 entries of a trace: at most 65536 are possible");
    });
}

#[test]
fn a_guest_that_lies_about_its_trace_has_none() {
    with_raw(|builder| {
        for (entries, gva, written) in [
            (3, 0, 16),
            (0, 0, 16),
            (0xffff_ffff, 0, 16),
            (1 << 31, 0, 16),
            (65536, 0, 16),
            (16, 1, 16),
            (16, u64::MAX - 3, 16),
        ] {
            let mut sandbox = plain(builder().trace(64));
            sandbox.ask("write_trace", [entries, gva, written, 0]).unwrap();
            let trace = sandbox.trace();
            let of_guest = |what: &Traced| matches!(what, Traced::Task { .. });
            assert!(!trace.events().iter().any(|event| of_guest(&event.what)), "{entries}, {gva}");
        }
        // A count that cannot be is as much as the ring holds.
        let mut sandbox = plain(builder().trace(64));
        sandbox.ask("write_trace", [16, 0, u64::MAX, 0]).unwrap();
        assert!(sandbox.trace().lost() >= u64::MAX - 16);
    });
}
