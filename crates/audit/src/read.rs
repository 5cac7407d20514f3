//! Reading log files, of which anybody may have changed every byte: in bounded
//! memory, without a panic.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor};
use std::path::Path;
use std::sync::Arc;

use crate::line::{MOST_LINE_BYTES, Numbered};

/// One file of a log.
pub struct Source {
    name: Arc<str>,
    reader: Box<dyn BufRead>,
}

/// Reads the lines of a log's files, one file after the other.
///
/// ```
/// use cellule_audit::read::{Reader, Source};
/// let mut reader = Reader::new([Source::bytes("log", b"{}\nno end".to_vec())]);
/// let first = reader.next_line()?.ok_or("a line")?;
/// assert!(first.is_finished && first.parse().is_err());
/// assert!(!reader.next_line()?.ok_or("another")?.is_finished);
/// assert!(reader.next_line()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    sources: VecDeque<Source>,
    /// Lines of the first source that were read.
    lines: u64,
    text: Vec<u8>,
}

/// A line of a file.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its bytes without the end of line; of one that is too long, the first.
    pub bytes: &'a [u8],
    /// Whether it has an end of line, and is not too long.
    pub is_finished: bool,
    /// Whether it is the last of all.
    pub is_last: bool,
}

/// A place in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file's name, as it was opened.
    pub file: Arc<str>,
    /// The line in this file, from 1.
    pub line: u64,
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name}: {source}")]
pub struct ReadError {
    /// Its name.
    pub name: String,
    /// What the system said.
    pub source: io::Error,
}

impl Source {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let name = path.as_ref().display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self { name: name.into(), reader: Box::new(BufReader::new(file)) }),
            Err(source) => Err(ReadError { name, source }),
        }
    }

    /// Bytes in place of a file.
    pub fn bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), reader: Box::new(Cursor::new(bytes)) }
    }
}

impl Reader {
    /// Reads these files, in this order.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self { sources: sources.into_iter().collect(), lines: 0, text: Vec::new() }
    }

    /// Reads a line; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the system cannot read a file.
    pub fn next_line(&mut self) -> Result<Option<Text<'_>>, ReadError> {
        loop {
            let Some(source) = self.sources.front_mut() else { return Ok(None) };
            let read = read_line(&mut source.reader, &mut self.text);
            match read.map_err(|error| source.error(error))? {
                None if self.sources.len() > 1 => {
                    self.sources.pop_front();
                    self.lines = 0;
                }
                None => return Ok(None),
                Some(is_finished) => {
                    self.lines += 1;
                    let is_last = self.is_last()?;
                    return Ok(Some(Text { bytes: &self.text, is_finished, is_last }));
                }
            }
        }
    }

    /// Where the line is that was read last.
    pub fn position(&self) -> Position {
        let file =
            self.sources.front().map_or_else(|| "".into(), |source| Arc::clone(&source.name));
        Position { file, line: self.lines }
    }

    /// Whether nothing is left in any file.
    fn is_last(&mut self) -> Result<bool, ReadError> {
        for source in &mut self.sources {
            let left = source.reader.fill_buf().map(|bytes| !bytes.is_empty());
            if left.map_err(|error| source.error(error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Source {
    fn error(&self, source: io::Error) -> ReadError {
        ReadError { name: self.name.to_string(), source }
    }
}

/// Reads up to the end of a line, and says whether there was one within the limit;
/// `None` if nothing is left. The rest of a line that is too long is skipped.
fn read_line(reader: &mut dyn BufRead, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
    text.clear();
    let mut any = false;
    loop {
        let found = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            found => found?,
        };
        if found.is_empty() {
            return Ok(any.then_some(false));
        }
        any = true;
        let end = found.iter().position(|byte| *byte == b'\n');
        let part = found.get(..end.unwrap_or(found.len())).unwrap_or_default();
        let room = MOST_LINE_BYTES.saturating_sub(text.len());
        let fits = part.len() <= room;
        text.extend(part.iter().take(room));
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(fits));
        }
    }
}

impl Text<'_> {
    /// What the line says.
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] if it is no line of a log.
    pub fn parse(&self) -> Result<Numbered, serde_json::Error> {
        serde_json::from_slice(self.bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", crate::text::Printable(&self.file), self.line)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}
