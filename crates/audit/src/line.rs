//! The lines of a log file, which have a chain of their own over their very bytes.
//!
//! A log is for any number of sandboxes. That each one's records are in order its
//! links say; that none of its lines is missing, nor a whole sandbox, this chain says.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::chain::{Digest, Origin};
use crate::record::Record;
use crate::seal::Seal;

/// The version of the format, in the first line of each file.
pub const FORMAT: u32 = 1;

/// The longest line that is read, in bytes: 1 MiB. The longest record takes 128 KiB,
/// and of these JSON makes six times as much at worst.
pub const MOST_LINE_BYTES: usize = 1 << 20;

/// What the first line's chain digests before the line.
const LOG_DOMAIN: &[u8] = b"cellule audit log 1\0";
/// What stands between a line and its chain.
const MARK: &[u8] = b",\"chain\":\"";
/// What stands behind it.
const CLOSE: &[u8] = b"\"}";
/// A digest in hexadecimal.
const DIGITS: usize = 64;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first line of a file.
    Log(Header),
    /// A sandbox begins.
    Sandbox(Origin),
    /// A record of one.
    Record(Record),
    /// A seal of all before it.
    Seal(Seal),
    /// The last line of a file: the log goes on in another.
    Rotated {
        /// The name of that file.
        next: String,
        /// A seal of all before it.
        seal: Option<Seal>,
    },
    /// The last line of a log.
    Closed {
        /// A seal of all before it.
        seal: Option<Seal>,
    },
}

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format's version: [`FORMAT`].
    pub format: u32,
    /// Which file of the log this is, from 0.
    pub file: u64,
    /// Its name when it was written.
    pub name: String,
    /// The name of the file before it.
    pub previous: Option<String>,
    /// When it was opened, in nanoseconds since 1970.
    pub opened_ns: u64,
    /// The name of the key that seals it.
    pub key: Option<String>,
}

/// A line and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Numbered {
    /// Counts the lines of a log from 0, over all its files.
    pub number: u64,
    /// What it says.
    #[serde(flatten)]
    pub line: Line,
}

/// What the chain starts from.
pub(crate) fn start() -> Digest {
    Digest::of(LOG_DOMAIN)
}

/// Appends a line's text, end of line included, and returns its chain.
pub(crate) fn append(
    to: &mut Vec<u8>,
    before: Digest,
    number: u64,
    line: &Line,
) -> std::io::Result<Digest> {
    let begin = to.len();
    write!(to, "{{\"number\":{number}")?;
    let body = to.len();
    serde_json::to_writer(&mut *to, line)?;
    // One object, not two: `{"number":7` and `{"line":...}` become one.
    if let Some(brace) = to.get_mut(body) {
        *brace = b',';
    }
    to.pop();
    let chain = digest(before, to.get(begin..).unwrap_or_default());
    to.extend(MARK);
    write!(to, "{chain}")?;
    to.extend(CLOSE);
    to.push(b'\n');
    Ok(chain)
}

/// Splits a line, without its end, into what is digested and the chain it carries.
pub(crate) fn split(line: &[u8]) -> Option<(&[u8], Digest)> {
    let line = line.strip_suffix(CLOSE)?;
    let (line, digits) = line.split_at_checked(line.len().checked_sub(DIGITS)?)?;
    let chain = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((line.strip_suffix(MARK)?, chain))
}

/// The chain of a line's text.
pub(crate) fn digest(before: Digest, text: &[u8]) -> Digest {
    Digest::of_segments([before.0.as_slice(), text])
}
