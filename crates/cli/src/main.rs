//! The `cellule` command.
//!
//! * `audit.rs`: `cellule audit`, what a log says, and whether it is what was written.
//! * `doctor.rs`: `cellule doctor`, what this machine can run sandboxes on.
//! * `inspect.rs`: `cellule inspect`, what a guest image is and wants.
//! * `machine.rs`: what the system says of itself.
//! * `policy.rs`: `cellule policy`, whether a policy file makes sense.
#![forbid(unsafe_code)]

mod audit;
mod doctor;
mod inspect;
mod machine;
mod policy;

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
    /// Checks and shows audit logs.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Says what a guest image exports and imports, where it lies in memory, and what
    /// a policy would have to allow.
    Inspect(inspect::Options),
    /// Checks policy files.
    #[command(subcommand)]
    Policy(policy::Command),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Doctor(options) => doctor::run(&options),
        Command::Audit(command) => audit::run(&command),
        Command::Inspect(options) => inspect::run(&options),
        Command::Policy(command) => policy::run(&command),
    }
}
