//! `cellule audit verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellule::audit::line::Line;
use cellule::audit::read::Reader;
use cellule::audit::{Digest, End, Expected, SealKey, Verified, VerifyError};

/// How it is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The files of one log, in their order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The file with the key that sealed the log. One line end after it is left out.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The chain of one of its lines, as the writer told it.
    #[arg(long, value_name = "HEX")]
    head: Option<Digest>,
    /// Accept a log that was not closed, as one that is still being written.
    #[arg(long)]
    open: bool,
}

const BROKEN: u8 = 1;
const UNKNOWN: u8 = 2;

pub(crate) fn run(options: &Options) -> ExitCode {
    match check(options) {
        Ok(verified) => judge(&verified, options),
        Err(Unchecked::Log(VerifyError::Broken(defect))) => {
            println!("BROKEN: {defect}");
            ExitCode::from(BROKEN)
        }
        Err(Unchecked::Log(VerifyError::Read(error))) => unknown(&error.to_string()),
        Err(Unchecked::Key(error)) => unknown(&error),
    }
}

fn unknown(error: &str) -> ExitCode {
    eprintln!("cellule: {error}");
    ExitCode::from(UNKNOWN)
}

/// Why there is no verdict, or a bad one.
enum Unchecked {
    Log(VerifyError),
    Key(String),
}

fn check(options: &Options) -> Result<Verified, Unchecked> {
    let key = match &options.key_file {
        Some(file) => Some(key(file, &options.files).map_err(Unchecked::Key)?),
        None => None,
    };
    let expected = Expected { key: key.as_ref(), head: options.head };
    let sources = super::open(&options.files).map_err(|error| Unchecked::Log(error.into()))?;
    cellule::audit::verify(sources, expected).map_err(Unchecked::Log)
}

/// The key in a file, under the name that the log gives it.
fn key(file: &Path, log: &[PathBuf]) -> Result<SealKey, String> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let mut reader = Reader::new(super::open(log).map_err(|error| error.to_string())?);
    let first = reader.next_line().map_err(|error| error.to_string())?;
    let id = match first.and_then(|text| text.parse().ok()).map(|numbered| numbered.line) {
        Some(Line::Log(header)) => header.key,
        _ => None,
    };
    SealKey::new(id.unwrap_or_else(|| shown.to_string()), bytes)
        .map_err(|error| format!("{shown}: {error}"))
}

/// Says how a log without a defect ends, and whether that will do.
fn judge(verified: &Verified, options: &Options) -> ExitCode {
    let Verified { lines, records, sandboxes, unsealed, head, end, .. } = verified;
    let end = match end {
        End::Closed => None,
        End::Open => Some(format!("it was not closed after line number {}", head.number)),
        End::Unfinished { at, bytes } => {
            Some(format!("its last line is unfinished: {bytes} bytes at {at}"))
        }
    };
    let verdict = if end.is_none() || options.open { "ok" } else { "CUT" };
    println!("{verdict}: {records} records of {sandboxes} sandboxes in {lines} lines");
    println!("head: {}", head.chain);
    match (&options.key_file, unsealed) {
        (None, _) => println!("seals: not checked; give --key-file"),
        (Some(_), 0) => println!("seals: good, up to the last line"),
        (Some(_), lines) => {
            println!("seals: good, but for the last {lines} lines, which have none")
        }
    }
    let Some(end) = end else { return ExitCode::SUCCESS };
    println!("end: {end}; its writer still runs or was killed, or the end was cut off");
    if options.open {
        return ExitCode::SUCCESS;
    }
    println!("give --open if that is known, and --head to know how far it went");
    ExitCode::from(BROKEN)
}
