//! `cellule audit show`.

use std::io::{self, BufWriter, Write};

use cellule::audit::{Decision, Filter, Record};

use super::{Failed, Selection};

/// What is to be shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Only calls of this function.
    #[arg(long)]
    function: Option<String>,
    /// Only host calls that were judged so.
    #[arg(long)]
    verdict: Option<Verdict>,
    /// Only events of this kind, as in the log: `host_call_opened`, `poisoned`.
    #[arg(long, value_name = "KIND")]
    event: Option<String>,
    /// Print each record as a line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Verdict {
    Allowed,
    Denied,
}

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let filter = Filter {
        function: options.function.clone(),
        verdict: options.verdict.map(|verdict| match verdict {
            Verdict::Allowed => Decision::Allowed,
            Verdict::Denied => Decision::Denied,
        }),
        kind: options.event.clone(),
        ..options.selection.filter()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if !options.json {
        let titles = ("sandbox", "record", "after us", "event");
        writeln!(out, "{:>7} {:>8} {:>12}  {}", titles.0, titles.1, titles.2, titles.3)
            .map_err(super::fail)?;
    }
    options.selection.each(&filter, |record| match options.json {
        true => json(record, &mut out),
        false => row(record, &mut out),
    })?;
    out.flush().map_err(super::fail)
}

fn json(record: &Record, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    writeln!(out)
}

/// What a guest wrote in it is escaped.
fn row(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let Record { sandbox, sequence, at, event, .. } = record;
    writeln!(out, "{sandbox:>7} {sequence:>8} {:>12}  {event}", at.as_micros())
}
