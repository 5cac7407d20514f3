//! A control loop of 1 kHz that does not wait for its log.
//!
//! Two tasks of a guest: the urgent one acts every millisecond, against a
//! deadline; the other one has the host write its log, and each line takes the
//! host 20 ms. It runs in real time, for a second, and then in virtual time, in
//! which nothing is ever late.
//!
//! `cargo run --release -p control-loop -- --trace out.json` also writes what the
//! tasks did in real time to a file, which <https://ui.perfetto.dev> shows.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cellule::{
    Backend, Event, Image, MemorySink, Outcome, Policy, ReplyHandle, Sandbox, Time, Trace, Trail,
    Verdict,
};

/// The guest in `guest/`, as this package's build script compiled it.
const GUEST: &[u8] = include_bytes!(env!("CELLULE_GUEST_CONTROL_LOOP_GUEST"));

const PERIOD: Duration = Duration::from_millis(1);
const PERIODS: u32 = 1000;
/// From the beginning of a period.
const DEADLINE: Duration = Duration::from_micros(500);
/// The guest logs every 50th period.
const LINES: u32 = PERIODS / 50;
/// How long the host takes for a line.
const LINE_TAKES: Duration = Duration::from_millis(20);

/// What the guest returns: how late each period began, missed deadlines, bites of
/// the watchdog, lines written.
type Account = Result<(Vec<Duration>, u32, u32, u32), String>;

/// What came of a run.
struct Run {
    /// How late each period began, least first.
    lateness: Vec<Duration>,
    missed: u32,
    bites: u32,
    trace: Trace,
}

fn main() -> ExitCode {
    match control_loop() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("control-loop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn control_loop() -> Result<(), Box<dyn Error>> {
    let trace_to = trace_file()?;
    let image = Image::from_bytes(GUEST)?;

    let real = run(&image, Time::Real)?;
    print("real time", &real);
    if let Some(file) = trace_to {
        std::fs::write(&file, real.trace.to_chrome_json())?;
        println!("the trace is in {file}: open it in https://ui.perfetto.dev");
    }

    let exact = run(&image, Time::Virtual)?;
    print("virtual time", &exact);
    assert_eq!(exact.lateness, [Duration::ZERO; PERIODS as usize]);
    assert_eq!((exact.missed, exact.bites), (0, 0));
    Ok(())
}

/// The file of `--trace FILE`, if there is one.
fn trace_file() -> Result<Option<String>, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(None),
        [flag, file] if flag == "--trace" => Ok(Some(file.clone())),
        _ => Err("usage: control-loop [--trace FILE]".into()),
    }
}

/// Runs the guest in a new sandbox, and checks all that does not depend on time.
fn run(image: &Image, time: Time) -> Result<Run, Box<dyn Error>> {
    let (lines, to_write) = mpsc::channel::<(ReplyHandle<()>, String)>();
    let writer = thread::spawn(move || {
        #[expect(
            clippy::disallowed_methods,
            reason = "it orders nothing: it takes time, as a disk"
        )]
        let write = |(reply, line): (ReplyHandle<()>, String)| {
            thread::sleep(LINE_TAKES);
            reply.reply(());
            line
        };
        to_write.into_iter().map(write).collect::<Vec<_>>()
    });
    let (audit, trail) = MemorySink::new(1000);
    let mut sandbox = Sandbox::builder(image)
        .deferred_host_function("write_log", move |reply: ReplyHandle<()>, line: String| {
            // Should the writer be gone, the handle is dropped: the call fails.
            let _ = lines.send((reply, line));
        })
        .policy(Policy::deny_all().allow("write_log"))
        .audit(audit)
        .time(time)
        .trace(1 << 15)
        .backend(Backend::for_development())
        .build()?;

    let account: Account = sandbox.call("run", (PERIOD, PERIODS, DEADLINE))?;

    let (mut lateness, missed, bites, written) = account?;
    let trace = sandbox.trace();
    drop(sandbox);
    let log = writer.join().map_err(|_| "the writer panicked")?;
    let expected: Vec<_> = (1..=LINES).map(|line| format!("{} periods", line * 50)).collect();
    assert_eq!(log, expected, "no line should be lost, however long each takes");
    assert_eq!(lateness.len(), PERIODS as usize, "no period should be left out");
    assert_eq!((written, audited(&trail)), (LINES, (LINES, LINES)));
    lateness.sort_unstable();
    Ok(Run { lateness, missed, bites, trace })
}

/// How many host calls were allowed, and how many answered, according to the audit trail.
fn audited(trail: &Trail) -> (u32, u32) {
    trail.records().iter().fold((0, 0), |(allowed, answered), record| match record.event {
        Event::HostCallOpened { verdict: Verdict::Allow, .. } => (allowed + 1, answered),
        Event::HostCallClosed { outcome: Outcome::Replied { .. }, .. } => (allowed, answered + 1),
        _ => (allowed, answered),
    })
}

fn print(time: &str, run: &Run) {
    let Run { lateness, missed, bites, .. } = run;
    let at = |index: usize| lateness.get(index).copied().unwrap_or_default();
    let (least, median, most) = (at(0), at(lateness.len() / 2), at(lateness.len() - 1));
    println!("{time}: {PERIODS} periods of {PERIOD:?}, {LINES} log lines of {LINE_TAKES:?} each");
    println!("  began late by: min {least:?}, median {median:?}, max {most:?}");
    println!("  deadlines of {DEADLINE:?} missed: {missed}; bites of the watchdog: {bites}");
}
