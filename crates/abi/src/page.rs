//! The channel page: boot block, ring indices, abort block and both rings.
//!
//! One 4 KiB page, so that a call touches one page of shared state. The host
//! never believes what it reads back from an OUT field: it keeps its own copy.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
    /// Zero. Space for the clock, the generation and entropy of later versions.
    pub reserved: [u64; 21],
}

/// The ring indices that the guest writes. IN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuestIndices {
    /// The number of requests ever published.
    pub request_tail: u32,
    /// The number of completions ever consumed.
    pub completion_head: u32,
    /// Zero. Space for the upcall mask and the next deadline.
    pub reserved: [u64; 7],
}

/// The ring indices that the host writes. OUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostIndices {
    /// The number of requests ever consumed.
    pub request_head: u32,
    /// The number of completions ever published.
    pub completion_tail: u32,
    /// Zero. Space for the upcall pending bits.
    pub reserved: [u64; 7],
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

// Pinned: a change here is a new ABI version. See ABI.md, "The channel page".
const _: () = assert!(size_of::<Boot>() == 0x100, "the boot block ends where the indices begin");
const _: () = assert!(size_of::<GuestIndices>() == 0x40 && size_of::<HostIndices>() == 0x40);
const _: () = assert!(size_of::<Abort>() == 0x40);
const _: () = assert!(offset_of!(Boot, args) == 0x10 && offset_of!(Boot, replies) == 0x20);
const _: () = assert!(offset_of!(Boot, heap) == 0x30 && offset_of!(Boot, stack) == 0x40);
const _: () = assert!(offset_of!(Boot, heap_there_bytes) == 0x50);
const _: () = assert!(REQUEST_TAIL_OFFSET == 0x100 && COMPLETION_HEAD_OFFSET == 0x104);
const _: () = assert!(REQUEST_HEAD_OFFSET == 0x140 && COMPLETION_TAIL_OFFSET == 0x144);
const _: () = assert!(offset_of!(Abort, message_gva) == 8 && offset_of!(Abort, detail) == 16);
const _: () = assert!(ABORT_OFFSET + size_of::<Abort>() <= SHORT_OFFSET);
const _: () = assert!(SHORT_OFFSET + SHORT_BYTES == COMPLETIONS_OFFSET);
const _: () = assert!(completion_offset(RING_ENTRIES - 1) + 32 == REQUESTS_OFFSET);
const _: () = assert!(request_offset(RING_ENTRIES - 1) + 64 == PAGE_BYTES);
const _: () = assert!(RING_ENTRIES.is_power_of_two());
