//! The runtime's stand-in outside a guest, where there is no host to call.

pub(crate) mod port;

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
    ($name:expr, $signature:expr, $entry:expr, $priority:expr) => {
        const _: $crate::__private::Symbol =
            $crate::__symbol!(export, $name, $signature, $entry, $priority);
    };
}

/// Checks an import as a guest does, and lists it nowhere.
#[doc(hidden)]
#[macro_export]
macro_rules! __import {
    ($name:expr, $signature:expr) => {{
        static IMPORT: $crate::__private::Symbol = $crate::__symbol!(import, $name, $signature);
        &IMPORT
    }};
}
