//! Litmus scripts for the guest RTOS: the language, a reference model of the
//! scheduler, and a generator of scripts.
//!
//! A litmus script is a small program of tasks, semaphores, mutexes, queues and
//! event flags that runs in virtual time. The rules of scheduling determine its
//! trace fully, so a scheduler is right when its trace is equal, item for item,
//! to the one that [`run`] gives:
//!
//! ```
//! use cellule_litmus::{Script, run};
//!
//! let script = Script::parse(
//!     "sem s 0 1
//!      task W 6
//!        take s as r
//!      end
//!      task G 4
//!        work 3
//!        give s as given
//!      end",
//! )?;
//! assert_eq!(run(&script).to_string(), "given=ok@3 r=ok@3 end@3");
//! # Ok::<(), cellule_litmus::ParseError>(())
//! ```
//!
//! This crate is an oracle. It shares no code with the scheduler that it judges
//! and knows none of its neighbours: the scheduler's tests, and the example that
//! runs scripts in a sandbox, take the [`Script`] and the [`Trace`] from here
//! and compare. It needs an allocator and nothing else, so that a guest can
//! parse its scripts itself.
//!
//! # Map of the crate
//!
//! * [`script`]: the language as values, and the text of a script.
//! * [`parse`]: text to script, and everything that can be wrong with a text.
//! * [`trace`]: what a run leaves behind.
//! * [`model`]: the rules, word for word, without a thought for speed.
//! * [`generate`]: random scripts whose tasks get in each other's way.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

extern crate alloc;

pub mod generate;
pub mod model;
pub mod parse;
pub mod script;
pub mod trace;

pub use model::run;
pub use parse::{ParseError, Reason};
pub use script::{Action, Kind, Mode, Object, Operation, Script, TaskScript};
pub use trace::{Answer, Item, Trace};
