//! The `cellule` command.
//!
//! * `doctor.rs`: `cellule doctor`, what this machine can run sandboxes on.
//! * `machine.rs`: what the system says of itself.
#![forbid(unsafe_code)]

mod doctor;
mod machine;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Micro-VM sandboxes: what this machine can do.
#[derive(Debug, Parser)]
#[command(name = "cellule", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says which backends this machine has, which would be chosen and why, what
    /// they can do, and how to mend what is missing. Fails if none is usable.
    Doctor(doctor::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Doctor(options) => doctor::run(&options),
    }
}
