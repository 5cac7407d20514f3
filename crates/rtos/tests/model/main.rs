//! The kernel and its objects against models that are too simple to be wrong,
//! under random operations; and the claims that randomness seldom meets.
//!
//! Who runs when is for the litmus scripts; here it is the kernel that chooses
//! who does the next random thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod futures;
mod groups;
mod lines;
mod mutexes;
mod queues;
mod random;
mod rendezvous;
mod tables;
mod timers;
mod world;
