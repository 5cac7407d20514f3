//! The records with which an image lists its exports and imports.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One exported or imported function, as it lies in the relocated image.
///
/// Exports are in the section `cellule_exports`, imports in `cellule_imports`.
/// A function's number on the wire is its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Symbol {
    /// Address of the name, UTF-8.
    pub name_gva: u64,
    /// Length of the name in bytes.
    pub name_len: u64,
    /// Address of the signature text, see [`crate::Signature`].
    pub signature_gva: u64,
    /// Length of the signature text in bytes.
    pub signature_len: u64,
    /// FNV-1a of the name: the stable id.
    pub id: u64,
    /// FNV-1a of the signature text: the schema hash.
    pub schema: u64,
    /// Export: address of the guest's entry for it. Import: zero.
    pub entry_gva: u64,
    /// Export: one more than the priority at which the guest serves it, or zero for
    /// the guest's own choice. Import: zero.
    pub priority: u64,
}

/// The longest name of a function in bytes.
pub const NAME_BYTES: usize = 256;
/// The longest signature text in bytes.
pub const SIGNATURE_BYTES: usize = 16 * 1024;
/// The greatest number in [`Symbol::priority`]: that of priority 31.
pub const GREATEST_PRIORITY: u64 = 32;
/// The most exports, or imports, that an image may have.
pub const SYMBOLS: usize = 4096;

const _: () = assert!(size_of::<Symbol>() == 64, "see ABI.md, Exports and imports");
const _: () = assert!(offset_of!(Symbol, id) == 32 && offset_of!(Symbol, entry_gva) == 48);
