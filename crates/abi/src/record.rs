//! The records in the two rings.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// From guest to host. IN throughout: the host copies it out once, and checks the copy.
///
/// A payload comes in two segments whose concatenation is the encoded value: a
/// head that the guest encoded, and a tail that stays where it was (the bytes
/// of a last argument or of a result), so that the guest copies nothing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Request {
    /// Host call: chosen by the guest, comes back in the reply. Return: the id of the call.
    pub id: u64,
    /// A [`RequestOp`].
    pub op: u16,
    /// Zero.
    pub flags: u16,
    /// Host call: index of the import. Log: the level, 1 (error) to 5 (trace). Else zero.
    pub function: u32,
    /// Guest virtual address of the head.
    pub head_gva: u64,
    /// Length of the head in bytes.
    pub head_len: u32,
    /// Return: a [`ReturnStatus`]. Else zero.
    pub status: u32,
    /// Guest virtual address of the tail.
    pub tail_gva: u64,
    /// Length of the tail in bytes.
    pub tail_len: u32,
    /// The calling task's number; zero for the one that serves the host's calls.
    pub task: u32,
    /// Zero.
    pub reserved: [u64; 2],
}

crate::codes! {
    /// What a [`Request`] asks for.
    pub enum RequestOp: u16 {
        /// Call a host function.
        HostCall = 1,
        /// A guest function has returned.
        Return = 2,
        /// A log record: the head is the target, a zero byte, the message.
        Log = 3,
    }
}

crate::codes! {
    /// How a guest call ended, as the guest says.
    pub enum ReturnStatus: u32 {
        /// The payload is the result.
        Ok = 0,
        /// The call named no export of this image.
        UnknownFunction = 1,
        /// The arguments could not be decoded.
        BadArguments = 2,
        /// The task that served the call was killed, or failed and ended alone.
        TaskEnded = 3,
    }
}

/// From host to guest. OUT throughout.
///
/// The payload is one contiguous range in [`crate::page::Boot::args`] or, if it
/// is short, in the channel page (calls), or in [`crate::page::Boot::replies`]
/// (replies). Arguments stay valid until the
/// call returns, a reply until the guest moves its completion head past it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Completion {
    /// Call: chosen by the host. Reply: the id of the request.
    pub id: u64,
    /// A [`CompletionOp`].
    pub op: u16,
    /// Reply: 0 or a [`crate::HostError`]. Call: zero.
    pub status: u16,
    /// Call: index of the export. Reply: zero.
    pub function: u32,
    /// Guest virtual address of the payload.
    pub payload_gva: u64,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a [`Completion`] brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CompletionOp {
    /// The host calls an exported function.
    Call = 1,
    /// The host answers a host call.
    Reply = 2,
}

// Pinned: see ABI.md, "Records".
const _: () = assert!(size_of::<Request>() == 64 && size_of::<Completion>() == 32);
const _: () = assert!(offset_of!(Request, op) == 8 && offset_of!(Request, function) == 12);
const _: () = assert!(offset_of!(Request, head_gva) == 16 && offset_of!(Request, head_len) == 24);
const _: () = assert!(offset_of!(Request, status) == 28 && offset_of!(Request, tail_gva) == 32);
const _: () = assert!(offset_of!(Request, tail_len) == 40 && offset_of!(Request, task) == 44);
const _: () = assert!(offset_of!(Completion, op) == 8 && offset_of!(Completion, status) == 10);
const _: () = assert!(offset_of!(Completion, payload_gva) == 16);
const _: () = assert!(offset_of!(Completion, payload_len) == 24);
