//! `cellule audit`: what a log says, and whether it is what was written.
//!
//! * `verify.rs`: `cellule audit verify`, which names the first defect.
//! * `show.rs`: `cellule audit show`, records one by one.
//! * `stats.rs`: `cellule audit stats`, host calls by function.

mod show;
mod stats;
mod verify;

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use cellule::audit::line::Line;
use cellule::audit::read::{ReadError, Reader};
use cellule::audit::verify::Source;
use cellule::audit::{Filter, Record};

/// What is to be done with a log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Says whether a log is what its writer wrote, and if not, where it first is
    /// not. Exits with 0 if it is, with 1 if it is not, with 2 if that cannot be said.
    Verify(verify::Options),
    /// Prints records. They are not checked: see `verify`.
    Show(show::Options),
    /// Prints calls, denials, bytes and durations by function.
    Stats(stats::Options),
}

/// The log, and which of its records.
#[derive(Debug, clap::Args)]
struct Selection {
    /// The files of one log, in their order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Only this sandbox.
    #[arg(long)]
    sandbox: Option<u64>,
    /// Only records with this sequence number or a later one.
    #[arg(long)]
    since: Option<u64>,
    /// Only records with this sequence number or an earlier one.
    #[arg(long)]
    until: Option<u64>,
}

/// A command failed for the reason given on standard error.
struct Failed;

/// Does it.
pub(crate) fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::Verify(options) => return verify::run(options),
        Command::Show(options) => show::run(options),
        Command::Stats(options) => stats::run(options),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

impl Selection {
    fn filter(&self) -> Filter {
        let Self { sandbox, since, until, .. } = *self;
        Filter { sandbox, since, until, ..Filter::default() }
    }

    /// Gives each record that the filter picks to `take`, in the log's order. Lines
    /// that are none are told on standard error, and counted.
    fn each(
        &self,
        filter: &Filter,
        mut take: impl FnMut(&Record) -> io::Result<()>,
    ) -> Result<(), Failed> {
        let mut reader = Reader::new(open(&self.files).map_err(fail)?);
        let mut unread = 0_u64;
        while let Some(text) = reader.next_line().map_err(fail)? {
            match text.parse().map(|numbered| numbered.line) {
                Ok(Line::Record(record)) if filter.picks(&record) => match take(&record) {
                    Ok(()) => {}
                    // Whoever reads our output has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => return Err(fail(error)),
                },
                Ok(_) => {}
                Err(_) => unread += 1,
            }
        }
        if unread > 0 {
            eprintln!("cellule: {unread} lines cannot be read: see `cellule audit verify`");
        }
        Ok(())
    }
}

fn open(files: &[PathBuf]) -> Result<Vec<Source>, ReadError> {
    files.iter().map(Source::open).collect()
}

fn fail(error: impl Display) -> Failed {
    eprintln!("cellule: {error}");
    Failed
}
