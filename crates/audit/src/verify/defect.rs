//! What can be wrong with a log.

use std::fmt;

use crate::read::Position;
use crate::text::Printable;

/// The first thing that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// Where it is: the line at which the log is not what it should be.
    pub at: Position,
    /// What is wrong.
    pub what: What,
    /// The record that this line says it is.
    pub record: Option<RecordName>,
    /// The last record before it: up to there all is well.
    pub after: Option<RecordName>,
}

/// A record, by its sandbox and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordName {
    /// The sandbox's number.
    pub sandbox: u64,
    /// The record's number.
    pub sequence: u64,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// The line does not fit its chain.
    #[error("this line was changed: it does not fit the chain")]
    Changed,
    /// Lines are missing.
    #[error("lines were dropped here: those with the numbers {from} to {to}")]
    Dropped {
        /// The first number.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The line that belongs here is elsewhere.
    #[error(
        "the lines were reordered: the one with number {number} belongs here, and is at {found}"
    )]
    Reordered {
        /// Its number.
        number: u64,
        /// Where it is.
        found: Position,
    },
    /// The line that belongs here comes later.
    #[error("this line was inserted: the one with number {number} belongs here, and is at {found}")]
    Inserted {
        /// Its number.
        number: u64,
        /// Where it is.
        found: Position,
    },
    /// The line was there before.
    #[error("this line was inserted: number {number} was there before")]
    Repeated {
        /// Its number.
        number: u64,
    },
    /// There are lines after the one that closes the log.
    #[error("this line was appended: the log was closed before it")]
    AfterEnd,
    /// The line fits, and is no line of a log.
    #[error("its writer did not write a line of a log here: {0}")]
    NotALine(String),
    /// The line fits, and has another number.
    #[error("its writer gave this line the number {found} in place of {expected}")]
    Number {
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A file's first line is not where it should be, or is where it should not.
    #[error("a file starts here, or should and does not: give all files of the log, in order")]
    Header,
    /// The format is another one.
    #[error("the log has format {found}; this program knows {known}", known = crate::line::FORMAT)]
    Format {
        /// Which.
        found: u32,
    },
    /// Too many sandboxes live at a time.
    #[error("more than {most} sandboxes live here at a time: no log of ours has so many")]
    TooManySandboxes {
        /// How many may.
        most: usize,
    },
    /// A sandbox begins twice.
    #[error("its writer began sandbox {sandbox} a second time")]
    BegunTwice {
        /// Its number.
        sandbox: u64,
    },
    /// A sandbox was not begun.
    #[error("its writer recorded sandbox {sandbox}, which it had not begun or had ended")]
    NotBegun {
        /// Its number.
        sandbox: u64,
    },
    /// A record is not the next of its sandbox.
    #[error(
        "its writer left out a record: this should be number {expected} of its sandbox, and is {found}"
    )]
    Sequence {
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A record's link is not that of its content.
    #[error("its writer changed this record: its link is not that of what it says")]
    Link,
    /// The log was sealed with another key, or with none.
    #[error("the log says that it is sealed with {}, and not with the key {}", key_name(.found.as_deref()), Printable(.expected))]
    OtherKey {
        /// The key that was given.
        expected: String,
        /// What the log says.
        found: Option<String>,
    },
    /// A seal is not the key's.
    #[error(
        "this seal was not made with the key: something before it was changed, or the key is another"
    )]
    Seal,
    /// A seal is missing.
    #[error("this line has no seal, and must have one")]
    NoSeal,
    /// The line with the chain that was expected is not there.
    #[error(
        "the log ends without the line whose chain was expected: it was cut, or is another log"
    )]
    NoHead,
    /// There is no full line.
    #[error("there is no log: not one full line")]
    Empty,
}

fn key_name(key: Option<&str>) -> String {
    key.map_or_else(|| "no key".to_owned(), |key| format!("the key {}", Printable(key)))
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)?;
        if let Some(record) = self.record {
            write!(f, "; the line says that it is {record}")?;
        }
        match self.after {
            Some(after) => write!(f, "; all is well up to {after}"),
            None => write!(f, "; no record before it is good"),
        }
    }
}

impl std::error::Error for Defect {}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of sandbox {}", self.sequence, self.sandbox)
    }
}
