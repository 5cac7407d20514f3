//! Uses the shim as a backend would: through mshv-ioctls, with real guests.
//!
//! It starts itself again with the library preloaded, and then runs every case
//! in that process, as many VMs must work in one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]
#![allow(clippy::indexing_slicing, reason = "a test")]
#![allow(unsafe_code, reason = "guest memory, signals and fields of unions")]

mod guest;
mod limits;
mod registers;
mod runs;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const PRELOAD: &str = "LD_PRELOAD";
/// A claim, and what shows it.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    if !std::path::Path::new("/dev/kvm").exists() {
        println!("no /dev/kvm: the shim has nothing to stand on, skipped");
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(PRELOAD).is_none() {
        let again = std::env::current_exe().unwrap();
        let status = Command::new(again).env(PRELOAD, library()).status().unwrap();
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let all = [limits::CASES, registers::CASES, runs::CASES];
    for (name, case) in all.into_iter().flatten() {
        let start = std::time::Instant::now();
        case();
        println!("ok {name} ({} us)", start.elapsed().as_micros());
    }
    println!("all cases passed");
    ExitCode::SUCCESS
}

/// Builds the library, which cargo does not do for a test.
fn library() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The test is in `deps` of the profile's directory of the target directory.
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--lib", "--manifest-path", manifest, "--target-dir"]);
    assert!(build.arg(target).status().unwrap().success(), "the library should build");
    target.join("debug/libcellule_mshv_shim.so")
}
