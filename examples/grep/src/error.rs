//! What can go wrong, and what to do then.

use std::io;

use cellule::{BuildError, CallError, GuestFault, LoadError, NoBackend};

use crate::options::{USAGE, UsageError};

/// Why nothing more can be searched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    #[error("{0}\n{USAGE}")]
    Usage(#[from] UsageError),
    #[error(transparent)]
    NoBackend(#[from] NoBackend),
    #[error(transparent)]
    Image(#[from] LoadError),
    /// The text is the guest's.
    #[error("this pattern cannot be used, correct or shorten it: {}", printable(.0))]
    Pattern(String),
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

/// Why one file was not searched to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error(transparent)]
    Input(io::Error),
    #[error(transparent)]
    Sandbox(#[from] BuildError),
    #[error("the search ended early, as {}{}", .0, advice(.0))]
    Call(#[from] CallError),
}

fn advice(error: &CallError) -> &'static str {
    match error {
        CallError::DeadlineExceeded { .. } => ": simplify the pattern or give it more --seconds",
        CallError::Guest(GuestFault::OutOfMemory { .. }) | CallError::ResultTooLarge { .. } => {
            ": a line must not be longer than 32 MiB"
        }
        _ => "",
    }
}

/// The guest's words, without power over a terminal.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(escape).collect()
}
