//! Generators and oracles: what a hostile guest can send, and what the host
//! promises whatever was sent. `README.md` beside this crate tells how to run it.
//!
//! An oracle is an ordinary function that panics if a promise is broken; a fuzz
//! target does nothing but call one.
//!
//! * [`image`]: files to load. Oracle: [`image::check`].
//! * [`decode`]: the bytes of values. Oracle: [`decode::check`].
//! * [`guest`]: programs that a guest's side of the channel page runs.
//! * [`page`]: the channel page, with a guest that writes between two reads.
//! * [`host`]: the host's side. Oracle: [`host::run`].
//! * [`handlers`]: its host functions; [`watch`]: what they and the audit did;
//!   [`verdict`]: what should have happened.
//! * [`values`]: the types that cross.
#![forbid(unsafe_code)]

pub mod decode;
pub mod guest;
pub mod handlers;
pub mod host;
pub mod image;
pub mod page;
pub mod values;
pub mod verdict;
pub mod watch;
