//! Cases: a guest that faulted starts anew, as often as it takes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cellule_kick::Kicker;

use super::{DATA, STACK, TEXT, Test, faults, is_equal, partition, rings, text};
use crate::exit::PAGE_FAULT;
use crate::space::PAGE_BYTES;
use crate::{Exit, Fault, Gva, Hypervisor, Partition, Position, Registers, Start};

/// How often a guest starts anew.
const ROUNDS: u8 = 100;
const STACK_END: u64 = STACK + PAGE_BYTES;

/// Rings the argument. If the instruction were skipped, it would ring zero.
const RING_ARGUMENT: [u8; 4] = [0x89, 0xf8, 0xe6, 1]; // mov eax, edi; out 1, al

/// Instructions that end in an exception.
struct Ending {
    name: &'static str,
    code: &'static [u8],
    /// Where in the code the instruction is that faults.
    at: u64,
    vector: u8,
    /// For a page fault, the distance of the address from zero or, if it is
    /// negative, from the end of the stack.
    address: Option<i64>,
}

const ENDINGS: &[Ending] = &[
    Ending {
        name: "a_guest_starts_anew_after_ud",
        code: &[0x0f, 0x0b], // ud2
        at: 0,
        vector: 6,
        address: None,
    },
    Ending {
        name: "a_guest_starts_anew_after_de",
        code: &[0x31, 0xc9, 0xf7, 0xf1], // xor ecx, ecx; div ecx
        at: 2,
        vector: 0,
        address: None,
    },
    Ending {
        name: "a_guest_starts_anew_after_gp",
        code: &[0xf4], // hlt
        at: 0,
        vector: 13,
        address: None,
    },
    Ending {
        name: "a_guest_starts_anew_after_pf",
        code: &[0x31, 0xc0, 0x8a, 0x40, 9], // xor eax, eax; mov al, [rax + 9]
        at: 2,
        vector: PAGE_FAULT,
        address: Some(9),
    },
    Ending {
        name: "a_guest_starts_anew_after_a_stack_overflow",
        code: &[0x50, 0xeb, 0xfd], // push rax; jmp back
        at: 0,
        vector: PAGE_FAULT,
        address: Some(-(PAGE_BYTES.cast_signed()) - 8),
    },
];

/// The cases that are data.
pub(super) fn endings(
    hypervisor: &dyn Hypervisor,
) -> impl Iterator<Item = (&'static str, Result<(), String>)> {
    ENDINGS.iter().map(move |ending| (ending.name, starts_anew(hypervisor, ending)))
}

/// The others.
pub(super) const TESTS: &[(&str, Test)] = &[
    ("a_guest_that_starts_anew_has_clean_registers", clean_registers),
    ("a_guest_that_starts_anew_finds_late_memory", late_memory),
    ("a_guest_that_starts_anew_can_be_diverted", diverted),
    ("a_kick_at_any_moment_of_an_exception_changes_nothing", kicked_at_any_moment),
];

/// On the stack, and then on the data page and the stack in turn.
fn starts_anew(hypervisor: &dyn Hypervisor, ending: &Ending) -> Result<(), String> {
    let mut partition = partition(hypervisor, &[&RING_ARGUMENT, ending.code].concat())?;
    let mut stack = STACK_END;
    for round in 0..=ROUNDS {
        rings(&mut *partition, round)?;
        let fault = faults(&mut *partition)?;
        is_equal("the vector", ending.vector, fault.vector)?;
        is_equal("RIP", Gva(TEXT + RING_ARGUMENT.len() as u64 + ending.at), fault.rip)?;
        let base = |address: i64| if address < 0 { stack } else { 0 };
        let address = ending.address.map(|address| Gva(base(address).wrapping_add_signed(address)));
        is_equal("the address", address, fault.address)?;
        stack = if round % 2 == 0 { DATA + PAGE_BYTES } else { STACK_END };
        let argument = Gva(u64::from(round) + 1);
        let start = Start { entry: Gva(TEXT), stack: Gva(stack), argument };
        partition.restart(&Registers::start(start)).map_err(text)?;
    }
    rings(&mut *partition, ROUNDS + 1)
}

/// Rings 1 if a general register or an arithmetic, trap, direction or alignment
/// flag is set, and else 0; then sets them all, but the trap flag, and faults.
const CLEAN: &[&[u8]] = &[
    &[0x9c],                               // pushfq
    &[0x48, 0x09, 0xd8],                   // or rax, rbx
    &[0x48, 0x09, 0xc8],                   // or rax, rcx
    &[0x48, 0x09, 0xd0],                   // or rax, rdx
    &[0x48, 0x09, 0xf0],                   // or rax, rsi
    &[0x48, 0x09, 0xf8],                   // or rax, rdi
    &[0x48, 0x09, 0xe8],                   // or rax, rbp
    &[0x4c, 0x09, 0xc0],                   // or rax, r8
    &[0x4c, 0x09, 0xc8],                   // or rax, r9
    &[0x4c, 0x09, 0xd0],                   // or rax, r10
    &[0x4c, 0x09, 0xd8],                   // or rax, r11
    &[0x4c, 0x09, 0xe0],                   // or rax, r12
    &[0x4c, 0x09, 0xe8],                   // or rax, r13
    &[0x4c, 0x09, 0xf0],                   // or rax, r14
    &[0x4c, 0x09, 0xf8],                   // or rax, r15
    &[0x59],                               // pop rcx
    &[0x81, 0xe1, 0xd5, 0x0c, 0x04, 0x00], // and ecx, CF | PF | AF | ZF | SF | OF | DF | AC
    &[0x48, 0x09, 0xc8],                   // or rax, rcx
    &[0x0f, 0x95, 0xc0],                   // setnz al
    &[0xe6, 0x01],                         // out 1, al
    &[0x48, 0x83, 0xc8, 0xff],             // or rax, -1
    &[0x48, 0x89, 0xc3],                   // mov rbx, rax
    &[0x48, 0x89, 0xc1],                   // mov rcx, rax
    &[0x48, 0x89, 0xc2],                   // mov rdx, rax
    &[0x48, 0x89, 0xc6],                   // mov rsi, rax
    &[0x48, 0x89, 0xc7],                   // mov rdi, rax
    &[0x48, 0x89, 0xc5],                   // mov rbp, rax
    &[0x49, 0x89, 0xc0],                   // mov r8, rax
    &[0x49, 0x89, 0xc1],                   // mov r9, rax
    &[0x49, 0x89, 0xc2],                   // mov r10, rax
    &[0x49, 0x89, 0xc3],                   // mov r11, rax
    &[0x49, 0x89, 0xc4],                   // mov r12, rax
    &[0x49, 0x89, 0xc5],                   // mov r13, rax
    &[0x49, 0x89, 0xc6],                   // mov r14, rax
    &[0x49, 0x89, 0xc7],                   // mov r15, rax
    &[0xfd],                               // std
    &[0xf9],                               // stc
    &[0x0f, 0x0b],                         // ud2
];

fn clean_registers(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = partition(hypervisor, &CLEAN.concat())?;
    for _ in 0..3 {
        rings(&mut *partition, 0)?;
        faults(&mut *partition)?;
        partition.restart(&start(0)).map_err(text)?;
    }
    Ok(())
}

/// Rings the argument; unless that is zero, increments the first byte of late
/// memory, and rings what it was; faults.
const LATE_COUNTER: &[&[u8]] = &[
    &[0x89, 0xf8],                               // mov eax, edi
    &[0xe6, 0x01],                               // out 1, al
    &[0x85, 0xff],                               // test edi, edi
    &[0x74, 0x10],                               // je 1f
    &[0x8a, 0x04, 0x25, 0x00, 0xa0, 0x40, 0x00], // mov al, byte ptr [0x40a000]
    &[0xfe, 0x04, 0x25, 0x00, 0xa0, 0x40, 0x00], // inc byte ptr [0x40a000]
    &[0xe6, 0x01],                               // out 1, al
    &[0x0f, 0x0b],                               // ud2
];

/// When the late memory comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extended {
    AtTheDoorbell,
    AfterTheFault,
    AfterTheRestart,
}

fn late_memory(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    use Extended::{AfterTheFault, AfterTheRestart, AtTheDoorbell};
    for when in [AtTheDoorbell, AfterTheFault, AfterTheRestart] {
        let mut partition = partition(hypervisor, &LATE_COUNTER.concat())?;
        let extend = |partition: &mut dyn Partition, now| {
            if when == now { partition.extend().map_err(text) } else { Ok(()) }
        };
        rings(&mut *partition, 0)?;
        extend(&mut *partition, AtTheDoorbell)?;
        faults(&mut *partition)?;
        extend(&mut *partition, AfterTheFault)?;
        partition.restart(&start(0)).map_err(text)?;
        extend(&mut *partition, AfterTheRestart)?;
        rings(&mut *partition, 0)?;
        faults(&mut *partition)?;
        for count in 0..3 {
            partition.restart(&start(8)).map_err(text)?;
            rings(&mut *partition, 8)?;
            rings(&mut *partition, count)?;
            faults(&mut *partition)?;
        }
    }
    Ok(())
}

fn diverted(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // ud2; mov eax, edi; out 1, al
    let mut partition = partition(hypervisor, &[&[0x0f, 0x0b], &RING_ARGUMENT[..]].concat())?;
    faults(&mut *partition)?;
    partition.restart(&start(8)).map_err(text)?;
    let (rip, rsp) = (Gva(TEXT), Gva(STACK_END));
    is_equal("the position", Some(Position { rip, rsp }), partition.position().map_err(text)?)?;
    partition.divert(Position { rip: Gva(TEXT + 2), rsp }).map_err(text)?;
    rings(&mut *partition, 8)
}

/// Counts down for some microseconds, and faults behind that: mov ecx, 3000;
/// dec ecx; jnz back; then `ud2` or `mov al, [rcx]`.
const COUNT_DOWN: [u8; 9] = [0xb9, 0xb8, 0x0b, 0, 0, 0xff, 0xc9, 0x75, 0xfc];
/// How often a guest is entered while nudges come.
const RUNS: u64 = 3000;
/// How long a nudge waits at most after the guest was entered: some time longer
/// than the guest needs until its fault is reported.
const SPINS: u64 = 1 << 12;

fn kicked_at_any_moment(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    for (ending, vector) in [([0x0f, 0x0b], 6), ([0x8a, 0x01], PAGE_FAULT)] {
        let code = [&COUNT_DOWN[..], &ending].concat();
        let mut partition = partition(hypervisor, &code)?;
        let (kicker, entered, done) =
            (partition.kicker(), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| nudge_at_any_moment(&kicker, &entered, &done));
            let outcome = fault_again_and_again(&mut *partition, vector, &entered);
            done.store(true, Ordering::SeqCst);
            outcome
        })?;
    }
    Ok(())
}

/// Nudges once each time that the guest is entered, at a moment that differs.
fn nudge_at_any_moment(kicker: &Kicker, entered: &AtomicU64, done: &AtomicBool) {
    let (mut seen, mut random) = (0, 1_u64);
    while !done.load(Ordering::SeqCst) {
        let run = entered.load(Ordering::SeqCst);
        if run == seen {
            std::hint::spin_loop();
            continue;
        }
        seen = run;
        // Marsaglia's xorshift: any sequence would do that repeats late.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        for _ in 0..random % SPINS {
            std::hint::spin_loop();
        }
        kicker.nudge();
    }
}

/// Every second stop between two instructions sends the guest to its first.
/// Were an exception under way then, it would be reported from there.
fn fault_again_and_again(
    partition: &mut dyn Partition,
    vector: u8,
    entered: &AtomicU64,
) -> Result<(), String> {
    let end = Gva(TEXT + COUNT_DOWN.len() as u64);
    let first = Position { rip: Gva(TEXT), rsp: Gva(STACK_END) };
    let address = (vector == PAGE_FAULT).then_some(Gva(0));
    for run in 1..=RUNS {
        entered.store(run, Ordering::SeqCst);
        match partition.run().map_err(text)? {
            Exit::Kicked => {
                let Some(stood) = partition.position().map_err(text)? else { continue };
                is_equal("RSP", first.rsp, stood.rsp)?;
                is_equal(
                    "whether RIP is in the code",
                    true,
                    (first.rip..=end).contains(&stood.rip),
                )?;
                if run % 2 == 0 {
                    partition.divert(first).map_err(text)?;
                }
            }
            Exit::Fault(fault) => {
                let error_code = fault.error_code;
                let due = Fault { vector, error_code, address, rip: end, rsp: first.rsp };
                is_equal("the fault", due, fault)?;
                partition.restart(&start(0)).map_err(text)?;
            }
            exit => return Err(format!("a kick or a fault was expected, {exit:x?} came")),
        }
    }
    Ok(())
}

/// The suite's start, with an argument.
fn start(argument: u64) -> Registers {
    let (entry, stack) = (Gva(TEXT), Gva(STACK_END));
    Registers::start(Start { entry, stack, argument: Gva(argument) })
}
