//! What the loader accepts, what it refuses, and that nothing makes it panic.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests: the sizes and offsets are written below"
)]

mod accepted;
mod cases;
mod corpus;
mod file;
mod hostile;
