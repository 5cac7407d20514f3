//! `cellule audit stats`.

use std::time::Duration;

use cellule::audit::Printable;
use cellule::audit::stats::{Calls, Stats};
use serde::Serialize;

use super::{Failed, Selection};

/// What is to be counted.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Print the numbers as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    records: u64,
    /// Calls whose start or end is not among the records, or that were too many.
    left_out: u64,
    functions: Vec<Function>,
}

/// One host function. Durations are within 1/16.
#[derive(Debug, Serialize)]
struct Function {
    function: String,
    allowed: u64,
    denied: u64,
    failed: u64,
    argument_bytes: u64,
    result_bytes: u64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
}

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let mut stats = Stats::default();
    options.selection.each(&options.selection.filter(), |record| {
        stats.add(record);
        Ok(())
    })?;
    let report = Report::of(&stats);
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report).map_err(super::fail)?),
        false => report.print(),
    }
    Ok(())
}

impl Report {
    fn of(stats: &Stats) -> Self {
        let functions = stats.functions().map(|(name, calls)| Function::of(name, calls)).collect();
        Self { records: stats.records(), left_out: stats.left_out(), functions }
    }

    fn print(&self) {
        let name = |function: &Function| Printable(&function.function).to_string();
        let names: Vec<_> = self.functions.iter().map(name).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(8);
        println!(
            "{:width$} {:>9} {:>9} {:>9} {:>12} {:>12} {:>10} {:>10}",
            "function", "allowed", "denied", "failed", "bytes in", "bytes out", "p50 us", "p99 us"
        );
        for (name, function) in names.iter().zip(&self.functions) {
            let Function { allowed, denied, failed, argument_bytes, result_bytes, .. } = function;
            let [p50, p99] = [function.p50_ns, function.p99_ns].map(micros);
            println!(
                "{name:width$} {allowed:>9} {denied:>9} {failed:>9} {argument_bytes:>12} \
                 {result_bytes:>12} {p50:>10} {p99:>10}"
            );
        }
        println!("{} records; {} calls left out", self.records, self.left_out);
    }
}

impl Function {
    fn of(name: &str, calls: &Calls) -> Self {
        let ns = |percent| calls.percentile(percent).map(|time| nanoseconds(&time));
        Self {
            function: name.to_owned(),
            allowed: calls.allowed,
            denied: calls.denied,
            failed: calls.failed,
            argument_bytes: calls.argument_bytes,
            result_bytes: calls.result_bytes,
            p50_ns: ns(50),
            p99_ns: ns(99),
        }
    }
}

fn nanoseconds(time: &Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), |ns| format!("{}.{}", ns / 1000, ns % 1000 / 100))
}
