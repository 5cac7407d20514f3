//! What only a guest has: its start, its tables, its doorbell.
//!
//! * `entry`: the first instructions, the note, and the tables of functions.
//! * `page`: the only code that touches the shared page and rings.
//! * `port`: what the kernel asks for.
//! * `allocator`, `panic`, `logger`: what Rust asks a program for.
//! * `linkage`: what the compiler asks a program for.

mod allocator;
mod entry;
mod linkage;
mod logger;
mod page;
mod panic;
pub(crate) mod port;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;

use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::{AbortCode, MAGIC, RING_ENTRIES};
use cellule_abi::record::{Completion, ReturnStatus};
use cellule_abi::{ABI_VERSION, Args, HostError, Schema};
use serde::de::DeserializeOwned;

use self::page::{Page, native};
use crate::channel::{Broken, Channel, Taken};
use crate::decode::take;
use crate::exclusive::Exclusive;
use crate::function::Call;
use crate::generation;
use crate::kernel::{Core, Info, Section, Stack, begin_at};
use crate::symbol::Symbol;
use crate::task::{CALL_PRIORITY, Priority};

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
    let mut section = Section::within_mask();
    port::start(&boot, &mut section);
    let first = Stack::first(
        ptr::with_exposed_provenance_mut(native(boot.stack.gva)),
        native(boot.stack.len_bytes),
    );
    section.adopt(CALL_PRIORITY, Arc::new(Info::new(String::from("call"))), first);
    section.look();
    drop(section);
    port::unmask();
    serve_calls()
}

/// Serves calls for ever: the task that the program began with.
extern "C" fn serve_calls() -> ! {
    loop {
        serve(next_call());
    }
}

/// Waits for the host's next call, while others run.
fn next_call() -> Completion {
    loop {
        let mut section = Section::enter();
        if let Some(call) = section.call.take() {
            section.served = Some(call.id);
            return call;
        }
        section.server_waits = true;
        section.block();
        section.reschedule();
    }
}

/// Serves one call. The answer is its only exit.
fn serve(call: Completion) {
    generation::look();
    let mut answer = |status, head: &[u8], tail: &[u8]| {
        let mut section = Section::enter();
        section.served = None;
        unbroken(CHANNEL.with(|channel| channel.answer(call.id, status, head, tail)));
        port::ring(Doorbell::Wait);
        section.look();
        section.reschedule();
    };
    match export(&call).and_then(Symbol::entry) {
        // SAFETY: `call` is the call that we serve; its `Call` ends here, right
        // after the answer.
        Some(entry) => entry(&mut Call::new(unsafe { page::payload(&call) }, &mut answer)),
        None => answer(ReturnStatus::UnknownFunction, &[], &[]),
    }
}

/// The function that the host calls.
fn export(call: &Completion) -> Option<&'static Symbol> {
    entry::exports().get(usize::try_from(call.function).ok()?)
}

/// The priority at which a call is to be served.
fn priority_of(call: &Completion) -> Priority {
    let own = export(call).and_then(Symbol::priority);
    own.and_then(|number| Priority::new(number).ok()).unwrap_or(CALL_PRIORITY)
}

/// Makes another task serve calls in place of one that has ended, and answers
/// the call that it was serving.
pub(crate) fn replace_server(core: &mut Core, first: Stack) {
    if let Some(id) = core.served.take() {
        let ended = CHANNEL.with(|channel| channel.answer(id, ReturnStatus::TaskEnded, &[], &[]));
        unbroken(ended);
    }
    // SAFETY: the stack that the program began on, aligned to 16, belongs to
    // nobody any more; what still runs on it, deeper down, never returns.
    let pointer = unsafe { begin_at(first.top(), serve_calls_anew) };
    core.serve_on(CALL_PRIORITY, first, pointer);
}

extern "C" fn serve_calls_anew() -> ! {
    // The answer for the task before, if there is one, goes out here.
    let mut section = Section::inherited();
    section.reap();
    port::ring(Doorbell::Submit);
    section.look();
    section.reschedule();
    serve_calls()
}

/// Calls the host function `import`: one exit. The other tasks run while the
/// host has not answered.
///
/// # Errors
///
/// The host's code, or [`HostError::BadValue`] if the arguments could not be
/// encoded or the reply is not a `T`. [`HostError::Unavailable`] where a task
/// may not wait: in a timer's function, or a critical section.
pub fn call_host<A, T>(import: &'static Symbol, args: &A) -> Result<T, HostError>
where
    A: Args,
    T: Schema + DeserializeOwned,
{
    let function = import.index_in(entry::imports()).ok_or(HostError::UnknownFunction)?;
    let mut head = Vec::new();
    let tail = args.encode(&mut head).map_err(|_| HostError::BadValue)?;
    let reply = await_reply(function, &head, tail).ok_or(HostError::Unavailable)?;
    let result = read_reply(&reply.completion);
    let mut section = Section::enter();
    let task = section.current();
    section.end_reply(task);
    result
}

/// Makes a host call and waits for its reply; `None` if the context may not wait.
fn await_reply(function: u32, head: &[u8], tail: &[u8]) -> Option<Taken> {
    let mut section = Section::enter();
    if !section.can_wait() {
        return None;
    }
    let task = section.current();
    let id = unbroken(CHANNEL.with(|channel| channel.call(function, task.number(), head, tail)));
    section.begin_host_call(task, id, function);
    // With nobody else to run, the host need not come back before it has the reply.
    let others = section.has_ready();
    match others {
        true => port::ring(Doorbell::Submit),
        false => port::idle(&mut section),
    }
    section.look();
    loop {
        if let Some(reply) = section.end_host_call(task) {
            section.reschedule();
            return Some(reply);
        }
        section.block();
        section.run();
    }
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
    ($name:expr, $signature:expr, $entry:expr, $priority:expr) => {
        #[used]
        #[unsafe(link_section = "cellule_exports")]
        static EXPORT: $crate::__private::Symbol =
            $crate::__symbol!(export, $name, $signature, $entry, $priority);
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
