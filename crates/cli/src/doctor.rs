//! `cellule doctor`: what this machine can run sandboxes on.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use cellule::{BACKEND_VARIABLE, Backend, Examination, Isolation};
use serde::Serialize;

use crate::machine::Machine;

/// How it is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// How many round trips to measure on each backend.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rings: u32,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    machine: Machine,
    backends: Vec<Finding>,
    chosen: Option<&'static str>,
    /// Why that one, or why none.
    because: String,
    limits: Vec<String>,
}

/// One backend.
#[derive(Debug, Serialize)]
struct Finding {
    backend: &'static str,
    /// `hardware` or `process`.
    isolation: &'static str,
    usable: bool,
    /// Why it is not, and what to do.
    problem: Option<String>,
    #[serde(flatten)]
    abilities: Option<Abilities>,
}

#[derive(Debug, Serialize)]
struct Abilities {
    /// The register state that guests may use.
    vector_state: Vec<&'static str>,
    exact_dirty_pages: bool,
    doorbell_ns: RoundTrip,
}

/// Out of the guest and back in, nothing else, in nanoseconds.
#[derive(Debug, Serialize)]
struct RoundTrip {
    samples: usize,
    min: u64,
    median: u64,
    p99: u64,
}

/// Prints the report; fails if no backend is usable.
pub(crate) fn run(options: &Options) -> ExitCode {
    let report = Report::new(options.rings);
    if options.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => {
                eprintln!("cellule: the report is no JSON: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{report}");
    }
    if report.chosen.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Report {
    fn new(rings: u32) -> Self {
        let machine = Machine::read();
        let backends = Backend::ALL.iter().map(|backend| Finding::new(*backend, rings)).collect();
        let (chosen, because) = choice();
        let limits = machine.limits();
        Self { version: env!("CARGO_PKG_VERSION"), machine, backends, chosen, because, limits }
    }
}

/// What `Backend::Auto` is here, and why.
fn choice() -> (Option<&'static str>, String) {
    let named = std::env::var_os(BACKEND_VARIABLE);
    let named = named.filter(|name| !name.is_empty() && *name != *Backend::Auto.name());
    match (Backend::Auto.probe(), named) {
        (Ok(backend), Some(_)) => (Some(backend.name()), format!("{BACKEND_VARIABLE} names it")),
        (Ok(backend), None) => {
            (Some(backend.name()), "it is the first usable hypervisor of these".to_owned())
        }
        (Err(missing), _) => (None, missing.to_string()),
    }
}

impl Finding {
    fn new(backend: Backend, rings: u32) -> Self {
        let examined = backend.examine(rings);
        Self {
            backend: backend.name(),
            isolation: match backend.isolation() {
                Some(Isolation::Hardware) => "hardware",
                _ => "process",
            },
            usable: examined.is_ok(),
            problem: examined.as_ref().err().map(ToString::to_string),
            abilities: examined.ok().as_ref().map(Abilities::of),
        }
    }
}

impl Abilities {
    fn of(examined: &Examination) -> Self {
        Self {
            vector_state: states(examined.vector_state),
            exact_dirty_pages: examined.exact_dirty_pages,
            doorbell_ns: RoundTrip::of(&examined.doorbell),
        }
    }
}

/// The names of state components: Intel SDM volume 1, section 13.1.
fn states(vector_state: u64) -> Vec<&'static str> {
    const NAMES: [(u64, &str); 4] =
        [(1 << 0, "x87"), (1 << 1, "SSE"), (1 << 2, "AVX"), (0b1110_0000, "AVX-512")];
    // Without XSAVE there is what FXSAVE saves.
    let state = if vector_state == 0 { 0b11 } else { vector_state };
    NAMES.into_iter().filter(|(bits, _)| state & bits == *bits).map(|(_, name)| name).collect()
}

impl RoundTrip {
    /// Of samples in ascending order.
    fn of(samples: &[Duration]) -> Self {
        let ns = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = |percent| {
            let last = samples.len().saturating_sub(1);
            samples.get(last * percent / 100).map_or(0, ns)
        };
        Self { samples: samples.len(), min: at(0), median: at(50), p99: at(99) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || "unknown".to_owned();
        let Machine { kernel, processor, processors, .. } = &self.machine;
        writeln!(f, "cellule {}", self.version)?;
        writeln!(f, "  kernel     {}", kernel.clone().unwrap_or_else(unknown))?;
        let count = processors.map_or_else(unknown, |count| count.to_string());
        writeln!(f, "  processor  {}, {count} usable", processor.clone().unwrap_or_else(unknown))?;
        let modules = match self.machine.kvm_modules.as_slice() {
            [] => "none".to_owned(),
            some => some.join(", "),
        };
        let extension = self.machine.extension.unwrap_or("no extension for virtual machines");
        writeln!(f, "  virtual    {extension}; KVM modules: {modules}")?;
        writeln!(
            f,
            "\n{:9}{:11}{:8}{:>28}",
            "backend", "isolation", "usable", "doorbell us (p50, p99)"
        )?;
        for finding in &self.backends {
            writeln!(f, "{finding}")?;
        }
        match self.chosen {
            Some(chosen) => writeln!(f, "\nchosen: {chosen}, as {}", self.because)?,
            None => writeln!(f, "\nchosen: none: {}", self.because)?,
        }
        self.problems(f)?;
        if !self.limits.is_empty() {
            writeln!(f, "\nknown limits")?;
        }
        self.limits.iter().try_for_each(|limit| writeln!(f, "  {limit}"))
    }
}

impl Report {
    fn problems(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems =
            self.backends.iter().filter_map(|finding| Some((finding, finding.problem.as_ref()?)));
        for (number, (finding, problem)) in problems.enumerate() {
            let heading = if number == 0 { "\nproblems\n" } else { "" };
            writeln!(f, "{heading}  {}: {problem}", finding.backend)?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usable = if self.usable { "yes" } else { "no" };
        write!(f, "{:9}{:11}{usable:8}", self.backend, self.isolation)?;
        let Some(Abilities { vector_state, exact_dirty_pages, doorbell_ns }) = &self.abilities
        else {
            return write!(f, "{:>28}", "-");
        };
        let us = |ns: u64| format!("{}.{:02}", ns / 1000, ns % 1000 / 10);
        write!(f, "{:>28}", format!("{}, {}", us(doorbell_ns.median), us(doorbell_ns.p99)))?;
        write!(f, "  {}", vector_state.join(" "))?;
        if *exact_dirty_pages { write!(f, ", exact dirty pages") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_components_have_names() {
        assert_eq!(states(0xe7), ["x87", "SSE", "AVX", "AVX-512"]);
        assert_eq!(states(0b111), ["x87", "SSE", "AVX"]);
        assert_eq!(states(0), ["x87", "SSE"], "without XSAVE there still is FXSAVE");
    }

    #[test]
    fn a_round_trip_is_told_by_order_statistics() {
        let samples: Vec<_> = (1..=101).map(Duration::from_nanos).collect();
        let RoundTrip { samples, min, median, p99 } = RoundTrip::of(&samples);
        assert_eq!((samples, min, median, p99), (101, 1, 51, 100));
        assert_eq!(RoundTrip::of(&[]).median, 0);
    }
}
