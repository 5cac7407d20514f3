//! The selected lines of one file, on their way out.

use std::ffi::OsStr;
use std::io::{self, Write};

/// What to print of the selected lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Lines,
    Count,
}

pub(crate) struct Lines<'a, W> {
    out: &'a mut W,
    /// The file's name, if it is to be before each line.
    prefix: Option<&'a OsStr>,
    show: Show,
    count: usize,
}

impl<'a, W: Write> Lines<'a, W> {
    pub(crate) fn new(out: &'a mut W, prefix: Option<&'a OsStr>, show: Show) -> Self {
        Self { out, prefix, show, count: 0 }
    }

    /// Takes more of the lines.
    pub(crate) fn take(&mut self, lines: &[u8]) -> io::Result<()> {
        self.count += lines.iter().filter(|byte| **byte == b'\n').count();
        match (self.show, self.prefix) {
            (Show::Count, _) => Ok(()),
            (Show::Lines, None) => self.out.write_all(lines),
            (Show::Lines, Some(_)) => {
                lines.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| {
                    self.print_prefix()?;
                    self.out.write_all(line)
                })
            }
        }
    }

    /// There are no more; gives how many there were.
    pub(crate) fn end(mut self) -> io::Result<usize> {
        if self.show == Show::Count {
            self.print_prefix()?;
            writeln!(self.out, "{}", self.count)?;
        }
        Ok(self.count)
    }

    fn print_prefix(&mut self) -> io::Result<()> {
        let Some(name) = self.prefix else { return Ok(()) };
        self.out.write_all(name.as_encoded_bytes())?;
        self.out.write_all(b":")
    }
}
