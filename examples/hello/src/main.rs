//! Calls a guest that greets, and that asks its host for the weekday.
//!
//! The host decides what the guest may ask for, and keeps a record of what it
//! did: `cargo run --release -p hello`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::SystemTime;

use cellule::{Backend, Image, MemorySink, Policy, Sandbox};

/// The guest in `guest/`, as this package's build script compiled it.
const GUEST: &[u8] = include_bytes!(env!("CELLULE_GUEST_HELLO_GUEST"));

fn main() -> ExitCode {
    match hello() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hello() -> Result<(), Box<dyn Error>> {
    let image = Image::from_bytes(GUEST)?;
    let (audit, trail) = MemorySink::new(100);
    let mut sandbox = Sandbox::builder(&image)
        .host_function("weekday", || weekday(SystemTime::now()).to_owned())
        .policy(Policy::deny_all().allow("weekday"))
        .audit(audit)
        .backend(Backend::for_development())
        .build()?;

    let greeting: String = sandbox.call("greet", ("World",))?;

    println!("{greeting}\n\nWhat the host has on record:");
    for record in trail.records() {
        println!("  {record}");
    }
    let days = WEEKDAYS.map(|day| format!("Hello, World! Happy {day}."));
    assert!(days.contains(&greeting), "not a greeting: {greeting}");
    assert_eq!(sandbox.stats().exits, 2, "one for the host call, one for the return");
    Ok(())
}

/// From the first day of the epoch, which was a Thursday.
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The day of the week, in UTC.
fn weekday(now: SystemTime) -> &'static str {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() / (24 * 60 * 60);
    WEEKDAYS.into_iter().cycle().nth((day % 7) as usize).unwrap_or_default()
}
