//! Runs a litmus script: one task of the SDK for each of the script's, which
//! does its operations by the SDK's public primitives.

#![no_std]
#![no_main]

mod machine;

use cellule_guest::prelude::*;
use cellule_litmus::Script;

/// Runs a script and returns its trace, or which line is no script and why.
///
/// More urgent than any task of the script, so that none runs before all are
/// there; while they run, it waits.
#[guest_function(priority = 31)]
fn run(script: &str) -> Result<String, String> {
    let script = Script::parse(script).map_err(|error| error.to_string())?;
    machine::run(script).map(|trace| trace.to_string())
}
