//! What a test can ask for: each takes four numbers and returns one.

use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

use cellule_abi::doorbell::Doorbell;
use cellule_abi::fnv1a;
use cellule_abi::record::{Completion, CompletionOp, Request, RequestOp};
use cellule_abi::tasks::{NEVER, TraceEvent, TraceRecord};

use crate::entries;
use crate::shared::{
    self, ARMED, BACKGROUND, BLOCK, DEADLINE, FAULTED, FOLLOWING, LAST_REPLY, LIMIT_SEEN, MASK,
    PENDING, PERIOD, RECORDS, Shared, TICKS, TRACE, TRACE_ENTRIES, TRACE_GVA, TRACE_WRITTEN,
    UPCALLS,
};

pub type Code = fn([u64; 4]) -> u64;

pub struct Export {
    pub code: Code,
}

/// `cellule_abi::symbol::Symbol`, with pointers for the linker to relocate.
#[repr(C)]
struct Symbol {
    name: &'static str,
    signature: &'static str,
    id: u64,
    schema: u64,
    entry: Option<Code>,
    reserved: u64,
}

const SIGNATURE: &str = "fn(u64, u64, u64, u64) -> u64";

macro_rules! exports {
    ($count:literal: $($name:ident)*) => {
        pub static TABLE: [Export; $count] = [$(Export { code: $name }),*];

        #[used]
        #[unsafe(link_section = "cellule_exports")]
        static EXPORTS: [Symbol; $count] = [$(Symbol {
            name: stringify!($name),
            signature: SIGNATURE,
            id: fnv1a(stringify!($name).as_bytes()),
            schema: fnv1a(SIGNATURE.as_bytes()),
            entry: Some($name),
            reserved: 0,
        }),*];
    };
}

exports! { 24:
    upcalls_while_spinning upcalls_while_masked count sleep call_and_spin call_many call_and_wait
    background ticks poke_block publish poke_and_ring boot_word write_late fail fail_at_stack
    write_trace spin set_virtual_now time limit_seen
    call_later last_reply wait_for_nothing
}

#[used]
#[unsafe(link_section = "cellule_imports")]
static IMPORTS: [Symbol; 1] = [Symbol {
    name: "slow",
    signature: "fn(u64) -> u64",
    id: fnv1a(b"slow"),
    schema: fnv1a(b"fn(u64) -> u64"),
    entry: None,
    reserved: 0,
}];

/// Arguments of host calls in flight.
static ARGS: Shared<[[u8; 10]; 64]> = Shared::new([[0; 10]; 64]);

/// Sets a first deadline and a period. On a busy machine both of the first may
/// have passed when the host looks: then again.
fn every(period: u64) {
    PERIOD.store(period, Relaxed);
    loop {
        let now = shared::now_ns();
        BLOCK.store(DEADLINE, now + period);
        BLOCK.store(FOLLOWING, now + 2 * period);
        shared::ring(Doorbell::Submit);
        if BLOCK.load(ARMED) != NEVER {
            return;
        }
    }
}

fn never() {
    PERIOD.store(0, Relaxed);
    BLOCK.store(DEADLINE, NEVER);
    BLOCK.store(FOLLOWING, NEVER);
}

/// Spins until so many upcalls came, one each period; 1 if all registers stayed.
fn upcalls_while_spinning([count, period, ..]: [u64; 4]) -> u64 {
    let until = UPCALLS.load(Relaxed) + count;
    every(period);
    let intact = entries::registers_stay(until);
    never();
    u64::from(intact)
}

/// Spins masked until the host leaves word; returns how many upcalls came.
fn upcalls_while_masked([delay, ..]: [u64; 4]) -> u64 {
    let before = UPCALLS.load(Relaxed);
    BLOCK.store_u32(MASK, 1);
    every(delay);
    while BLOCK.load_u32(PENDING) == 0 {
        core::hint::spin_loop();
    }
    never();
    BLOCK.store_u32(PENDING, 0);
    BLOCK.store_u32(MASK, 0);
    UPCALLS.load(Relaxed) - before
}

/// How many upcalls there were, and how many faults times 2^32.
fn count(_: [u64; 4]) -> u64 {
    FAULTED.load(Relaxed) << 32 | UPCALLS.load(Relaxed)
}

/// Waits at the doorbell for a time; returns how long that was.
fn sleep([time, ..]: [u64; 4]) -> u64 {
    // The call itself is consumed: nothing is left to go on for.
    shared::release();
    let before = shared::now_ns();
    BLOCK.store_u32(MASK, 1);
    BLOCK.store(DEADLINE, before + time);
    while shared::now_ns() < before + time {
        shared::ring(Doorbell::Wait);
    }
    never();
    BLOCK.store_u32(PENDING, 0);
    BLOCK.store_u32(MASK, 0);
    shared::now_ns() - before
}

/// Publishes a host call with its number as id and argument.
fn call_host(id: u64, argument: u64) {
    let (bytes, len) = shared::number(argument);
    let at = ARGS.address() + id % 64 * 10;
    for (byte, to) in bytes.iter().zip(at..) {
        // SAFETY: within the 64 places for arguments.
        unsafe { (to as *mut u8).write_volatile(*byte) };
    }
    shared::push(Request {
        id,
        op: RequestOp::HostCall as u16,
        head_gva: at,
        head_len: len,
        task: (id % 7) as u32,
        ..Request::default()
    });
}

/// The next reply; waits for it at the doorbell.
fn reply() -> Completion {
    loop {
        match shared::take() {
            Some(completion) if completion.op == CompletionOp::Reply as u16 => return completion,
            Some(_) => {}
            None => {
                shared::release();
                shared::ring(Doorbell::Wait);
            }
        }
    }
}

/// The result of a reply, or the code times 2^32.
pub fn result(reply: &Completion) -> u64 {
    match reply.status {
        0 => shared::numbers(reply)[0],
        code => u64::from(code) << 32,
    }
}

/// Calls the host and spins until the upcall that its reply brings, or the pending
/// word if it came within the doorbell; returns the result.
fn call_and_spin([argument, ..]: [u64; 4]) -> u64 {
    let before = UPCALLS.load(Relaxed);
    call_host(1, argument);
    shared::ring(Doorbell::Submit);
    while UPCALLS.load(Relaxed) == before && BLOCK.load_u32(PENDING) == 0 {
        core::hint::spin_loop();
    }
    BLOCK.store_u32(PENDING, 0);
    result(&reply())
}

/// Makes so many host calls in flight at once; returns the ids of the first eight
/// replies, the first lowest, a byte each. Aborts if a result is not id + 1000.
fn call_many([count, ..]: [u64; 4]) -> u64 {
    for id in 0..count {
        call_host(id, id);
    }
    let mut order = 0;
    for at in 0..count {
        let reply = reply();
        assert!(result(&reply) == reply.id + 1000);
        if at < 8 {
            order |= (reply.id & 0xff) << (8 * at);
        }
    }
    order
}

/// Calls the host and waits; returns the result, or the code times 2^32.
fn call_and_wait([argument, ..]: [u64; 4]) -> u64 {
    call_host(1, argument);
    result(&reply())
}

/// Sets what is done without a call: 0 waits, 1 spins, more ticks with this period.
fn background([what, ..]: [u64; 4]) -> u64 {
    BACKGROUND.store(what, Relaxed);
    match what {
        0 | 1 => never(),
        period => {
            BLOCK.store_u32(MASK, 1);
            BLOCK.store(DEADLINE, shared::now_ns() + period);
        }
    }
    0
}

fn ticks(_: [u64; 4]) -> u64 {
    TICKS.load(Relaxed)
}

/// Writes eight bytes into the task block.
fn poke_block([offset, value, ..]: [u64; 4]) -> u64 {
    BLOCK.store(offset, value);
    0
}

/// Publishes another address as the task block's, and rings submit.
fn publish([gva, ..]: [u64; 4]) -> u64 {
    shared::store(shared::page() + cellule_abi::page::TASKS_GVA_OFFSET as u64, gva);
    shared::ring(Doorbell::Submit);
    0
}

/// Writes eight bytes into the task block with a deadline soon, rings, and spins
/// for a while for whatever comes of it.
fn poke_and_ring([offset, value, delay, operation]: [u64; 4]) -> u64 {
    let soon = shared::now_ns() + delay;
    BLOCK.store(DEADLINE, soon);
    BLOCK.store(offset, value);
    shared::ring_raw(operation as u8);
    while shared::now_ns() < soon + 2 * delay {
        core::hint::spin_loop();
    }
    UPCALLS.load(Relaxed)
}

/// Eight bytes of the channel page; `u64::MAX` for the address of the block.
fn boot_word([offset, ..]: [u64; 4]) -> u64 {
    match offset {
        u64::MAX => BLOCK.address(),
        offset => shared::load(shared::page() + offset),
    }
}

/// Asks for late memory and writes there.
fn write_late([gva, ..]: [u64; 4]) -> u64 {
    shared::ring(Doorbell::Extend);
    shared::store(gva, 7);
    shared::load(gva)
}

/// Fails: 0 an undefined instruction, else a write there; masked if `mask` is not 0.
fn fail([gva, mask, ..]: [u64; 4]) -> u64 {
    BLOCK.store_u32(MASK, mask as u32);
    match gva {
        // SAFETY: none; it is to fault.
        0 => unsafe { asm!("ud2") },
        gva => shared::store(gva, 1),
    }
    0
}

/// Spins with another stack pointer until the upcall comes, which cannot.
fn fail_at_stack([rsp, delay, ..]: [u64; 4]) -> u64 {
    every(delay);
    // SAFETY: none; the stack is not touched but by the host.
    unsafe { asm!("mov rsp, {}", "2: jmp 2b", in(reg) rsp, options(noreturn)) }
}

/// Writes a record of each event into the trace, and publishes it as told.
fn write_trace([entries, gva, written, _]: [u64; 4]) -> u64 {
    let mut records = [TraceRecord::default(); TRACE];
    for (record, at) in records.iter_mut().zip(0_u16..) {
        let event = if at < 9 { at + 1 } else { 0x777 };
        let name =
            if event == TraceEvent::Created as u16 { *b"a\"b\\\n\x1b[31m\0....." } else { [0; 16] };
        *record = TraceRecord { at_ns: 1000 * u64::from(at), event, task: 5, detail: 9, name };
    }
    RECORDS.set(records);
    BLOCK.store(TRACE_GVA, if gva == 0 { RECORDS.address() } else { gva });
    BLOCK.store(TRACE_WRITTEN, written);
    BLOCK.store_u32(TRACE_ENTRIES, entries as u32);
    0
}

/// Spins for ever.
fn spin(_: [u64; 4]) -> u64 {
    loop {
        core::hint::spin_loop();
    }
}

/// Moves a virtual clock; returns how far it might go.
fn set_virtual_now([now, ..]: [u64; 4]) -> u64 {
    shared::store(shared::page() + 0x60, now);
    shared::load(shared::page() + cellule_abi::page::CLOCK_LIMIT_OFFSET as u64)
}

/// Monotonic or, with 1, wall time.
fn time([wall, ..]: [u64; 4]) -> u64 {
    let offset = shared::load(shared::page() + cellule_abi::page::WALL_OFFSET_OFFSET as u64);
    shared::now_ns().wrapping_add(if wall == 0 { 0 } else { offset })
}

/// How far a virtual clock might go in the last run.
fn limit_seen(_: [u64; 4]) -> u64 {
    LIMIT_SEEN.load(Relaxed)
}

/// Calls the host and returns without waiting for the reply.
fn call_later([argument, ..]: [u64; 4]) -> u64 {
    call_host(argument, argument);
    0
}

fn last_reply(_: [u64; 4]) -> u64 {
    LAST_REPLY.load(Relaxed)
}

/// Calls the host, waits for the reply, and then for one that cannot come.
fn wait_for_nothing([argument, ..]: [u64; 4]) -> u64 {
    call_host(1, argument);
    reply();
    result(&reply())
}
