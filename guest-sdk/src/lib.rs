//! What a guest of Cellule is written with.
//!
//! A guest is a `#![no_std] #![no_main]` program that runs in ring 3 of a
//! micro-VM, with no operating system under it. This crate is all it needs: the
//! entry point, the panic handler, the allocator, the `memcpy` family, and the
//! two attributes by which it meets its host:
//!
//! ```
//! // A guest program starts with `#![no_std]` and `#![no_main]`.
//! use cellule_guest::prelude::*;
//!
//! #[host_function]
//! fn weekday() -> Result<String, HostError>;
//!
//! #[guest_function]
//! fn greet(name: &str) -> String {
//!     match weekday() {
//!         Ok(day) => format!("Hello, {name}! Happy {day}."),
//!         Err(_) => format!("Hello, {name}!"),
//!     }
//! }
//! # // Without a host, a host function is unavailable.
//! # assert_eq!(greet("World"), "Hello, World!");
//! ```
//!
//! Guests are compiled by the build script of their host, with the crate
//! `cellule-build`, which passes `--cfg cellule_guest`. Without that flag this
//! is an ordinary library: a guest function is an ordinary function, a host
//! function answers [`HostError::Unavailable`], and the logic of a guest can be
//! tested on the developer's machine.
//!
//! # Tasks
//!
//! A guest has no operating system, and yet what a real-time one gives: [`task`]s
//! of fixed priority that preempt each other, [`sync`] to share and wait, [`message`]s,
//! [`timer`]s, [`time`]. All of it is in the guest: a switch is no exit. On the
//! developer's machine the same tasks run in virtual time.
//!
//! # Random numbers, and copies
//!
//! [`random`] draws from a seed that the host gives each sandbox, without an exit. A
//! guest that was restored from a snapshot or copied has a new seed, and another
//! [`generation()`], of which [`on_new_generation`] tells.
//!
//! # What costs what
//!
//! * A call of a guest function is one exit from the VM, and so is a call of a
//!   host function. A [`log`] record is none: it rides with the next exit.
//! * `&str` and `&[u8]` arguments lie where the host put them; a result that is
//!   a `String` or a `Vec<u8>` (also in an `Option` or a `Result`) is read by the
//!   host from where it is. Neither side loops over bytes.
//! * A switch of tasks, a semaphore, a lock, a queue, a message: tens to some
//!   hundred cycles and no exit. A guest that waits is one exit; a timer that
//!   interrupts a busy one is two: arming it, and the interrupt.
//! * A result is dropped when the next call begins: until then the host may
//!   read it.
//!
//! # Map of the crate
//!
//! `function` turns bytes into typed calls and back, `decode` reads the values,
//! `symbol` is the record by which the image lists a function. `channel` keeps
//! the rings and `outbox` the log records; both know neither addresses nor
//! assembly and are tested on the host. `kernel` is the scheduler of
//! `cellule-rtos` with stacks, a clock and a processor; `runtime/port` and
//! `standin/port` are what it stands on, in a guest and elsewhere; `trace` is what
//! it leaves for the host to see. `random` draws from the seed, `generation` tells of
//! a new one, `getrandom` is the face of that crate. `heap`, `bytes`, `exclusive` and
//! `text` are the allocator, `memcpy` and its family, the one lock, and a
//! text of fixed size. `runtime` exists in guests only: it gives all of this
//! its addresses, its linker symbols and its doorbell.
#![no_std]
#![allow(
    unsafe_code,
    reason = "a guest has no operating system under it: the entry point, the allocator, memcpy \
              and the shared page are here"
)]

#[doc(no_inline)]
pub extern crate alloc;
#[cfg(not(cellule_guest))]
extern crate std;

// The attributes write `::cellule_guest`; the tests of this crate use them too.
extern crate self as cellule_guest;

pub mod critical;
mod decode;
#[cfg(feature = "embassy")]
pub mod embassy;
#[cfg(feature = "embedded")]
pub mod embedded;
mod function;
pub mod future;
mod generation;
#[cfg(all(feature = "getrandom", cellule_guest))]
mod getrandom;
pub mod message;
pub mod pipe;
pub mod prelude;
pub mod random;
mod symbol;
pub mod sync;
pub mod task;
pub mod time;
pub mod timer;

// What a guest uses of these and a program on the host does not is no mistake.
#[cfg_attr(not(cellule_guest), allow(dead_code, reason = "used in guests"))]
mod channel;
#[cfg_attr(not(cellule_guest), allow(dead_code, unused_imports, reason = "used in guests"))]
mod kernel;
#[cfg_attr(not(cellule_guest), allow(dead_code, reason = "used in guests"))]
mod outbox;
#[cfg_attr(not(cellule_guest), allow(dead_code, reason = "used in guests"))]
mod text;
#[cfg_attr(not(cellule_guest), allow(dead_code, reason = "used in guests"))]
mod trace;

// The only choice between guest and host is here. These are a guest's, and
// their tests run on the host.
#[cfg(any(cellule_guest, test))]
mod bytes;
#[cfg(any(cellule_guest, test))]
mod exclusive;
#[cfg(any(cellule_guest, test))]
mod heap;

// These two have the same items.
#[cfg(cellule_guest)]
mod runtime;
#[cfg(not(cellule_guest))]
#[path = "standin/mod.rs"]
mod runtime;

use runtime::port;

#[doc(hidden)]
pub use cellule_abi as abi;
pub use cellule_abi::HostError;
pub use cellule_abi::schema::Schema;
pub use cellule_derive::SchemaForGuest as Schema;
pub use generation::{generation, on_new_generation};
#[doc(no_inline)]
pub use {log, serde};

/// Exports a function to the host.
///
/// Up to eight arguments of any types that are [`Schema`] and `Deserialize`;
/// those with lifetimes borrow from the memory in which the host put the
/// arguments. The result is any type that is [`Schema`] and `Serialize`; it may
/// borrow from the arguments too. A `Result` crosses as a value: an error is the
/// guest's answer, and not a failure of the call.
///
/// The function stays what it was: Rust code can call it.
///
/// ```
/// use cellule_guest::prelude::*;
///
/// #[guest_function]
/// fn longest<'a>(a: &'a str, b: &'a str) -> &'a str {
///     if a.len() < b.len() { b } else { a }
/// }
///
/// /// Under another name than Rust's:
/// #[guest_function(name = "math.divide")]
/// fn divide(dividend: u32, divisor: u32) -> Result<u32, String> {
///     dividend.checked_div(divisor).ok_or_else(|| format!("{dividend} / 0"))
/// }
///
/// assert_eq!(longest("red", "green"), "green");
/// assert_eq!(divide(1, 0).unwrap_err(), "1 / 0");
/// ```
///
/// What cannot be called from another machine is refused:
///
/// ```compile_fail
/// # use cellule_guest::prelude::*;
/// #[guest_function]
/// async fn later() {} // a call has no executor
/// ```
/// ```compile_fail
/// # use cellule_guest::prelude::*;
/// #[guest_function]
/// fn any<T>(value: T) {} // of which type would the bytes be?
/// ```
/// ```compile_fail
/// # use cellule_guest::prelude::*;
/// #[guest_function]
/// unsafe fn careful() {} // no caller could promise anything
/// ```
/// ```compile_fail
/// # use cellule_guest::prelude::*;
/// struct Opaque;
/// #[guest_function]
/// fn show(value: Opaque) {} // not a `Schema`
/// ```
pub use cellule_guest_macros::guest_function;

/// Declares a function of the host: a signature without a body.
///
/// It returns `Result<T, HostError>`, as the host may refuse any call; `T` is
/// what the host's function gives. Arguments may be references.
///
/// ```
/// use cellule_guest::prelude::*;
///
/// /// Reads a file, if the policy allows.
/// #[host_function]
/// pub fn read(path: &str, from: u64) -> Result<Option<Vec<u8>>, HostError>;
///
/// #[host_function(name = "clock.weekday")]
/// fn weekday() -> Result<String, HostError>;
///
/// // Here is no host.
/// assert_eq!(read("/etc/hosts", 0), Err(HostError::Unavailable));
/// assert_eq!(weekday(), Err(HostError::Unavailable));
/// ```
///
/// A declared function is listed in the image, called or not, and a host that
/// does not have it refuses the image.
///
/// ```compile_fail
/// # use cellule_guest::prelude::*;
/// #[host_function]
/// fn weekday() -> String; // and what if the policy denies it?
/// ```
/// ```compile_fail
/// # use cellule_guest::prelude::*;
/// #[host_function]
/// fn weekday() -> Result<String, HostError> { // the body is the host's
///     Err(HostError::Denied)
/// }
/// ```
pub use cellule_guest_macros::host_function;

/// What the attributes write, and nobody else.
#[doc(hidden)]
pub mod __private {
    pub use cellule_abi::Signature;

    pub use crate::function::{Call, Entry, HostResult};
    pub use crate::runtime::call_host;
    pub use crate::symbol::Symbol;
}
