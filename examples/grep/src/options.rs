//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use cellule::Schema;
use serde::Serialize;

use crate::lines::Show;

pub(crate) const USAGE: &str = "\
usage: grep [-c] [-i] [-n] [-v] [--seconds N] [--] PATTERN [FILE...]
  -c  print only how many lines are selected
  -i  ignore case
  -n  print line numbers
  -v  select the lines that do not match
  --seconds N  how long one call of the guest may take (default 10)";

/// What the guest is told besides the pattern; it has the same.
#[derive(Clone, Copy, Default, Serialize, Schema)]
pub(crate) struct Flags {
    ignore_case: bool,
    invert: bool,
    number: bool,
}

pub(crate) struct Options {
    pub(crate) pattern: String,
    pub(crate) flags: Flags,
    pub(crate) show: Show,
    pub(crate) limit: Duration,
    /// `-` is the standard input.
    pub(crate) files: Vec<OsString>,
}

/// The command line makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("there is no option {0:?}")]
    Unknown(OsString),
    #[error("--seconds takes a whole number of seconds, at least 1")]
    Seconds,
    #[error("the pattern is missing")]
    NoPattern,
    #[error("the pattern {0:?} is not UTF-8")]
    NotUtf8(OsString),
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let (mut flags, mut show, mut seconds) = (Flags::default(), Show::Lines, 10);
        let mut args = args.peekable();
        while let Some(option) = args.next_if(|arg| arg != "-" && starts_with_dash(arg)) {
            match option.to_str() {
                Some("--") => break,
                Some("-c") => show = Show::Count,
                Some("-i") => flags.ignore_case = true,
                Some("-n") => flags.number = true,
                Some("-v") => flags.invert = true,
                Some("--seconds") => {
                    let number = args.next().and_then(|arg| arg.to_str()?.parse().ok());
                    seconds = number.filter(|n| *n > 0).ok_or(UsageError::Seconds)?;
                }
                _ => return Err(UsageError::Unknown(option)),
            }
        }
        let pattern = args.next().ok_or(UsageError::NoPattern)?;
        let pattern = pattern.into_string().map_err(UsageError::NotUtf8)?;
        let mut files: Vec<_> = args.collect();
        if files.is_empty() {
            files.push("-".into());
        }
        let limit = Duration::from_secs(seconds);
        Ok(Self { pattern, flags, show, limit, files })
    }
}

fn starts_with_dash(arg: &OsString) -> bool {
    arg.as_encoded_bytes().starts_with(b"-")
}
