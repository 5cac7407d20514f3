//! What the kernel needs of its surroundings, in a guest.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cellule_abi::clock::{Clock, ClockKind};
use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::{Boot, TaskFaults};
use cellule_abi::record::CompletionOp;
use cellule_abi::tasks::{NEVER, TraceRecord};
use cellule_rtos::End;

use super::page::{Page, native};
use super::{CHANNEL, unbroken};
use crate::channel::{Port, Taken};
use crate::kernel::block::BLOCK;
use crate::kernel::upcall::{self, VECTOR_STATE};
use crate::kernel::{Core, Stacks};
use crate::random::SEED_WORDS;

/// The clock, as the host gave it: written once, before the first task.
static BASE_COUNTER: AtomicU64 = AtomicU64::new(0);
static BASE_NS: AtomicU64 = AtomicU64::new(0);
static RATIO: AtomicU64 = AtomicU64::new(0);
/// Whether time is virtual, and the time if it is.
static VIRTUAL: AtomicBool = AtomicBool::new(false);
static VIRTUAL_NS: AtomicU64 = AtomicU64::new(0);

/// Whether the host has been asked for late memory.
static EXTENDED: AtomicBool = AtomicBool::new(false);

/// Whether the panic or the fault of a task ends that task alone.
static TASKS_FAIL_ALONE: AtomicBool = AtomicBool::new(false);

pub(crate) use crate::kernel::upcall::{clear_pending, is_masked, mask, set_pending, unmask};

// Time.

/// Nanoseconds since the sandbox was made.
#[inline]
pub(crate) fn now() -> u64 {
    if is_virtual() {
        return VIRTUAL_NS.load(Ordering::Relaxed);
    }
    let clock = Clock {
        base_counter: BASE_COUNTER.load(Ordering::Relaxed),
        base_ns: BASE_NS.load(Ordering::Relaxed),
        ratio: RATIO.load(Ordering::Relaxed),
        wall_offset_ns: 0,
        kind: 0,
        reserved: 0,
    };
    // SAFETY: every x86-64 processor has the instruction, and the host leaves it
    // to ring 3 (ABI.md, "The clock").
    clock.nanoseconds(unsafe { core::arch::x86_64::_rdtsc() })
}

/// What to add to that for nanoseconds since 1970.
pub(crate) fn wall_offset() -> u64 {
    Page.wall_offset()
}

/// Whether time passes only when the guest says so.
#[inline]
pub(crate) fn is_virtual() -> bool {
    VIRTUAL.load(Ordering::Relaxed)
}

/// Moves virtual time to the kernel's.
pub(crate) fn set_virtual(now_ns: u64) {
    VIRTUAL_NS.store(now_ns, Ordering::Relaxed);
}

/// Has the host deliver an upcall at `deadline_ns`. An exit only if it would
/// otherwise come too late.
#[inline]
pub(crate) fn announce(core: &mut Core, deadline_ns: u64) {
    if deadline_ns != BLOCK.deadline_ns.load(Ordering::Relaxed) {
        publish(core, deadline_ns);
    }
    if deadline_ns < BLOCK.armed_ns.load(Ordering::Relaxed) {
        arm();
    }
}

/// Whether [`announce`] would do nothing.
#[inline]
pub(crate) fn is_announced(deadline_ns: u64) -> bool {
    deadline_ns == BLOCK.deadline_ns.load(Ordering::Relaxed)
}

#[cold]
fn arm() {
    if !is_virtual() {
        ring(Doorbell::Submit);
    }
}

#[cold]
fn publish(core: &Core, deadline_ns: u64) {
    let mut following = core.following_deadline().unwrap_or(NEVER);
    if core.slice() != 0 && core.slice_left().is_some() {
        following = following.min(deadline_ns.saturating_add(core.slice()));
    }
    BLOCK.deadline_ns.store(deadline_ns, Ordering::Relaxed);
    BLOCK.following_ns.store(following, Ordering::Relaxed);
}

// Entropy.

/// Which copy of its first self this guest is.
#[inline]
pub(crate) fn generation() -> u64 {
    Page.generation()
}

/// The seed, where the host puts it.
pub(crate) fn seed() -> [&'static AtomicU64; SEED_WORDS] {
    Page.seed()
}

// Waiting, and the host.

/// Leaves the guest until there is something to do, or, in virtual time, goes to
/// the next deadline.
pub(crate) fn idle(core: &mut Core) {
    if BLOCK.pending.load(Ordering::Relaxed) != 0 {
        return;
    }
    let next = core.next_deadline().unwrap_or(NEVER);
    if !is_virtual() {
        publish(core, next);
        return ring(Doorbell::Wait);
    }
    // Nobody knows how much virtual time a host call takes: none.
    let limit = Page.clock_limit();
    if core.in_flight == 0 && next <= limit && next != NEVER {
        core.advance(next);
        set_virtual(core.now());
        return;
    }
    if core.in_flight == 0 && limit != NEVER {
        core.advance(limit);
        set_virtual(core.now());
    }
    ring(Doorbell::Wait);
}

/// Leaves the guest. Upcalls are masked.
pub(crate) fn ring(operation: Doorbell) {
    if is_virtual() {
        Page.set_virtual_now(VIRTUAL_NS.load(Ordering::Relaxed));
    }
    Page.ring(operation);
}

/// Takes what the host has completed.
pub(crate) fn take_completions(core: &mut Core) {
    while let Some(taken) = unbroken(CHANNEL.with(|channel| channel.next())) {
        if taken.completion.op == CompletionOp::Call as u16 {
            core.accept(taken.completion, super::priority_of(&taken.completion));
        } else if let Some(late) = core.settle(taken) {
            give_back(late);
        }
    }
}

/// Gives the bytes of a reply back to the host.
pub(crate) fn give_back(reply: Taken) {
    CHANNEL.with(|channel| channel.end_reply(reply));
}

/// Tells the host which task runs.
#[inline]
pub(crate) fn set_running(number: u16) {
    BLOCK.task.store(number.into(), Ordering::Relaxed);
}

/// Tells the host how far the trace is.
pub(crate) fn set_trace_written(written: u64) {
    BLOCK.trace_written.store(written, Ordering::Relaxed);
}

/// Makes sure that late memory is there: an exit, once for each guest.
pub(super) fn extend() {
    if !EXTENDED.swap(true, Ordering::Relaxed) {
        ring(Doorbell::Extend);
    }
}

/// Makes sure that the stacks are there.
pub(crate) fn provide_stacks(_: &mut Stacks) {
    extend();
}

/// Whether the panic or the fault of a task ends that task alone.
pub(crate) fn tasks_fail_alone() -> bool {
    TASKS_FAIL_ALONE.load(Ordering::Relaxed)
}

/// Makes another task serve calls in place of one that has ended.
pub(crate) use super::replace_server;

/// Runs a task's body. A panic does not come back from there.
pub(crate) fn run_body(body: impl FnOnce()) -> End {
    body();
    End::Returned
}

// The start.

/// Prepares time, stacks, upcalls and the trace. Upcalls stay masked.
pub(super) fn start(boot: &Boot, core: &mut Core) {
    let Clock { base_counter, base_ns, ratio, kind, .. } = boot.clock;
    BASE_COUNTER.store(base_counter, Ordering::Relaxed);
    BASE_NS.store(base_ns, Ordering::Relaxed);
    RATIO.store(ratio, Ordering::Relaxed);
    VIRTUAL.store(kind == ClockKind::Virtual as u32, Ordering::Relaxed);
    TASKS_FAIL_ALONE.store(boot.task_faults == TaskFaults::EndTask as u32, Ordering::Relaxed);
    VECTOR_STATE.store(boot.vector_state & upcall::KNOWN_STATE, Ordering::Relaxed);
    for class in boot.stacks.iter().filter(|class| class.count > 0) {
        let start = core::ptr::with_exposed_provenance_mut(native(class.gva));
        let (bytes, count) = (native(class.stack_bytes), native(class.count));
        let stride = bytes + cellule_abi::PAGE_BYTES;
        // SAFETY: the host mapped these for stacks (ABI.md, "Tasks"), in whole
        // pages, once `provide_stacks` asked for them, for ever.
        unsafe { core.stacks.add(start, stride, bytes, count) };
    }
    if boot.trace_entries > 0 {
        start_trace(core, boot.trace_entries);
    }
    let entry = upcall::upcall_entry as unsafe extern "C" fn() -> ! as usize;
    BLOCK.upcall_entry.store(entry as u64, Ordering::Relaxed);
    if tasks_fail_alone()
        && let Some(stack) = upcall::fault_stack()
    {
        let entry = upcall::fault_entry as unsafe extern "C" fn() -> ! as usize;
        BLOCK.fault_stack.store(stack.expose_provenance() as u64, Ordering::Relaxed);
        BLOCK.fault_entry.store(entry as u64, Ordering::Relaxed);
    }
    Page.publish_tasks((&raw const BLOCK).expose_provenance() as u64);
}

fn start_trace(core: &mut Core, entries: u32) {
    let records: *const TraceRecord = crate::trace::start(native(entries.into()));
    if !records.is_null() {
        core.watched = true;
        core.observe(Some(crate::kernel::observe));
        BLOCK.trace_gva.store(records.expose_provenance() as u64, Ordering::Relaxed);
        BLOCK.trace_entries.store(entries, Ordering::Relaxed);
    }
}
