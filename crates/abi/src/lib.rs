//! Everything that the host and a guest must agree on, and nothing else.
//!
//! `ABI.md` beside this crate is the specification; this crate is its code. It
//! has no `unsafe`, allocates only to encode values, and is linked by both
//! sides, so that a layout exists exactly once.
//!
//! * [`doorbell`]: the one way out of a guest, and what may be said there.
//! * [`page`]: the channel page that host and guest share.
//! * [`record`]: requests (guest to host) and completions (host to guest).
//! * [`clock`] and [`tasks`]: time without an exit; upcalls, task stacks, the trace.
//! * [`ring`]: the arithmetic of the two rings, with the checks.
//! * [`codes!`]: numbers on the wire, each enum with its inverse.
//! * [`status`]: the codes that cross to the guest in place of error text.
//! * [`note`] and [`symbol`]: what an image says of itself.
//! * [`schema`], [`shape`], [`wire`]: typed values, their description, their bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clock;
mod codes;
pub mod doorbell;
pub mod note;
pub mod page;
pub mod record;
pub mod ring;
pub mod schema;
pub mod shape;
pub mod status;
pub mod symbol;
pub mod tasks;
pub mod wire;

pub use cellule_derive::SchemaForAbi as Schema;
pub use schema::{Args, OwnedArgs, Schema};
pub use shape::{Shape, Signature};
pub use status::HostError;

/// The version of everything in this crate. A host refuses any other.
pub const ABI_VERSION: u32 = 2;

/// The size of a page in bytes: x86-64's smallest.
pub const PAGE_BYTES: usize = 4096;

/// The 64-bit FNV-1a hash, for stable ids of names and signatures.
///
/// Not for security: an image's author chooses both the name and the hash. The
/// constants are those of <http://www.isthe.com/chongo/tech/comp/fnv/>.
///
/// ```
/// assert_eq!(cellule_abi::fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
/// ```
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        hash = (hash ^ *first as u64).wrapping_mul(0x0100_0000_01b3);
        rest = tail;
    }
    hash
}

#[cfg(test)]
extern crate std;

// The derive writes `::cellule_abi`; tests and docs of this crate use it too.
#[cfg(test)]
extern crate self as cellule_abi;
