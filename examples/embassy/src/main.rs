//! Runs firmware written for Embassy in a guest: in real time, and then an hour
//! of it at once, in virtual time.
//!
//! `cargo run --release -p embassy-tasks`
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cellule::{Backend, Image, Sandbox, Time};

/// The guest in `guest/`, as this package's build script compiled it.
const GUEST: &[u8] = include_bytes!(env!("CELLULE_GUEST_EMBASSY_GUEST"));

fn main() -> ExitCode {
    match embassy_tasks() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embassy-tasks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embassy_tasks() -> Result<(), Box<dyn Error>> {
    let image = Image::from_bytes(GUEST)?;

    let (sum, guest, host) = measure(&image, Time::Real, 20, Duration::from_millis(5))?;
    println!(
        "real time:    20 samples, sum {sum}, {guest:?} of the guest's, {host:?} of the host's"
    );
    assert_eq!(sum, (1..=20).sum::<u32>());
    // 20 times 5 ms, less a tick: it begins within one, and a tick is a microsecond.
    assert!((Duration::from_micros(99_999)..host).contains(&guest), "{guest:?}");

    let (sum, guest, host) = measure(&image, Time::Virtual, 3600, Duration::from_secs(1))?;
    println!(
        "virtual time: 3600 samples, sum {sum}, {guest:?} of the guest's, {host:?} of the host's"
    );
    assert_eq!(sum, (1..=3600).sum::<u32>());
    assert_eq!(guest, Duration::from_secs(3600), "to the nanosecond");
    assert!(host < guest);
    Ok(())
}

/// Has a new guest take samples. Returns their sum, and how long that took by the
/// guest's clock and by the host's.
fn measure(
    image: &Image,
    time: Time,
    count: u32,
    period: Duration,
) -> Result<(u32, Duration, Duration), Box<dyn Error>> {
    let mut sandbox =
        Sandbox::builder(image).time(time).backend(Backend::for_development()).build()?;
    let start = Instant::now();
    let (sum, took) = sandbox.call("measure", (count, period))?;
    Ok((sum, took, start.elapsed()))
}
