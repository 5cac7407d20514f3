//! The channel page, the task block, and what is counted.

use core::arch::{asm, x86_64};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use cellule_abi::clock::{Clock, ClockKind};
use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::{
    ABORT_OFFSET, AbortCode, BOOT_OFFSET, Boot, COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET,
    REQUEST_TAIL_OFFSET, TASKS_GVA_OFFSET, completion_offset, request_offset,
};
use cellule_abi::record::{Completion, Request};
use cellule_abi::tasks::{TaskBlock, TraceRecord};

use crate::entries;

/// A value at a fixed address that the host reads and writes too.
#[repr(align(64))]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: there is one thread; an upcall interrupts it as a signal would, and
// every access is one volatile read or write.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }

    pub fn set(&self, value: T) {
        // SAFETY: the cell is a live static; see `Sync` above.
        unsafe { self.0.get().write_volatile(value) }
    }
}

impl Shared<TaskBlock> {
    pub fn load(&self, offset: u64) -> u64 {
        load(self.address() + offset)
    }

    pub fn store(&self, offset: u64, value: u64) {
        store(self.address() + offset, value);
    }

    pub fn load_u32(&self, offset: u64) -> u32 {
        // SAFETY: within the block, by the callers' constants.
        unsafe { ((self.address() + offset) as *const u32).read_volatile() }
    }

    pub fn store_u32(&self, offset: u64, value: u32) {
        // SAFETY: within the block, by the callers' constants.
        unsafe { ((self.address() + offset) as *mut u32).write_volatile(value) }
    }
}

pub const MASK: u64 = offset_of!(TaskBlock, mask) as u64;
pub const PENDING: u64 = offset_of!(TaskBlock, pending) as u64;
pub const ENTRY: u64 = offset_of!(TaskBlock, upcall_entry) as u64;
pub const DEADLINE: u64 = offset_of!(TaskBlock, deadline_ns) as u64;
pub const FOLLOWING: u64 = offset_of!(TaskBlock, following_ns) as u64;
pub const ARMED: u64 = offset_of!(TaskBlock, armed_ns) as u64;
pub const FAULT_ENTRY: u64 = offset_of!(TaskBlock, fault_entry) as u64;
pub const FAULT_STACK: u64 = offset_of!(TaskBlock, fault_stack) as u64;
pub const TRACE_ENTRIES: u64 = offset_of!(TaskBlock, trace_entries) as u64;
pub const TRACE_GVA: u64 = offset_of!(TaskBlock, trace_gva) as u64;
pub const TRACE_WRITTEN: u64 = offset_of!(TaskBlock, trace_written) as u64;

/// Four kilobytes for the fault handler.
#[repr(C, align(16))]
pub struct Stack(pub [u8; 4096]);

pub const TRACE: usize = 16;
const EMPTY: TraceRecord = TraceRecord { at_ns: 0, event: 0, task: 0, detail: 0, name: [0; 16] };

pub static BLOCK: Shared<TaskBlock> = Shared::new(TaskBlock::NEW);
pub static FAULTS: Shared<Stack> = Shared::new(Stack([0; 4096]));
pub static RECORDS: Shared<[TraceRecord; TRACE]> = Shared::new([EMPTY; TRACE]);
pub static RESULT: Shared<[u8; 10]> = Shared::new([0; 10]);
/// How many upcalls there were.
pub static UPCALLS: AtomicU64 = AtomicU64::new(0);
/// How many faults of tasks.
pub static FAULTED: AtomicU64 = AtomicU64::new(0);
/// What an upcall adds to the deadline; zero for no more deadlines.
pub static PERIOD: AtomicU64 = AtomicU64::new(0);
/// What is done without a call: 0 waits, 1 spins, more ticks with this period.
pub static BACKGROUND: AtomicU64 = AtomicU64::new(0);
pub static TICKS: AtomicU64 = AtomicU64::new(0);
/// How far a virtual clock might go when the guest last had nothing to do.
pub static LIMIT_SEEN: AtomicU64 = AtomicU64::new(0);
/// The result of the last reply that no export waited for.
pub static LAST_REPLY: AtomicU64 = AtomicU64::new(0);
/// The call under way.
pub static CALL: AtomicU64 = AtomicU64::new(0);
static PAGE: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Finds the page, and publishes the block with this program's entries.
pub fn start(page: u64) {
    PAGE.store(page, Relaxed);
    BLOCK.store(ENTRY, entries::upcall_entry as *const () as u64);
    BLOCK.store(FAULT_ENTRY, entries::fault_entry as *const () as u64);
    BLOCK.store(FAULT_STACK, FAULTS.address() + 4096);
    store(page + TASKS_GVA_OFFSET as u64, BLOCK.address());
    BLOCK.store_u32(MASK, 0);
}

pub fn page() -> u64 {
    PAGE.load(Relaxed)
}

pub fn load(gva: u64) -> u64 {
    // SAFETY: none; where nothing is mapped, the guest is to fault.
    unsafe { (gva as *const u64).read_volatile() }
}

pub fn store(gva: u64, value: u64) {
    // SAFETY: none; where nothing is mapped, the guest is to fault.
    unsafe { (gva as *mut u64).write_volatile(value) }
}

fn word(offset: usize) -> &'static AtomicU32 {
    // SAFETY: an aligned word of the channel page, which is never unmapped.
    unsafe { AtomicU32::from_ptr((page() + offset as u64) as *mut u32) }
}

pub fn ring(operation: Doorbell) {
    ring_raw(operation as u8);
}

pub fn ring_raw(operation: u8) {
    // SAFETY: the doorbell's port is open; the host may change any memory.
    unsafe { asm!("out 1, al", in("al") operation) }
}

pub fn abort(code: AbortCode, detail: u64) -> ! {
    let block = page() + ABORT_OFFSET as u64;
    store(block, u64::from(code as u32));
    store(block + 16, detail);
    ring(Doorbell::Abort);
    loop {}
}

/// Whether there is no completion to take.
pub fn is_empty() -> bool {
    word(COMPLETION_TAIL_OFFSET).load(Acquire) == TAKEN.load(Relaxed)
}

/// Takes a completion, if there is one. Its payload is short, and stays.
pub fn take() -> Option<Completion> {
    if is_empty() {
        return None;
    }
    let index = TAKEN.load(Relaxed);
    let slot = (page() + completion_offset(index) as u64) as *const Completion;
    // SAFETY: the slot is within the page, and any bytes are a completion.
    let completion = unsafe { slot.read_volatile() };
    TAKEN.store(index.wrapping_add(1), Relaxed);
    Some(completion)
}

/// Lets the host reuse what was taken.
pub fn release() {
    word(COMPLETION_HEAD_OFFSET).store(TAKEN.load(Relaxed), Release);
}

/// Publishes a request, which goes along with the next doorbell.
pub fn push(request: Request) {
    release();
    let index = word(REQUEST_TAIL_OFFSET).load(Relaxed);
    let slot = (page() + request_offset(index) as u64) as *mut Request;
    // SAFETY: the slot is within the page; no test has 32 requests untaken.
    unsafe { slot.write_volatile(request) };
    word(REQUEST_TAIL_OFFSET).store(index.wrapping_add(1), Release);
}

/// The guest's monotonic time.
pub fn now_ns() -> u64 {
    let clock = (page() + BOOT_OFFSET as u64 + offset_of!(Boot, clock) as u64) as *const Clock;
    // SAFETY: the clock is within the page, and any bytes are one.
    let clock = unsafe { clock.read_volatile() };
    if clock.kind == ClockKind::Virtual as u32 {
        return clock.base_ns;
    }
    // SAFETY: every x86-64 processor has it.
    clock.nanoseconds(unsafe { x86_64::_rdtsc() })
}

/// Up to four numbers in postcard's form: seven bits to a byte, low ones first.
pub fn numbers(completion: &Completion) -> [u64; 4] {
    let mut at = completion.payload_gva;
    [(); 4].map(|()| {
        let (mut number, mut shift) = (0, 0);
        while at < completion.payload_gva + u64::from(completion.payload_len) {
            // SAFETY: within the payload, which the host wrote.
            let byte = unsafe { (at as *const u8).read_volatile() };
            at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    })
}

/// A number in postcard's form, and its length.
pub fn number(mut number: u64) -> ([u8; 10], u32) {
    let mut bytes = [0; 10];
    let mut len = 0;
    for byte in &mut bytes {
        *byte = (number & 0x7f) as u8 | if number > 0x7f { 0x80 } else { 0 };
        number >>= 7;
        len += 1;
        if number == 0 {
            break;
        }
    }
    (bytes, len)
}
