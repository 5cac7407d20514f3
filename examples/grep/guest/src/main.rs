//! Selects the lines of a text that a regular expression matches.
#![no_std]
#![no_main]

mod pattern;

use core::ops::Range;

use cellule_guest::prelude::*;
use memchr::{memchr, memchr_iter, memrchr};
use spin::Mutex;

use crate::pattern::{Flags, Pattern};

/// The search that is under way: one for each sandbox.
static SEARCH: Mutex<Option<Search>> = Mutex::new(None);

#[guest_function]
fn compile(pattern: &str, flags: Flags) -> Result<(), String> {
    let pattern = Pattern::new(pattern, flags)?;
    *SEARCH.lock() = Some(Search { pattern, flags, line: 0, rest: Vec::new() });
    Ok(())
}

/// Takes the next bytes of the text; gives the selected lines of what is whole.
#[guest_function]
fn feed(chunk: &[u8]) -> Vec<u8> {
    SEARCH.lock().as_mut().expect("compile comes first").feed(chunk)
}

/// Ends the text, with or without a line's end; gives the rest.
#[guest_function]
fn finish() -> Vec<u8> {
    let mut search = SEARCH.lock().take().expect("compile comes first");
    if search.rest.is_empty() { Vec::new() } else { search.feed(b"\n") }
}

struct Search {
    pattern: Pattern,
    flags: Flags,
    /// How many lines were passed.
    line: u64,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Search {
    fn feed(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let whole = memrchr(b'\n', chunk).map_or(0, |end| end + 1);
        let (mut lines, rest) = chunk.split_at(whole);
        if !self.rest.is_empty() && !lines.is_empty() {
            // The first line began in an earlier chunk.
            let (tail, others) = lines.split_at(memchr(b'\n', lines).map_or(0, |end| end + 1));
            let mut first = core::mem::take(&mut self.rest);
            first.extend_from_slice(tail);
            self.select(&first, &mut out);
            lines = others;
        }
        self.select(lines, &mut out);
        self.rest.extend_from_slice(rest);
        out
    }

    /// Adds the selected ones of whole lines to `out`.
    fn select(&mut self, lines: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        while from < lines.len() {
            let found = self.find(lines, from);
            self.pass(&lines[from..found.start], self.flags.invert, out);
            self.pass(&lines[found.clone()], !self.flags.invert, out);
            from = found.end;
        }
    }

    /// The first line at or after `from` that matches; none is at the end.
    fn find(&self, lines: &[u8], mut from: usize) -> Range<usize> {
        let Pattern { regex, literal } = &self.pattern;
        // One search finds the next line of many. No match spans lines, so its
        // end alone tells the line; after the last line's end there is none.
        let next = |from| match literal {
            Some(text) => text.find(&lines[from..]).map(|at| from + at),
            None => regex.shortest_match_at(lines, from).filter(|at| *at < lines.len()),
        };
        while let Some(at) = next(from) {
            let start = memrchr(b'\n', &lines[from..at]).map_or(from, |end| from + end + 1);
            let end = memchr(b'\n', &lines[at..]).map_or(lines.len(), |end| at + end + 1);
            if literal.is_none() || regex.is_match(&lines[start..end]) {
                return start..end;
            }
            from = end;
        }
        lines.len()..lines.len()
    }

    /// Goes past lines, all of which are selected or none.
    fn pass(&mut self, lines: &[u8], selected: bool, out: &mut Vec<u8>) {
        match (selected, self.flags.number) {
            (true, false) => out.extend_from_slice(lines),
            (false, false) => {}
            (false, true) => self.line += memchr_iter(b'\n', lines).count() as u64,
            (true, true) => lines.split_inclusive(|byte| *byte == b'\n').for_each(|line| {
                self.line += 1;
                out.extend_from_slice(format!("{}:", self.line).as_bytes());
                out.extend_from_slice(line);
            }),
        }
    }
}
