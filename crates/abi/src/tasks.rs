//! What a guest with tasks shows its host: when to interrupt it, and where.
//!
//! A guest that wants upcalls keeps one [`TaskBlock`] in memory of its own and
//! publishes its address in the channel page
//! ([`crate::page::GuestIndices::tasks_gva`]). The host copies the block out
//! once, when the guest has stopped, and uses the copy: everything in it is a
//! claim, by which the guest can hurt only itself.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The words by which host and guest agree about upcalls and deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskBlock {
    /// IN-OUT. Not zero: the guest must not be diverted now. The host leaves
    /// [`TaskBlock::pending`] instead; it sets the mask to 1 when it delivers.
    pub mask: u32,
    /// OUT. 1: look at the completions and the clock when you clear the mask.
    pub pending: u32,
    /// IN. Where an upcall begins.
    pub upcall_entry: u64,
    /// IN. When the guest next wants an upcall, in its own monotonic nanoseconds;
    /// `u64::MAX` for never. Read at every doorbell and every kick.
    pub deadline_ns: u64,
    /// IN. The deadline after that: armed at once when the first has passed, so
    /// that a guest need not leave in order to say so.
    pub following_ns: u64,
    /// OUT. The deadline that the host has armed; `u64::MAX` for none. A guest
    /// that wants an earlier one rings [`crate::doorbell::Doorbell::Submit`].
    pub armed_ns: u64,
    /// IN. Where the guest handles a fault of a task; zero if it cannot.
    pub fault_entry: u64,
    /// IN. The top of the stack on which it does so, 16-byte aligned.
    pub fault_stack: u64,
    /// OUT. The exception's vector.
    pub fault_vector: u32,
    /// OUT. Its error code.
    pub fault_code: u32,
    /// OUT. The address that was accessed, for a page fault; else zero.
    pub fault_address: u64,
    /// OUT. The instruction.
    pub fault_rip: u64,
    /// IN. The number of the running task.
    pub task: u32,
    /// IN. How many entries the trace has: a power of two, or zero.
    pub trace_entries: u32,
    /// IN. Where the trace's [`TraceRecord`]s are.
    pub trace_gva: u64,
    /// IN. How many records were ever written.
    pub trace_written: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// No deadline.
pub const NEVER: u64 = u64::MAX;

impl TaskBlock {
    /// A block of a guest that has said nothing yet.
    pub const NEW: Self = Self {
        mask: 1,
        pending: 0,
        upcall_entry: 0,
        deadline_ns: NEVER,
        following_ns: NEVER,
        armed_ns: NEVER,
        fault_entry: 0,
        fault_stack: 0,
        fault_vector: 0,
        fault_code: 0,
        fault_address: 0,
        fault_rip: 0,
        task: 0,
        trace_entries: 0,
        trace_gva: 0,
        trace_written: 0,
        reserved: [0; 3],
    };
}

/// How many bytes an upcall leaves alone below the stack pointer: the System V
/// ABI's red zone, which the interrupted code may be using.
pub const RED_ZONE_BYTES: u64 = 128;

/// Task stacks of one size. OUT.
///
/// Stack *i* is the `stack_bytes` from `gva + i * (stack_bytes + 4096)` on; the
/// page below each is never mapped. They are late memory: see
/// [`crate::doorbell::Doorbell::Extend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stacks {
    /// The lowest byte of the first stack.
    pub gva: u64,
    /// The size of each in bytes, whole pages.
    pub stack_bytes: u64,
    /// How many there are.
    pub count: u64,
}

/// An event of the guest's trace. IN: shown, never relied upon.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TraceRecord {
    /// When, in the guest's monotonic nanoseconds.
    pub at_ns: u64,
    /// A [`TraceEvent`].
    pub event: u16,
    /// The task's number.
    pub task: u16,
    /// A number that goes with the event.
    pub detail: u32,
    /// [`TraceEvent::Created`]: the start of the name, filled up with zeros. Else zero.
    pub name: [u8; 16],
}

crate::codes! {
    /// What a [`TraceRecord`] tells.
    pub enum TraceEvent: u16 {
        /// The task runs from now on. Detail: its effective priority.
        Runs = 1,
        /// No task is ready.
        Idle = 2,
        /// The task was made. Detail: its priority.
        Created = 3,
        /// The task ended. Detail: 0 it returned, 1 it was killed, 2 it failed.
        Ended = 4,
        /// The task can run. Detail: its effective priority.
        Ready = 5,
        /// The task waits. Detail: for what, see the SDK.
        Blocked = 6,
        /// An upcall interrupted the task.
        Upcall = 7,
        /// The task calls the host. Detail: the number of the import.
        HostCall = 8,
        /// The task has the host's reply.
        HostReply = 9,
    }
}

// Pinned: see ABI.md, "The task block".
const _: () = assert!(size_of::<TaskBlock>() == 0x80);
const _: () = assert!(offset_of!(TaskBlock, pending) == 4);
const _: () = assert!(offset_of!(TaskBlock, upcall_entry) == 8);
const _: () = assert!(offset_of!(TaskBlock, deadline_ns) == 0x10);
const _: () = assert!(offset_of!(TaskBlock, armed_ns) == 0x20);
const _: () = assert!(offset_of!(TaskBlock, fault_entry) == 0x28);
const _: () = assert!(offset_of!(TaskBlock, fault_vector) == 0x38);
const _: () = assert!(offset_of!(TaskBlock, fault_rip) == 0x48);
const _: () = assert!(offset_of!(TaskBlock, task) == 0x50);
const _: () = assert!(offset_of!(TaskBlock, trace_gva) == 0x58);
const _: () = assert!(size_of::<TraceRecord>() == 32 && offset_of!(TraceRecord, name) == 16);
