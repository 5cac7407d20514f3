//! The attributes of `cellule-guest`, which documents them.
//!
//! Their output names only `::cellule_guest`, contains no `unsafe` of its own
//! and no `cfg`: what differs between a guest and the developer's machine is
//! chosen in the SDK's macros `__export!` and `__import!`.
#![forbid(unsafe_code)]

mod export;
mod import;
mod options;
mod signature;

use proc_macro2::TokenStream;

/// Exports a function to the host. See `cellule_guest::guest_function`.
#[proc_macro_attribute]
pub fn guest_function(
    options: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    export::expand(options.into(), item.into()).unwrap_or_else(shown).into()
}

/// Declares a function of the host. See `cellule_guest::host_function`.
#[proc_macro_attribute]
pub fn host_function(
    options: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    import::expand(options.into(), item.into()).unwrap_or_else(shown).into()
}

fn shown(error: syn::Error) -> TokenStream {
    error.into_compile_error()
}
