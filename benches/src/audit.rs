//! What the audit trail adds to a host call, in percent of a bare round trip.

use std::time::Instant;

use cellule::audit::{Audit, Confirm, Digest, FileOptions, FileSink, Kept, Sync};
use cellule::{
    Event, Image, MemorySink, Outcome, Policy, Record, Sandbox, Sink, SinkRefused, Verdict,
};
use cellule_benches::floor::Floor;
use cellule_benches::sample::{Effort, Operation, Samples, interleave};
use cellule_benches::subject::Failure;

/// Host calls in a sample: what is there once in a call is small beside them.
const CALLS: u32 = 10;

/// Pairs of records that are made to learn what making them takes.
const PAIRS: u32 = 10_000;

/// Forgets every record, which is still made, numbered and linked.
struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, _: &Record) -> Result<(), SinkRefused> {
        Ok(())
    }
}

/// Prints the table.
pub(crate) fn report(effort: Effort, floor: &Floor) -> Result<(), Failure> {
    let folder = Folder::new()?;
    let queued = FileOptions::new();
    let written = FileOptions::new().confirm(Confirm::Written).sync(Sync::Never);
    let mut sandboxes = [
        ("nowhere", -1.0, sandbox(Nowhere)?),
        ("memory", 5.0, sandbox(MemorySink::new(10_000).0)?),
        ("file, queued", 10.0, sandbox(folder.log(queued, "queued")?)?),
        ("file, written", -1.0, sandbox(folder.log(written, "written")?)?),
    ];
    let mut bell = floor.create()?;
    let mut contestants: Vec<Operation<'_>> = vec![Box::new(|| Ok(bell.ring()?))];
    for (_, _, sandbox) in &mut sandboxes {
        let double = sandbox.function::<(u64, u32), u64>("double_times")?;
        contestants.push(Box::new(move || match double.call(sandbox, (1, CALLS))? {
            doubled if doubled == 1 << CALLS => Ok(()),
            other => Err(format!("the guest's answer is wrong: {other}").into()),
        }));
    }
    let samples = interleave(effort, &mut contestants)?;
    drop(contestants);
    let [bell, samples @ ..] = &samples[..] else { return Err("five contestants".into()) };
    let nowhere = samples.first().ok_or("five contestants")?;
    let making_ns = making_ns()?;
    println!(
        "\naudit of a host call: two records, {:.2} us to make; a bare round trip: {:.1} us",
        making_ns / 1e3,
        bell.median_ns() / 1e3
    );
    println!(
        "{:<14} {:>14} {:>12} {:>8} {:>8}  budget",
        "sink", "host call us", "audit us", "p10", "p50"
    );
    for ((name, most, _), samples) in sandboxes.iter().zip(samples) {
        row(name, *most, making_ns, [bell, samples, nowhere]);
    }
    Ok(())
}

/// What numbering, digesting and linking the two records of a host call takes.
fn making_ns() -> Result<f64, Failure> {
    let mut audit = Audit::new(Box::new(Nowhere), 1, Digest::default());
    let function: std::sync::Arc<str> = "double".into();
    let began = Instant::now();
    for request in 0..u64::from(PAIRS) {
        audit.record(Event::HostCallOpened {
            request,
            task: 1,
            function: std::sync::Arc::clone(&function),
            argument_bytes: 8,
            arguments: Kept::Nothing,
            verdict: Verdict::Allow,
        })?;
        let outcome = Outcome::Replied { bytes: 8 };
        let took = began.elapsed();
        audit.record(Event::HostCallClosed { request, outcome, result: Kept::Nothing, took })?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / f64::from(PAIRS))
}

/// One sink: what it adds, and what making the records takes, which none can save.
fn row(name: &str, most: f64, making_ns: f64, [bell, samples, nowhere]: [&Samples; 3]) {
    let each = samples.median_ns() / f64::from(CALLS + 1);
    let over = samples.per_step_over(nowhere, CALLS + 1);
    let share = |over: f64, bell: f64| (over + making_ns) / bell * 100.0;
    let p10 = share(over.p10_ns(), bell.p10_ns());
    let p50 = share(over.median_ns(), bell.median_ns());
    let budget = match most {
        none if none < 0.0 => String::new(),
        most if p50 <= most => format!("<= {most} % met"),
        most => format!("<= {most} % MISSED"),
    };
    let added = (over.median_ns() + making_ns) / 1e3;
    println!("{name:<14} {:>14.2} {added:>12.2} {p10:>7.1}% {p50:>7.1}%  {budget}", each / 1e3);
}

/// A sandbox of the guest that calls the host function `double`.
fn sandbox(sink: impl Sink + 'static) -> Result<Sandbox, Failure> {
    let image = Image::from_bytes(cellule_test_guests::hosted())?;
    let builder = Sandbox::builder(&image).host_function("double", |n: u64| n.wrapping_mul(2));
    Ok(builder.policy(Policy::deny_all().allow("double")).audit(sink).build()?)
}

/// A folder in the system's temporary one, which goes when this does.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("cellule-audit-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    fn log(&self, options: FileOptions, name: &str) -> Result<FileSink, Failure> {
        Ok(options.create(self.0.join(name))?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
