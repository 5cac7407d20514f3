//! The task block: the words by which the host and the kernel agree about
//! upcalls and deadlines, see `cellule_abi::tasks`.
//!
//! The host writes to it only while the guest has stopped. To the compiler it
//! is another thread: all words are atomic, and relaxed, as there is one
//! processor.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64};

use cellule_abi::tasks::{NEVER, TaskBlock};

/// `cellule_abi::tasks::TaskBlock`, word for word.
#[repr(C, align(64))]
pub(crate) struct Block {
    pub(crate) mask: AtomicU32,
    pub(crate) pending: AtomicU32,
    pub(crate) upcall_entry: AtomicU64,
    pub(crate) deadline_ns: AtomicU64,
    pub(crate) following_ns: AtomicU64,
    pub(crate) armed_ns: AtomicU64,
    pub(crate) fault_entry: AtomicU64,
    pub(crate) fault_stack: AtomicU64,
    pub(crate) fault_vector: AtomicU32,
    pub(crate) fault_code: AtomicU32,
    pub(crate) fault_address: AtomicU64,
    pub(crate) fault_rip: AtomicU64,
    pub(crate) task: AtomicU32,
    pub(crate) trace_entries: AtomicU32,
    pub(crate) trace_gva: AtomicU64,
    pub(crate) trace_written: AtomicU64,
    reserved: [AtomicU64; 3],
}

const _: () = assert!(size_of::<Block>() == size_of::<TaskBlock>());
const _: () = assert!(offset_of!(Block, mask) == 0 && offset_of!(Block, pending) == 4);
const _: () = assert!(offset_of!(Block, armed_ns) == offset_of!(TaskBlock, armed_ns));
const _: () = assert!(offset_of!(Block, fault_stack) == offset_of!(TaskBlock, fault_stack));
const _: () = assert!(offset_of!(Block, fault_rip) == offset_of!(TaskBlock, fault_rip));
const _: () = assert!(offset_of!(Block, trace_written) == offset_of!(TaskBlock, trace_written));

/// This guest's. Upcalls are masked until the kernel has started.
pub(crate) static BLOCK: Block = Block {
    mask: AtomicU32::new(1),
    pending: AtomicU32::new(0),
    upcall_entry: AtomicU64::new(0),
    deadline_ns: AtomicU64::new(NEVER),
    following_ns: AtomicU64::new(NEVER),
    armed_ns: AtomicU64::new(NEVER),
    fault_entry: AtomicU64::new(0),
    fault_stack: AtomicU64::new(0),
    fault_vector: AtomicU32::new(0),
    fault_code: AtomicU32::new(0),
    fault_address: AtomicU64::new(0),
    fault_rip: AtomicU64::new(0),
    task: AtomicU32::new(0),
    trace_entries: AtomicU32::new(0),
    trace_gva: AtomicU64::new(0),
    trace_written: AtomicU64::new(0),
    reserved: [const { AtomicU64::new(0) }; 3],
};
