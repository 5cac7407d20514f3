//! Guest RAM as the host sees it: only ever as copies.
//!
//! A [`Region`] is a range of host memory that a guest runs in. Nothing here
//! hands out `&[u8]` or `&mut T` into it: a guest may change its memory at any
//! moment, and a reference would promise that it does not. Bytes are copied
//! out once, and the copy is what gets parsed.
//!
//! [`Sealed`] holds bytes that never change again, in memory that several
//! regions map: the text of an image is one set of physical pages, however
//! many sandboxes run it.
//!
//! All `unsafe` of the host's memory handling is in `copy.rs` (the one door
//! from an offset to a host pointer) and `map.rs` (mmap and memfd).
#![allow(unsafe_code, reason = "mmap, memfd, and copies from memory that a guest shares")]

mod copy;
mod map;
mod region;

pub use map::{MapError, Sealed};
pub use region::{HostPtr, OutOfBounds, Region};

/// The size of a page in bytes.
pub const PAGE_BYTES: usize = 4096;
