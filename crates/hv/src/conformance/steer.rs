//! Cases: a guest that is stopped goes on where the host wants it, and then,
//! with nothing changed, where it was.

use std::ops::Range;
use std::time::{Duration, Instant};

use cellule_kick::Alarm;

use super::{DATA, LATE, STACK, TEXT, Test, faults, is_equal, is_refused, partition, rings, text};
use crate::space::PAGE_BYTES;
use crate::{Exit, Gva, Hypervisor, Partition, Position, Registers, Start};

/// Puts a value in every register that the ABI knows, in the upper half of a
/// vector register and at both ends of the red zone; rings 1; counts in RSI
/// until the first byte of [`DATA`] is set; rings 2 if the values are all there
/// and else 9.
const SPINNER: &[&[u8]] = &[
    &[0x48, 0xbb, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11], // movabs rbx, 0x1122334455667788
    &[0xb9, 0x01, 0x00, 0x00, 0x00],                               // mov ecx, 1
    &[0xba, 0x02, 0x00, 0x00, 0x00],                               // mov edx, 2
    &[0xbd, 0x03, 0x00, 0x00, 0x00],                               // mov ebp, 3
    &[0xbf, 0x04, 0x00, 0x00, 0x00],                               // mov edi, 4
    &[0x41, 0xb8, 0x08, 0x00, 0x00, 0x00],                         // mov r8d, 8
    &[0x41, 0xb9, 0x09, 0x00, 0x00, 0x00],                         // mov r9d, 9
    &[0x41, 0xba, 0x0a, 0x00, 0x00, 0x00],                         // mov r10d, 10
    &[0x41, 0xbb, 0x0b, 0x00, 0x00, 0x00],                         // mov r11d, 11
    &[0x41, 0xbc, 0x0c, 0x00, 0x00, 0x00],                         // mov r12d, 12
    &[0x41, 0xbd, 0x0d, 0x00, 0x00, 0x00],                         // mov r13d, 13
    &[0x41, 0xbe, 0x0e, 0x00, 0x00, 0x00],                         // mov r14d, 14
    &[0x41, 0xbf, 0x0f, 0x00, 0x00, 0x00],                         // mov r15d, 15
    &[0x66, 0x48, 0x0f, 0x6e, 0xc3],                               // movq xmm0, rbx
    &[0xc4, 0x63, 0x7d, 0x18, 0xf8, 0x01], // vinsertf128 ymm15, ymm0, xmm0, 1
    &[0x48, 0x89, 0x5c, 0x24, 0xf8],       // mov [rsp - 8], rbx
    &[0x48, 0x89, 0x5c, 0x24, 0x80],       // mov [rsp - 128], rbx
    &[0xb0, 0x01],                         // mov al, 1
    &[0xe6, 0x01],                         // out 1, al
    &[0x48, 0xff, 0xc6],                   // inc rsi
    &[0x80, 0x3c, 0x25, 0x00, 0x20, 0x40, 0x00, 0x00], // cmp byte ptr [0x402000], 0
    &[0x74, 0xf3],                         // je loop
    &[0x48, 0x83, 0xf9, 0x01],             // cmp rcx, 1
    &[0x0f, 0x85, 0x8a, 0x00, 0x00, 0x00], // jne bad
    &[0x48, 0x83, 0xfa, 0x02],             // cmp rdx, 2
    &[0x0f, 0x85, 0x80, 0x00, 0x00, 0x00], // jne bad
    &[0x48, 0x83, 0xfd, 0x03],             // cmp rbp, 3
    &[0x75, 0x7a],                         // jne bad
    &[0x48, 0x83, 0xff, 0x04],             // cmp rdi, 4
    &[0x75, 0x74],                         // jne bad
    &[0x49, 0x83, 0xf8, 0x08],             // cmp r8, 8
    &[0x75, 0x6e],                         // jne bad
    &[0x49, 0x83, 0xf9, 0x09],             // cmp r9, 9
    &[0x75, 0x68],                         // jne bad
    &[0x49, 0x83, 0xfa, 0x0a],             // cmp r10, 10
    &[0x75, 0x62],                         // jne bad
    &[0x49, 0x83, 0xfb, 0x0b],             // cmp r11, 11
    &[0x75, 0x5c],                         // jne bad
    &[0x49, 0x83, 0xfc, 0x0c],             // cmp r12, 12
    &[0x75, 0x56],                         // jne bad
    &[0x49, 0x83, 0xfd, 0x0d],             // cmp r13, 13
    &[0x75, 0x50],                         // jne bad
    &[0x49, 0x83, 0xfe, 0x0e],             // cmp r14, 14
    &[0x75, 0x4a],                         // jne bad
    &[0x49, 0x83, 0xff, 0x0f],             // cmp r15, 15
    &[0x75, 0x44],                         // jne bad
    &[0x48, 0x81, 0xfc, 0x00, 0x50, 0x40, 0x00], // cmp rsp, 0x405000
    &[0x75, 0x3b],                         // jne bad
    &[0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11], // movabs rax, 0x1122334455667788
    &[0x48, 0x39, 0xc3],                   // cmp rbx, rax
    &[0x75, 0x2c],                         // jne bad
    &[0x48, 0x39, 0x44, 0x24, 0xf8],       // cmp [rsp - 8], rax
    &[0x75, 0x25],                         // jne bad
    &[0x48, 0x39, 0x44, 0x24, 0x80],       // cmp [rsp - 128], rax
    &[0x75, 0x1e],                         // jne bad
    &[0x66, 0x4c, 0x0f, 0x7e, 0xfe],       // movq rsi, xmm15
    &[0x48, 0x39, 0xc6],                   // cmp rsi, rax
    &[0x75, 0x14],                         // jne bad
    &[0xc4, 0x63, 0x7d, 0x19, 0xf9, 0x01], // vextractf128 xmm1, ymm15, 1
    &[0x66, 0x48, 0x0f, 0x7e, 0xce],       // movq rsi, xmm1
    &[0x48, 0x39, 0xc6],                   // cmp rsi, rax
    &[0x75, 0x04],                         // jne bad
    &[0xb0, 0x02],                         // mov al, 2
    &[0xe6, 0x01],                         // out 1, al
    &[0xb0, 0x09],                         // mov al, 9
    &[0xe6, 0x01],                         // out 1, al
];
/// The loop of the spinner.
const LOOP: Range<u64> = TEXT + 0x67..TEXT + 0x74;

/// What follows the spinner: an upcall. It changes the flags and some registers,
/// rings 7, and goes back to the address on its stack, 128 bytes further up.
const UPCALL: &[&[u8]] = &[
    &[0x9c],             // pushfq
    &[0x50],             // push rax
    &[0x53],             // push rbx
    &[0xfc],             // cld
    &[0x83, 0xcb, 0xff], // or ebx, -1
    &[0xb0, 0x07],       // mov al, 7
    &[0xe6, 0x01],       // out 1, al
    &[0x5b],             // pop rbx
    &[0x58],             // pop rax
    &[0x9d],             // popfq
    &[0xc2, 0x80, 0x00], // ret 128
];
const UPCALL_ENTRY: Gva = Gva(TEXT + 0x10c);
/// Behind the upcall's `out`.
const UPCALL_RANG: Gva = Gva(TEXT + 0x117);

/// What a red zone and the address above an upcall's stack take.
const PUSHED: u64 = 128 + 8;

/// The cases.
pub(super) const TESTS: &[(&str, Test)] = &[
    ("a_kicked_guest_continues_where_it_was_diverted_to", kicked),
    ("a_nudged_guest_continues_where_it_was_diverted_to", nudged),
    ("a_guest_at_the_doorbell_is_diverted_behind_the_out", at_the_doorbell),
    ("a_guest_that_is_diverted_to_the_out_rings_again", back_to_the_out),
    ("a_guest_that_has_not_run_stands_at_its_start", before_the_first_run),
    ("a_diverted_guest_can_be_diverted_again", nested),
    ("a_guest_is_intact_after_a_thousand_diversions", a_thousand_times),
    ("a_kicked_guest_finds_late_memory_once_extended", extended),
    ("a_guest_goes_on_only_from_where_it_is_known_to_be", misused),
];

/// Another thread kicks, and an alarm makes sure that the guest has run before.
fn kicked(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = spinning(hypervisor)?;
    interrupt(&mut *partition, LOOP)?;
    let kicker = partition.kicker();
    let exit = std::thread::scope(|scope| {
        scope.spawn(move || kicker.kick());
        partition.run()
    });
    is_equal("the exit", Exit::Kicked, exit.map_err(text)?)?;
    is_equal("is_kicked", true, partition.is_kicked())?;
    partition.clear_kick();
    let position = deliver(&mut *partition)?;
    is_equal("whether RIP is in the loop", true, LOOP.contains(&position.rip.0))?;
    rings(&mut *partition, 7)?;
    finish(&mut *partition)
}

/// The nudge comes before the guest is entered, with its doorbell behind it.
fn nudged(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = spinning(hypervisor)?;
    partition.kicker().nudge();
    is_equal("the exit", Exit::Kicked, partition.run().map_err(text)?)?;
    is_equal("is_kicked", false, partition.is_kicked())?;
    let position = deliver(&mut *partition)?;
    is_equal("RIP", Gva(LOOP.start), position.rip)?;
    rings(&mut *partition, 7)?;
    finish(&mut *partition)
}

fn at_the_doorbell(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = spinning(hypervisor)?;
    let position = position(&mut *partition)?;
    is_equal("RIP", Gva(LOOP.start), position.rip)?;
    is_equal("RSP", Gva(STACK + PAGE_BYTES), position.rsp)?;
    is_equal("the position, asked again,", position, deliver(&mut *partition)?)?;
    rings(&mut *partition, 7)?;
    finish(&mut *partition)
}

fn back_to_the_out(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // mov al, 5; out 1, al; inc al; out 1, al
    let mut partition = partition(hypervisor, &[0xb0, 5, 0xe6, 1, 0xfe, 0xc0, 0xe6, 1])?;
    rings(&mut *partition, 5)?;
    let behind = position(&mut *partition)?;
    is_equal("RIP", Gva(TEXT + 4), behind.rip)?;
    let out = Position { rip: Gva(TEXT + 2), ..behind };
    partition.divert(out).map_err(text)?;
    is_equal("the position", out, position(&mut *partition)?)?;
    rings(&mut *partition, 5)?;
    rings(&mut *partition, 6)
}

fn before_the_first_run(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = partition(hypervisor, &spinner())?;
    let position = deliver(&mut *partition)?;
    is_equal("RIP", Gva(TEXT), position.rip)?;
    rings(&mut *partition, 7)?;
    rings(&mut *partition, 1)?;
    finish(&mut *partition)
}

/// Upcalls within upcalls, half of them before the outer one has run at all.
fn nested(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = spinning(hypervisor)?;
    for depth in 0..8 {
        let stood = deliver(&mut *partition)?.rip;
        is_equal("RIP", if depth == 0 { Gva(LOOP.start) } else { UPCALL_RANG }, stood)?;
        is_equal("RIP", UPCALL_ENTRY, deliver(&mut *partition)?.rip)?;
        rings(&mut *partition, 7)?;
    }
    // The inner ones rang above, the outer ones ring on the way back.
    for _ in 0..8 {
        rings(&mut *partition, 7)?;
    }
    finish(&mut *partition)
}

/// In turn from the loop, and from the upcall that was made there.
fn a_thousand_times(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = spinning(hypervisor)?;
    for turn in 0..1000 {
        if turn % 2 == 0 {
            interrupt(&mut *partition, LOOP)?;
        } else {
            partition.kicker().nudge();
            is_equal("the exit", Exit::Kicked, partition.run().map_err(text)?)?;
        }
        deliver(&mut *partition)?;
        rings(&mut *partition, 7)?;
    }
    finish(&mut *partition)
}

fn extended(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // mov rax, LATE; jmp to itself (diverted to what follows);
    // mov byte [rax], 5; out 1, al
    let code = [0x48, 0xc7, 0xc0, 0, 0xa0, 0x40, 0, 0xeb, 0xfe, 0xc6, 0x00, 5, 0xe6, 1];
    let mut partition = partition(hypervisor, &code)?;
    interrupt(&mut *partition, TEXT + 7..TEXT + 9)?;
    partition.extend().map_err(text)?;
    let Position { rsp, .. } = position(&mut *partition)?;
    partition.divert(Position { rip: Gva(TEXT + 9), rsp }).map_err(text)?;
    rings(&mut *partition, 0)?;
    is_equal("late memory", 5, partition.memory().load_u32(Gva(LATE)).map_err(text)?)
}

fn misused(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // out 1, al; ud2
    let mut partition = partition(hypervisor, &[0xe6, 1, 0x0f, 0x0b])?;
    let (rip, rsp) = (Gva(TEXT), Gva(STACK + PAGE_BYTES));
    let start = Start { entry: rip, stack: rsp, argument: Gva(0) };
    rings(&mut *partition, 0)?;
    is_refused("divert", partition.divert(Position { rip, rsp }))?;
    is_refused("restart", partition.restart(&Registers::start(start)))?;
    faults(&mut *partition)?;
    is_refused("position", partition.position())?;
    is_refused("divert", partition.divert(Position { rip, rsp }))?;
    partition.restart(&Registers::start(start)).map_err(text)?;
    rings(&mut *partition, 0)
}

/// A spinner that has rung.
fn spinning(hypervisor: &dyn Hypervisor) -> Result<Box<dyn Partition>, String> {
    let mut partition = partition(hypervisor, &spinner())?;
    rings(&mut *partition, 1)?;
    Ok(partition)
}

fn spinner() -> Vec<u8> {
    [SPINNER, UPCALL].concat().concat()
}

/// Lets the spinner end.
fn finish(partition: &mut dyn Partition) -> Result<(), String> {
    partition.memory().copy_in(Gva(DATA), &[1]).map_err(text)?;
    rings(partition, 2)
}

/// Lets the guest run until it is stopped in a range of addresses: each time for
/// longer, as it takes a while to get there.
pub(super) fn interrupt(partition: &mut dyn Partition, range: Range<u64>) -> Result<(), String> {
    for attempt in 0..16 {
        let deadline = Instant::now() + Duration::from_micros(20 << attempt);
        let _alarm = Alarm::at(deadline).map_err(text)?;
        is_equal("the exit", Exit::Kicked, partition.run().map_err(text)?)?;
        if range.contains(&position(partition)?.rip.0) {
            return Ok(());
        }
    }
    Err(format!("the guest should come to {range:x?}"))
}

fn position(partition: &mut dyn Partition) -> Result<Position, String> {
    partition.position().map_err(text)?.ok_or_else(|| "it should stand in ring 3".to_owned())
}

fn deliver(partition: &mut dyn Partition) -> Result<Position, String> {
    deliver_to(partition, UPCALL_ENTRY)
}

/// Diverts the guest to an upcall, and returns where it stood.
pub(super) fn deliver_to(partition: &mut dyn Partition, entry: Gva) -> Result<Position, String> {
    let stood = position(partition)?;
    let rsp = Gva(stood.rsp.0.wrapping_sub(PUSHED));
    partition.memory().copy_in(rsp, &stood.rip.0.to_le_bytes()).map_err(text)?;
    partition.divert(Position { rip: entry, rsp }).map_err(text)?;
    Ok(stood)
}
