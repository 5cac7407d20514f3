//! Runs litmus scripts and prints one line for each: the file's name and its trace.
//!
//! `cargo run --release -p rt-litmus -- a.litmus b.litmus`. Without files, it
//! runs a script of its own and checks the trace.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use cellule::Image;
use rt_litmus::{Failure, image, run};

/// A more urgent task takes what this one gives, before it goes on.
const SCRIPT: &str = "
sem s 0 1
task W 6
  take s as got
end
task G 4
  work 3
  give s as gave
  mark after
end";

fn main() -> ExitCode {
    let image = match image() {
        Ok(image) => image,
        Err(error) => {
            eprintln!("rt-litmus: {error}");
            return ExitCode::FAILURE;
        }
    };
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        let trace = run(&image, SCRIPT).unwrap_or_else(|failure| format!("{failure:?}"));
        println!("{SCRIPT}\n\n{trace}");
        assert_eq!(trace, "gave=ok@3 got=ok@3 after@3 end@3");
        return ExitCode::SUCCESS;
    }
    // Every file is run, whatever came of those before.
    let failed = files.iter().filter(|file| !run_file(&image, file)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one file, and tells whether its trace is the script's.
fn run_file(image: &Image, file: &str) -> bool {
    let script = match std::fs::read_to_string(file) {
        Ok(script) => script,
        Err(error) => {
            println!("{file}: error: {error}");
            return false;
        }
    };
    let outcome = run(image, &script);
    match &outcome {
        Ok(trace) => println!("{file}: {trace}"),
        Err(Failure::Malformed(reason)) => println!("{file}: error: {reason}"),
        Err(Failure::Sandbox(error)) => println!("{file}: failed: {error}"),
    }
    outcome.is_ok()
}
