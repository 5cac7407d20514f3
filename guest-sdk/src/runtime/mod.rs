//! What only a guest has: its start, its tables, its doorbell.
//!
//! * `entry`: the first instructions, the note, and the tables of functions.
//! * `page`: the only code that touches the shared page and rings.
//! * `allocator`, `panic`, `logger`: what Rust asks a program for.
//! * `linkage`: what the compiler asks a program for.

mod allocator;
mod entry;
mod linkage;
mod logger;
mod page;
mod panic;

use alloc::vec::Vec;

use cellule_abi::page::{AbortCode, MAGIC, RING_ENTRIES};
use cellule_abi::record::{Completion, ReturnStatus};
use cellule_abi::{ABI_VERSION, Args, HostError, Schema};
use serde::de::DeserializeOwned;

use self::page::Page;
use crate::channel::{Broken, Channel};
use crate::decode::take;
use crate::exclusive::Exclusive;
use crate::function::Call;
use crate::symbol::Symbol;

/// The rings. User code (`Serialize`, `Deserialize`, `Display`) runs outside of
/// the lock, so that it may log and call the host.
static CHANNEL: Exclusive<Channel<Page>> = Exclusive::new(Channel::new(Page));

/// Prepares the guest and serves calls for ever.
fn main() -> ! {
    let boot = Page.boot();
    if (boot.magic, boot.abi_version, boot.ring_entries) != (MAGIC, ABI_VERSION, RING_ENTRIES) {
        panic::abort(AbortCode::BadChannel, format_args!("the host speaks another ABI"));
    }
    allocator::start(&boot);
    logger::start();
    loop {
        serve(unbroken(CHANNEL.with(Channel::next_call)));
    }
}

/// Serves one call. The answer is its only exit.
fn serve(call: Completion) {
    let mut answer = |status, head: &[u8], tail: &[u8]| {
        unbroken(CHANNEL.with(|channel| channel.answer(call.id, status, head, tail)));
    };
    let export = usize::try_from(call.function).ok().and_then(|n| entry::exports().get(n));
    match export.and_then(Symbol::entry) {
        // SAFETY: `call` is the call that we serve; its `Call` ends here, right
        // after the answer.
        Some(entry) => entry(&mut Call::new(unsafe { page::payload(&call) }, &mut answer)),
        None => answer(ReturnStatus::UnknownFunction, &[], &[]),
    }
}

/// Calls the host function `import`: one exit.
///
/// # Errors
///
/// The host's code, or [`HostError::BadValue`] if the arguments could not be
/// encoded or the reply is not a `T`.
pub fn call_host<A, T>(import: &'static Symbol, args: &A) -> Result<T, HostError>
where
    A: Args,
    T: Schema + DeserializeOwned,
{
    let function = import.index_in(entry::imports()).ok_or(HostError::UnknownFunction)?;
    let mut head = Vec::new();
    let tail = args.encode(&mut head).map_err(|_| HostError::BadValue)?;
    let reply = unbroken(CHANNEL.with(|channel| channel.call(function, &head, tail)));
    let result = read_reply(&reply);
    CHANNEL.with(Channel::end_reply);
    result
}

fn read_reply<T: Schema + DeserializeOwned>(reply: &Completion) -> Result<T, HostError> {
    if reply.status != 0 {
        return Err(HostError::try_from(reply.status).unwrap_or(HostError::Failed));
    }
    // SAFETY: the reply was taken and not yet ended; `T` is owned, so that
    // nothing of these bytes outlives this function.
    let mut bytes = unsafe { page::payload(reply) };
    take(&mut bytes).filter(|_| bytes.is_empty()).ok_or(HostError::BadValue)
}

/// Ends the guest if the channel is broken: there is nobody left to talk to.
fn unbroken<T>(result: Result<T, Broken>) -> T {
    result.unwrap_or_else(|broken| {
        panic::abort(AbortCode::BadChannel, format_args!("{broken}"));
    })
}

/// Lists an export in the image.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($name:expr, $signature:expr, $entry:expr) => {
        #[used]
        #[unsafe(link_section = "cellule_exports")]
        static EXPORT: $crate::__private::Symbol =
            $crate::__symbol!(export, $name, $signature, $entry);
    };
}

/// Lists an import in the image, and is its record.
#[doc(hidden)]
#[macro_export]
macro_rules! __import {
    ($name:expr, $signature:expr) => {{
        #[used]
        #[unsafe(link_section = "cellule_imports")]
        static IMPORT: $crate::__private::Symbol = $crate::__symbol!(import, $name, $signature);
        &IMPORT
    }};
}
