//! The record by which an image lists an exported or imported function.

use core::mem::{offset_of, size_of};
use core::ptr;

use cellule_abi::{fnv1a, symbol};

use crate::function::Entry;

/// [`cellule_abi::symbol::Symbol`] as a static, with pointers in place of
/// addresses so that the linker relocates them.
#[derive(Debug)]
#[repr(C)]
pub struct Symbol {
    name: *const u8,
    name_len: u64,
    signature: *const u8,
    signature_len: u64,
    id: u64,
    schema: u64,
    entry: Option<Entry>,
    priority: u64,
}

const _: () = assert!(size_of::<Symbol>() == size_of::<symbol::Symbol>(), "ABI.md, Exports");
const _: () = assert!(offset_of!(Symbol, name) == offset_of!(symbol::Symbol, name_gva));
const _: () = assert!(offset_of!(Symbol, signature) == offset_of!(symbol::Symbol, signature_gva));
const _: () = assert!(offset_of!(Symbol, id) == offset_of!(symbol::Symbol, id));
const _: () = assert!(offset_of!(Symbol, schema) == offset_of!(symbol::Symbol, schema));
const _: () = assert!(offset_of!(Symbol, entry) == offset_of!(symbol::Symbol, entry_gva));

// SAFETY: a `Symbol` is never written after it is made, and its pointers come
// from `&'static` data (see `new`), which any thread may read.
unsafe impl Sync for Symbol {}

impl Symbol {
    /// An exported function and the code that serves it.
    pub const fn export(
        name: &'static str,
        signature: &'static [u8],
        entry: Entry,
        priority: Option<u8>,
    ) -> Self {
        let priority = match priority {
            Some(number) => number as u64 + 1,
            None => 0,
        };
        assert!(priority <= symbol::GREATEST_PRIORITY, "a priority is 0 to 31");
        Self { priority, ..Self::new(name, signature, Some(entry)) }
    }

    /// A function of the host.
    pub const fn import(name: &'static str, signature: &'static [u8]) -> Self {
        Self::new(name, signature, None)
    }

    const fn new(name: &'static str, signature: &'static [u8], entry: Option<Entry>) -> Self {
        assert!(!name.is_empty(), "a function needs a name");
        assert!(name.len() <= symbol::NAME_BYTES, "the name of a function is too long");
        assert!(
            signature.len() <= symbol::SIGNATURE_BYTES,
            "the types of this function are too large to describe"
        );
        Self {
            name: name.as_ptr(),
            name_len: name.len() as u64,
            signature: signature.as_ptr(),
            signature_len: signature.len() as u64,
            id: fnv1a(name.as_bytes()),
            schema: fnv1a(signature),
            entry,
            priority: 0,
        }
    }

    /// Returns the code that serves an export; `None` for an import.
    pub fn entry(&self) -> Option<Entry> {
        self.entry
    }

    /// Returns the priority at which an export is to be served, if it says so.
    pub fn priority(&self) -> Option<u8> {
        self.priority.checked_sub(1).and_then(|priority| u8::try_from(priority).ok())
    }

    /// Returns where in `table` this very symbol is.
    pub fn index_in(&self, table: &[Self]) -> Option<u32> {
        let distance = ptr::from_ref(self).addr().checked_sub(table.as_ptr().addr())?;
        let index = distance / size_of::<Symbol>();
        (index < table.len()).then(|| u32::try_from(index).ok())?
    }
}

/// A symbol of a signature, its text written at compile time.
#[doc(hidden)]
#[macro_export]
macro_rules! __symbol {
    ($kind:ident, $name:expr, $signature:expr $(, $more:expr)*) => {{
        const SIGNATURE: $crate::__private::Signature = $signature;
        const TEXT: [u8; SIGNATURE.text_len()] = SIGNATURE.text_bytes();
        $crate::__private::Symbol::$kind($name, &TEXT $(, $more)*)
    }};
}

#[cfg(test)]
mod tests {
    use cellule_abi::Signature;

    use super::*;

    const SIGNATURE: Signature = Signature::of::<(&str, u32), Option<bool>>();
    const TEXT: [u8; SIGNATURE.text_len()] = SIGNATURE.text_bytes();
    static TABLE: [Symbol; 3] =
        [Symbol::import("a", &TEXT), Symbol::import("b", &TEXT), Symbol::import("c", &TEXT)];

    #[test]
    fn a_symbol_carries_the_hashes_of_its_name_and_types() {
        assert_eq!(&TEXT, b"fn(str, u32) -> bool?");
        assert_eq!(TABLE[1].id, fnv1a(b"b"));
        assert_eq!(TABLE[1].schema, fnv1a(b"fn(str, u32) -> bool?"));
        assert_eq!((TABLE[1].name_len, TABLE[1].signature_len), (1, TEXT.len() as u64));
    }

    #[test]
    fn a_symbol_finds_its_index_and_a_stranger_none() {
        static STRANGER: Symbol = Symbol::import("b", &TEXT);
        assert_eq!(TABLE[0].index_in(&TABLE), Some(0));
        assert_eq!(TABLE[2].index_in(&TABLE), Some(2));
        assert_eq!(TABLE[2].index_in(&TABLE[..2]), None);
        assert_eq!(TABLE[0].index_in(&TABLE[1..]), None);
        assert_eq!(STRANGER.index_in(&[]), None);
    }
}
