//! The ELF note in which an image says which ABI it speaks and where its tables are.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The note's name, with its terminating zero.
pub const NAME: &[u8; 8] = b"Cellule\0";
/// The note's type.
pub const TYPE: u32 = 1;

/// The note's descriptor.
///
/// The tables are given as signed distances from the field that holds them, so
/// that the linker can fill them in and no relocation is needed to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Note {
    /// [`crate::ABI_VERSION`] of the SDK.
    pub abi_version: u32,
    /// The SDK's version: major << 16 | minor << 8 | patch. For messages only.
    pub sdk_version: u32,
    /// Distance to the first export.
    pub exports_start: i64,
    /// Distance past the last export.
    pub exports_end: i64,
    /// Distance to the first import.
    pub imports_start: i64,
    /// Distance past the last import.
    pub imports_end: i64,
}

const _: () = assert!(size_of::<Note>() == 40, "see ABI.md, The note");
const _: () = assert!(offset_of!(Note, exports_start) == 8 && offset_of!(Note, imports_end) == 32);
