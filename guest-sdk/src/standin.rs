//! The runtime's stand-in outside a guest, where there is no host to call.

use cellule_abi::{Args, HostError, Schema};
use serde::de::DeserializeOwned;

use crate::symbol::Symbol;

/// Answers as a host that cannot take the call.
///
/// # Errors
///
/// [`HostError::Unavailable`], always.
pub fn call_host<A, T>(_: &'static Symbol, _: &A) -> Result<T, HostError>
where
    A: Args,
    T: Schema + DeserializeOwned,
{
    Err(HostError::Unavailable)
}

/// Checks an export as a guest does, and lists it nowhere.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($name:expr, $signature:expr, $entry:expr) => {
        const _: $crate::__private::Symbol = {
            const SIGNATURE: $crate::__private::Signature = $signature;
            const TEXT: [u8; SIGNATURE.text_len()] = SIGNATURE.text_bytes();
            $crate::__private::Symbol::export($name, &TEXT, $entry)
        };
    };
}

/// Checks an import as a guest does, and lists it nowhere.
#[doc(hidden)]
#[macro_export]
macro_rules! __import {
    ($name:expr, $signature:expr) => {{
        const SIGNATURE: $crate::__private::Signature = $signature;
        const TEXT: [u8; SIGNATURE.text_len()] = SIGNATURE.text_bytes();
        static IMPORT: $crate::__private::Symbol = $crate::__private::Symbol::import($name, &TEXT);
        &IMPORT
    }};
}
