//! What a sandbox may ask of its host: nothing, unless said here.
//!
//! A policy is a value and a file; nothing here acts. It says what is allowed,
//! how often, how large and how long; `cellule-channel` enforces that.
//!
//! * [`Policy`]: the value, and [`Verdict`], what it says of a call.
//! * [`Rules`]: of one host function, or of all of them together; [`Budgets`].
//! * [`Rate`] and [`Bucket`]: so much in a window of time, as a pure state machine.
//! * [`Document`]: a policy file with the places of its keys; [`ParseError`].
//! * [`Facts`] and [`Finding`]: static verification, before a VM exists.
//!
//! The file's schema is `SCHEMA.md` beside this crate.
//!
//! ```
//! use cellule_policy::{Facts, Policy, Verdict};
//!
//! let policy = Policy::from_toml(r#"
//!     [sandbox]
//!     alarm_after = 10
//!
//!     [function.weekday]
//!     allow = true
//!     argument_bytes = "4KiB"
//!     calls = { amount = 100, per = "1s" }
//! "#)?;
//! assert_eq!(policy.judge("weekday"), Verdict::Allow);
//! assert_eq!(Policy::from_toml(&policy.to_toml())?, policy);
//!
//! let findings = policy.verify(&Facts::default().imports(["weekdays"]));
//! let expected = "function `weekday`: the image imports no such function; did you mean `weekdays`?";
//! assert_eq!(findings[0].to_string(), expected);
//! # Ok::<(), cellule_policy::ParseError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

mod bucket;
mod finding;
mod log;
mod nearest;
mod policy;
mod rules;
mod text;
mod toml;
mod units;
mod verify;

pub use self::toml::{Defect, Document, ParseError, Position};
pub use bucket::{Bucket, Rate};
pub use cellule_audit::Verdict;
pub use finding::{Finding, Place};
pub use log::LogLevel;
pub use policy::Policy;
pub use rules::{Budgets, OnDenial, Recorded, Rules};
pub use verify::Facts;

/// The schema of a policy file, with an example that is read as one.
#[cfg(doctest)]
#[doc = include_str!("../SCHEMA.md")]
struct Schema;
