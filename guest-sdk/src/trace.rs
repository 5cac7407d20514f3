//! The trace of scheduling events: a ring that the host reads.
//!
//! Only a guest whose host asked for a trace has one; to all others an event
//! costs one comparison.

use alloc::vec::Vec;
use core::cell::UnsafeCell;

use cellule_abi::tasks::{TraceEvent, TraceRecord};
use cellule_rtos::TaskId;

use crate::kernel::Core;
use crate::port;

struct Ring {
    records: Vec<TraceRecord>,
    written: u64,
}

struct Shared(UnsafeCell<Ring>);

// SAFETY: reached only by the functions of this module, within a section.
unsafe impl Sync for Shared {}

static RING: Shared = Shared(UnsafeCell::new(Ring { records: Vec::new(), written: 0 }));

/// Makes a trace of `entries`, a power of two, and returns where it is: null if
/// there is no memory for it.
pub(crate) fn start(entries: usize) -> *const TraceRecord {
    // SAFETY: within a section, before the first event.
    let ring = unsafe { &mut *RING.0.get() };
    if ring.records.try_reserve_exact(entries).is_err() {
        return core::ptr::null();
    }
    ring.records.resize(entries, TraceRecord::default());
    ring.records.as_ptr()
}

/// Whether there is a trace. Within a section only.
pub(crate) fn is_on() -> bool {
    // SAFETY: within a section, of which there is one at a time.
    !unsafe { &*RING.0.get() }.records.is_empty()
}

/// Writes an event. Within a section only.
pub(crate) fn record(event: TraceEvent, task: u16, detail: u32) {
    write(TraceRecord { at_ns: 0, event: event as u16, task, detail, name: [0; 16] });
}

/// Writes that a task was made.
pub(crate) fn created(task: u16, priority: u8, name: &str) {
    let mut record = TraceRecord { task, ..TraceRecord::default() };
    (record.event, record.detail) = (TraceEvent::Created as u16, priority.into());
    record.name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    write(record);
}

/// Writes that a task runs from now on.
pub(crate) fn runs(core: &Core, id: TaskId) {
    let priority = core.view(id).map_or(0, |task| task.effective.get());
    record(TraceEvent::Runs, id.number(), priority.into());
}

fn write(record: TraceRecord) {
    // SAFETY: within a section, of which there is one at a time.
    let ring = unsafe { &mut *RING.0.get() };
    let Some(last) = ring.records.len().checked_sub(1) else { return };
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
    let at = ring.written as usize & last;
    if let Some(slot) = ring.records.get_mut(at) {
        *slot = TraceRecord { at_ns: port::now(), ..record };
        ring.written += 1;
        port::set_trace_written(ring.written);
    }
}
