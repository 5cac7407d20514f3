//! Prints the lines of files that a regular expression matches, as `grep -E`
//! does, with the expression in a sandbox.
//!
//! ```text
//! cargo run --release -p grep -- 'pattern' FILE...
//! ```
//!
//! Whoever wrote the pattern, and whatever it does to the engine that runs it:
//! it costs a sandbox. The status is grep's: 0 if a line was selected, 1 if
//! none was, 2 after an error.
//!
//! The expressions are those of the crate `regex`, which differ from `grep -E`
//! in this:
//!
//! * There are no back-references (`\1`). `[[:alpha:]]` and its like work, and
//!   mean ASCII; `\w`, `\b` and `.` mean Unicode, whatever the locale.
//! * In brackets, `\` escapes, `[` begins a class, and `&&`, `--` and `~~` are
//!   operators. `a+?` is the lazy `a+`, and no longer optional. A `*`, `+` or
//!   `{` with nothing before it is an error.
//! * There is more: `\d`, `\pL`, `(?i)`, `\t`. No line has a `\n` in it.
#![forbid(unsafe_code)]

mod error;
mod lines;
mod options;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::{env, process::ExitCode};

use cellule::{Backend, Image, Policy, Sandbox};

use crate::error::{Fatal, Trouble};
use crate::lines::Lines;
use crate::options::Options;

/// How much of a file goes to the guest in one call.
const CHUNK_BYTES: usize = 1 << 20;
/// The longest line that must be possible. It costs nothing until there is one.
const LINE_BYTES: u64 = 32 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        // Whoever read this has enough.
        Err(Fatal::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(2),
        Err(error) => {
            eprintln!("grep: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Fatal> {
    let options = Options::parse(env::args_os().skip(1))?;
    // Before any file is opened.
    Backend::for_development().probe()?;
    let image = Image::from_bytes(include_bytes!(env!("CELLULE_GUEST_GREP_GUEST")))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut count, mut troubles) = (0, 0);
    for name in &options.files {
        let prefix = (options.files.len() > 1).then_some(name.as_os_str());
        let mut lines = Lines::new(&mut out, prefix, options.show);
        match search(&image, &options, name, &mut lines) {
            Ok(()) => {}
            Err(Trouble::Fatal(fatal)) => return Err(fatal),
            // It cost one sandbox: the next file is searched in another.
            Err(trouble) => {
                eprintln!("grep: {}: {trouble}", name.display());
                troubles += 1;
            }
        }
        count += lines.end().map_err(Fatal::Output)?;
    }
    out.flush().map_err(Fatal::Output)?;
    Ok(ExitCode::from(if troubles > 0 { 2 } else { u8::from(count == 0) }))
}

/// Searches one file in a sandbox of its own.
///
/// The guest imports nothing and the policy allows nothing: all that it can do
/// is compute, and answer with bytes.
fn search(
    image: &Image,
    options: &Options,
    name: &OsStr,
    lines: &mut Lines<impl Write>,
) -> Result<(), Trouble> {
    let mut file = BufReader::with_capacity(CHUNK_BYTES, open(name).map_err(Trouble::Input)?);
    let mut sandbox = Sandbox::builder(image)
        .policy(Policy::deny_all())
        // A line that grows is there twice for a moment; a result is a third.
        .heap_bytes(4 * LINE_BYTES)
        .message_bytes(2 * LINE_BYTES)
        .backend(Backend::for_development())
        .build()?;
    let pattern = (options.pattern.as_str(), options.flags);
    let compiled: Result<(), String> = sandbox.call_within(options.limit, "compile", pattern)?;
    compiled.map_err(Fatal::Pattern)?;
    let feed = sandbox.function::<(&[u8],), Vec<u8>>("feed")?;
    loop {
        let chunk = file.fill_buf().map_err(Trouble::Input)?;
        if chunk.is_empty() {
            break;
        }
        let selected = feed.call_within(&mut sandbox, options.limit, (chunk,))?;
        lines.take(&selected).map_err(Fatal::Output)?;
        let bytes = chunk.len();
        file.consume(bytes);
    }
    let selected: Vec<u8> = sandbox.call_within(options.limit, "finish", ())?;
    Ok(lines.take(&selected).map_err(Fatal::Output)?)
}

fn open(name: &OsStr) -> io::Result<Box<dyn Read>> {
    match name.as_encoded_bytes() {
        b"-" => Ok(Box::new(io::stdin().lock())),
        _ => Ok(Box::new(File::open(name)?)),
    }
}
