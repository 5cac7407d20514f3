//! What a guest may not do ends the guest, with its own error, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::time::Duration;

use cellule::{CallError, GuestFault, Gva, Image, Poison, Sandbox};
use cellule_test_guests::faults;
use support::{backends, on_every_backend};

/// Calls an export that must end the guest, and checks that it did and that
/// later calls are refused.
fn fault(sandbox: &mut Sandbox, call: impl FnOnce(&mut Sandbox) -> CallError) -> GuestFault {
    let error = call(sandbox);
    let again = sandbox.call::<u8>("fine", ()).unwrap_err();
    assert!(matches!(again, CallError::Poisoned { cause: Poison::Guest }), "{again}");
    match error {
        CallError::Guest(fault) => fault,
        other => panic!("a fault of the guest's was expected, not {other}"),
    }
}

/// Expects a page fault at an address.
fn page_fault(sandbox: &mut Sandbox, function: &str, address: u64, text: &str) {
    let fault = fault(sandbox, |sandbox| sandbox.call::<()>(function, (address,)).unwrap_err());
    let GuestFault::Exception(exception) = &fault else { panic!("{fault}") };
    assert_eq!(exception.fault.address, Some(Gva(address)), "{fault}");
    assert!(fault.to_string().contains(text), "{fault}");
}

#[test]
fn guest_cannot_write_its_own_text() {
    on_every_backend(faults(), |make| {
        let mut sandbox = make();
        let text = sandbox.call::<u64>("text_address", ()).unwrap();
        page_fault(&mut sandbox, "write_at", text, "may not write at");
    });
}

#[test]
fn guest_cannot_write_its_constants() {
    on_every_backend(faults(), |make| {
        let mut sandbox = make();
        let rodata = sandbox.call::<u64>("rodata_address", ()).unwrap();
        page_fault(&mut sandbox, "write_at", rodata, "which is rodata (r--)");
    });
}

#[test]
fn guest_cannot_execute_its_stack_or_heap() {
    on_every_backend(faults(), |make| {
        for (place, name) in [("stack_address", "stack (rw-)"), ("heap_address", "heap (rw-)")] {
            let mut sandbox = make();
            let address = sandbox.call::<u64>(place, ()).unwrap();
            page_fault(&mut sandbox, "jump_to", address, "may not execute");
            let mut sandbox = make();
            page_fault(&mut sandbox, "jump_to", address, name);
        }
    });
}

#[test]
fn guest_cannot_read_or_write_outside_of_its_memory() {
    const NOTHING: &str = "which is nothing (unmapped)";
    on_every_backend(faults(), |make| {
        for (address, place) in [
            (0_u64, "the null pages (unmapped)"),
            (0xfff, "the null pages (unmapped)"),
            (0x3_0000_0000, NOTHING),
            (0x7fff_ffff_f000, NOTHING),
            (0xffff_8000_0000_0000, NOTHING),
        ] {
            for function in ["read_at", "write_at", "jump_to"] {
                let mut sandbox = make();
                let result = match function {
                    "read_at" => sandbox.call::<u8>(function, (address,)).map(|_| ()),
                    _ => sandbox.call::<()>(function, (address,)),
                };
                let error = result.unwrap_err().to_string();
                assert!(error.contains(place), "{function}: {error}");
            }
        }
    });
}

/// The layout says where the supervisor pages are: above the image, below the
/// stack, each with a guard page between.
#[test]
fn guest_cannot_touch_the_supervisor_pages() {
    for backend in backends() {
        let image = Image::from_bytes(faults()).unwrap();
        let builder = || Sandbox::builder(&image).backend(backend).stack_bytes(16 << 10);
        let stack = builder().build().unwrap().call::<u64>("stack_address", ()).unwrap();
        // Below the four pages of stack: guards, and three supervisor pages.
        let pages: Vec<u64> = (4..=15).map(|pages| (stack & !0xfff) - pages * 4096).collect();
        let hits = pages.iter().filter(|page| {
            let mut sandbox = builder().build().unwrap();
            let Err(read) = sandbox.call::<u8>("read_at", (**page,)) else { return false };
            let mut sandbox = builder().build().unwrap();
            let write = sandbox.call::<()>("write_at", (**page,)).unwrap_err();
            let [read, write] = [read, write].map(|error| error.to_string());
            assert_eq!(read.contains("supervisor"), write.contains("supervisor"));
            read.contains("the supervisor pages")
        });
        assert_eq!(hits.count(), 3);
    }
}

#[test]
fn guest_cannot_execute_what_ring_3_may_not() {
    on_every_backend(faults(), |make| {
        for instruction in [
            "cli",
            "sti",
            "hlt",
            "mov cr3",
            "mov dr7",
            "rdmsr",
            "wrmsr",
            "lgdt",
            "lidt",
            "ltr",
            "invlpg",
            "wbinvd",
            "xsetbv",
            "out 5",
            "out dx",
            "out 1, ax",
            "in 5",
            "lretq",
            "iretq",
        ] {
            let fault = fault(&mut make(), |sandbox| {
                sandbox.call::<()>("execute", (instruction,)).unwrap_err()
            });
            let GuestFault::Exception(exception) = &fault else { panic!("{instruction}: {fault}") };
            let vector = exception.fault.vector;
            assert!(matches!(vector, 6 | 13), "{instruction} should be #GP or #UD: {fault}");
        }
    });
}

#[test]
fn other_exceptions_end_the_guest_too() {
    on_every_backend(faults(), |make| {
        for (instruction, text) in [
            ("ud2", "#UD (vector 6, error code 0x0)"),
            ("divide", "#DE (vector 0"),
            ("trap flag", "#DB (vector 1"),
            ("unmasked sse", "#XM (vector 19"),
        ] {
            let fault = fault(&mut make(), |sandbox| {
                sandbox.call::<()>("execute", (instruction,)).unwrap_err()
            });
            assert!(fault.to_string().contains(text), "{instruction}: {fault}");
            assert!(fault.to_string().contains("faults::"), "the function is named: {fault}");
        }
        for instruction in ["int3", "int 0x80", "in 1"] {
            fault(&mut make(), |sandbox| {
                sandbox.call::<()>("execute", (instruction,)).unwrap_err()
            });
        }
    });
}

#[test]
fn stack_overflow_is_caught_by_the_guard_page() {
    on_every_backend(faults(), |make| {
        let fault = fault(&mut make(), |sandbox| {
            sandbox.call::<u64>("overflow_the_stack", ()).unwrap_err()
        });
        assert!(fault.to_string().contains("the guard page below the stack"), "{fault}");
    });
}

#[test]
fn a_panic_arrives_with_its_message_and_place_in_one_exit() {
    on_every_backend(faults(), |make| {
        let mut sandbox = make();
        let fault = fault(&mut sandbox, |sandbox| {
            sandbox.call::<()>("panic_with", ("no \x1b[31mway",)).unwrap_err()
        });
        let GuestFault::Panic { message } = &fault else { panic!("{fault}") };
        assert!(message.starts_with(r"no \u{1b}[31mway"), "{message}");
        assert!(message.contains("src/bin/faults.rs:"), "{message}");
        assert_eq!(sandbox.stats().exits, 1);
    });
}

#[test]
fn a_long_panic_message_is_cut_off() {
    on_every_backend(faults(), |make| {
        let long = "x".repeat(100_000);
        let fault = fault(&mut make(), |sandbox| {
            sandbox.call::<()>("panic_with", (long.as_str(),)).unwrap_err()
        });
        let GuestFault::Panic { message } = &fault else { panic!("{fault}") };
        assert!(message.len() <= 1024 && message.starts_with("xxxx"), "{}", message.len());
    });
}

#[test]
fn running_out_of_memory_has_its_own_error() {
    on_every_backend(faults(), |make| {
        let fault =
            fault(&mut make(), |sandbox| sandbox.call::<u64>("exhaust_the_heap", ()).unwrap_err());
        let GuestFault::OutOfMemory { bytes, .. } = &fault else { panic!("{fault}") };
        assert_eq!(*bytes, 1 << 16, "{fault}");
    });
}

/// Most of a heap is there only once the guest has asked for it.
#[test]
fn late_memory_that_was_not_asked_for_ends_the_guest_however_it_is_touched() {
    let limit = Duration::from_secs(10);
    on_every_backend(faults(), |make| {
        for how in ["read", "write", "sse read", "avx write", "rep movsb", "xadd", "push", "fxsave"]
        {
            let mut sandbox = make();
            let heap = sandbox.call::<u64>("heap_address", ()).unwrap();
            let late = (heap & !0xfff) + (1 << 20);
            let error = match how {
                "read" => sandbox.call_within::<u8>(limit, "read_at", (late,)).unwrap_err(),
                "write" => sandbox.call_within::<()>(limit, "write_at", (late,)).unwrap_err(),
                how => sandbox.call_within::<()>(limit, "touch_at", (late, how)).unwrap_err(),
            };
            // A page fault like any other: no emulator has looked at the instruction.
            let expected = "which is heap (rw-) not asked for yet";
            assert!(error.to_string().contains("#PF"), "{how}: {error}");
            assert!(error.to_string().contains(expected), "{how}: {error}");
        }
    });
}

#[test]
fn an_unknown_doorbell_operation_ends_the_guest() {
    on_every_backend(faults(), |make| {
        for operation in (0..=u8::MAX).filter(|operation| !(1..=4).contains(operation)) {
            let fault =
                fault(&mut make(), |sandbox| sandbox.call::<()>("ring", (operation,)).unwrap_err());
            assert_eq!(fault, GuestFault::UnknownDoorbell { value: operation });
        }
    });
}

#[test]
fn a_fault_in_one_sandbox_leaves_its_siblings_alone() {
    on_every_backend(faults(), |make| {
        let mut sibling = make();
        assert_eq!(sibling.call::<u8>("fine", ()).unwrap(), 1);
        fault(&mut make(), |sandbox| sandbox.call::<()>("execute", ("ud2",)).unwrap_err());
        assert_eq!(sibling.call::<u8>("fine", ()).unwrap(), 1);
    });
}
