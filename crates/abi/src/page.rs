//! The channel page: boot block, entropy, ring indices, abort block and both rings.
//!
//! One 4 KiB page, so that a call touches one page of shared state. The host
//! never believes what it reads back from an OUT field: it keeps its own copy.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::clock::Clock;
use crate::tasks::Stacks;
use crate::{PAGE_BYTES, record};

/// The number of entries of each ring. A power of two, so that free-running
/// 32-bit indices wrap without a seam.
pub const RING_ENTRIES: u32 = 32;

/// The first eight bytes of the page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CELLULE1");

/// A range of guest virtual addresses. OUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// The first address.
    pub gva: u64,
    /// The length in bytes.
    pub len_bytes: u64,
}

/// What the host tells a guest before its first instruction. OUT throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Boot {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// [`RING_ENTRIES`].
    pub ring_entries: u32,
    /// Where the host puts the arguments of a call.
    pub args: Range,
    /// Where the host puts the results of host calls.
    pub replies: Range,
    /// Memory for the guest's allocator: zero until first touched.
    pub heap: Range,
    /// The stack that the guest starts on; below it is an unmapped guard page.
    pub stack: Range,
    /// How many bytes at the start of the heap are there from the start. Before it
    /// touches the rest, the guest rings [`crate::doorbell::Doorbell::Extend`].
    pub heap_there_bytes: u64,
    /// The clock.
    pub clock: Clock,
    /// Stacks for tasks, the smallest first; a count of zero ends the list.
    pub stacks: [Stacks; STACK_CLASSES],
    /// The state components that an upcall must save: the mask for `xsave`, or
    /// zero if the processor has only `fxsave`.
    pub vector_state: u64,
    /// A [`TaskFaults`].
    pub task_faults: u32,
    /// How many entries the guest's trace should have; zero for no trace.
    pub trace_entries: u32,
}

/// How many sizes of task stacks there can be.
pub const STACK_CLASSES: usize = 3;

crate::codes! {
    /// What the panic or the fault of a task ends.
    pub enum TaskFaults: u32 {
        /// The sandbox: it is poisoned.
        EndSandbox = 0,
        /// The task alone, if the guest's runtime can tell that it was the task's.
        EndTask = 1,
    }
}

/// What tells a guest from its siblings. OUT.
///
/// Written before the first instruction, and anew, while the guest stands still,
/// whenever it becomes the copy of another: the generation is then one that this
/// memory has not seen, and the seed nobody else's.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entropy {
    /// Zero for a guest that was started, and not copied from another.
    pub generation: u64,
    /// What this generation's random numbers come from.
    pub seed: Seed,
}

/// A secret of the host and one guest, never all zero: that is one that was taken.
/// `Debug` does not show it. OUT; the guest may erase it once it has taken it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Seed(pub [u8; SEED_BYTES]);

/// The length of a [`Seed`] in bytes: the key of a 256-bit cipher.
pub const SEED_BYTES: usize = 32;

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// The ring indices that the guest writes. IN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuestIndices {
    /// The number of requests ever published.
    pub request_tail: u32,
    /// The number of completions ever consumed.
    pub completion_head: u32,
    /// Where the guest's [`crate::tasks::TaskBlock`] is; zero if it has none.
    pub tasks_gva: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

/// The ring indices that the host writes. OUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostIndices {
    /// The number of requests ever consumed.
    pub request_head: u32,
    /// The number of completions ever published.
    pub completion_tail: u32,
    /// How far a virtual clock may go, in nanoseconds: `u64::MAX` unless the host
    /// runs the guest for a limited time.
    pub clock_limit_ns: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

/// Why a guest gave up. IN, read once, after [`crate::doorbell::Doorbell::Abort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Abort {
    /// An [`AbortCode`].
    pub code: u32,
    /// The length of the message in bytes; the host reads at most
    /// [`ABORT_MESSAGE_BYTES`].
    pub message_len: u32,
    /// Where the UTF-8 message is.
    pub message_gva: u64,
    /// For [`AbortCode::OutOfMemory`]: the bytes that were asked for.
    pub detail: u64,
    /// Zero.
    pub reserved: [u64; 5],
}

/// The longest abort message that a host reads, in bytes.
pub const ABORT_MESSAGE_BYTES: usize = 1024;

crate::codes! {
    /// The kinds of abort.
    pub enum AbortCode: u32 {
        /// The panic handler ran; the message has the location.
        Panic = 1,
        /// An allocation failed and the program could not go on.
        OutOfMemory = 2,
        /// The guest found the channel page in a state that no host leaves it in.
        BadChannel = 3,
    }
}

/// The offset of [`Boot`] in the page.
pub const BOOT_OFFSET: usize = 0x000;
/// The offset of [`Entropy`].
pub const ENTROPY_OFFSET: usize = 0x0d8;
/// The offset of [`GuestIndices`].
pub const GUEST_INDICES_OFFSET: usize = 0x100;
/// The offset of [`HostIndices`]: a cache line of its own.
pub const HOST_INDICES_OFFSET: usize = 0x140;
/// The offset of [`Abort`].
pub const ABORT_OFFSET: usize = 0x180;
/// The offset of the space for short arguments, OUT: see [`SHORT_BYTES`].
pub const SHORT_OFFSET: usize = 0x200;
/// How many bytes of arguments a host may put into the channel page itself, so
/// that a call touches no other page for them.
pub const SHORT_BYTES: usize = 0x200;
/// The offset of the completion ring.
pub const COMPLETIONS_OFFSET: usize = 0x400;
/// The offset of the request ring.
pub const REQUESTS_OFFSET: usize = 0x800;

/// The offset in the page of the completion with the free-running `index`.
pub const fn completion_offset(index: u32) -> usize {
    COMPLETIONS_OFFSET + (index % RING_ENTRIES) as usize * size_of::<record::Completion>()
}

/// The offset in the page of the request with the free-running `index`.
pub const fn request_offset(index: u32) -> usize {
    REQUESTS_OFFSET + (index % RING_ENTRIES) as usize * size_of::<record::Request>()
}

/// The offset in the page of the generation.
pub const GENERATION_OFFSET: usize = ENTROPY_OFFSET + offset_of!(Entropy, generation);
/// The offset in the page of the seed.
pub const SEED_OFFSET: usize = ENTROPY_OFFSET + offset_of!(Entropy, seed);
/// The offset in the page of the guest's request tail.
pub const REQUEST_TAIL_OFFSET: usize =
    GUEST_INDICES_OFFSET + offset_of!(GuestIndices, request_tail);
/// The offset in the page of the guest's completion head.
pub const COMPLETION_HEAD_OFFSET: usize =
    GUEST_INDICES_OFFSET + offset_of!(GuestIndices, completion_head);
/// The offset in the page of the host's request head.
pub const REQUEST_HEAD_OFFSET: usize = HOST_INDICES_OFFSET + offset_of!(HostIndices, request_head);
/// The offset in the page of the host's completion tail.
pub const COMPLETION_TAIL_OFFSET: usize =
    HOST_INDICES_OFFSET + offset_of!(HostIndices, completion_tail);
/// The offset in the page of the address of the guest's task block.
pub const TASKS_GVA_OFFSET: usize = GUEST_INDICES_OFFSET + offset_of!(GuestIndices, tasks_gva);
/// The offset in the page of the virtual clock's limit.
pub const CLOCK_LIMIT_OFFSET: usize = HOST_INDICES_OFFSET + offset_of!(HostIndices, clock_limit_ns);
/// The offset in the page of where a guest keeps its virtual time, IN-OUT: the
/// clock's base, which only a clock of the other kind needs.
pub const VIRTUAL_NOW_OFFSET: usize =
    BOOT_OFFSET + offset_of!(Boot, clock) + offset_of!(Clock, base_ns);
/// The offset in the page of the difference between wall and monotonic time.
pub const WALL_OFFSET_OFFSET: usize =
    BOOT_OFFSET + offset_of!(Boot, clock) + offset_of!(Clock, wall_offset_ns);

// Pinned: a change here is a new ABI version. See ABI.md, "The channel page".
const _: () = assert!(BOOT_OFFSET + size_of::<Boot>() == ENTROPY_OFFSET);
const _: () = assert!(ENTROPY_OFFSET + size_of::<Entropy>() == GUEST_INDICES_OFFSET);
const _: () = assert!(GENERATION_OFFSET == 0xd8 && SEED_OFFSET == 0xe0);
const _: () = assert!(size_of::<GuestIndices>() == 0x40 && size_of::<HostIndices>() == 0x40);
const _: () = assert!(size_of::<Abort>() == 0x40);
const _: () = assert!(offset_of!(Boot, args) == 0x10 && offset_of!(Boot, replies) == 0x20);
const _: () = assert!(offset_of!(Boot, heap) == 0x30 && offset_of!(Boot, stack) == 0x40);
const _: () = assert!(offset_of!(Boot, heap_there_bytes) == 0x50);
const _: () = assert!(offset_of!(Boot, clock) == 0x58 && offset_of!(Boot, stacks) == 0x80);
const _: () = assert!(offset_of!(Boot, vector_state) == 0xc8);
const _: () = assert!(offset_of!(Boot, trace_entries) == 0xd4);
const _: () = assert!(TASKS_GVA_OFFSET == 0x108 && CLOCK_LIMIT_OFFSET == 0x148);
const _: () = assert!(VIRTUAL_NOW_OFFSET == 0x60 && WALL_OFFSET_OFFSET == 0x70);
const _: () = assert!(REQUEST_TAIL_OFFSET == 0x100 && COMPLETION_HEAD_OFFSET == 0x104);
const _: () = assert!(REQUEST_HEAD_OFFSET == 0x140 && COMPLETION_TAIL_OFFSET == 0x144);
const _: () = assert!(offset_of!(Abort, message_gva) == 8 && offset_of!(Abort, detail) == 16);
const _: () = assert!(ABORT_OFFSET + size_of::<Abort>() <= SHORT_OFFSET);
const _: () = assert!(SHORT_OFFSET + SHORT_BYTES == COMPLETIONS_OFFSET);
const _: () = assert!(completion_offset(RING_ENTRIES - 1) + 32 == REQUESTS_OFFSET);
const _: () = assert!(request_offset(RING_ENTRIES - 1) + 64 == PAGE_BYTES);
const _: () = assert!(RING_ENTRIES.is_power_of_two());
