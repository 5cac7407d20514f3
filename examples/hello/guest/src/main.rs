//! Greets, and asks the host for the weekday.
#![no_std]
#![no_main]

use cellule_guest::prelude::*;

/// The day of the week, in English, if the host tells.
#[host_function]
fn weekday() -> Result<String, HostError>;

/// Greets whoever it is.
#[guest_function]
fn greet(name: &str) -> String {
    match weekday() {
        Ok(day) => format!("Hello, {name}! Happy {day}."),
        Err(reason) => {
            info!("no weekday: {reason}");
            format!("Hello, {name}! Have a nice day.")
        }
    }
}
