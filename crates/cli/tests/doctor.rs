//! `cellule doctor` as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

use cellule::Backend;
use serde_json::Value;

/// A doctor that is soon done.
fn doctor(arguments: &[&str], backend: &str) -> Output {
    cellule(&[&["doctor", "--rings", "20"], arguments].concat(), backend)
}

fn cellule(arguments: &[&str], backend: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellule"));
    command.args(arguments);
    command.env("CELLULE_BACKEND", backend).output().expect("it runs")
}

fn report(backend: &str) -> (Option<i32>, Value) {
    let output = doctor(&["--json"], backend);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("a report in JSON"))
}

#[test]
fn every_backend_is_in_the_report_with_its_round_trip_or_its_problem() {
    let (_, report) = report("auto");
    let backends = report["backends"].as_array().unwrap();
    let names: Vec<_> = backends.iter().map(|finding| finding["backend"].as_str()).collect();
    let all: Vec<_> = Backend::ALL.iter().map(|backend| Some(backend.name())).collect();
    assert_eq!(names, all);
    for finding in backends {
        let usable = finding["usable"].as_bool().unwrap();
        assert_eq!(finding["doorbell_ns"]["median"].as_u64().is_some_and(|ns| ns > 0), usable);
        assert_eq!(finding["problem"].is_string(), !usable, "{finding}");
    }
}

#[test]
fn a_backend_by_name_is_the_one_that_is_chosen() {
    for backend in Backend::ALL.iter().filter(|backend| backend.probe().is_ok()) {
        println!("backends: {backend}");
        let (code, report) = report(backend.name());
        assert_eq!((code, report["chosen"].as_str()), (Some(0), Some(backend.name())));
        assert!(report["because"].as_str().unwrap().contains("CELLULE_BACKEND"));
    }
}

#[test]
fn a_backend_that_does_not_exist_is_a_failure_with_the_names_that_do() {
    let (code, report) = report("vax");
    assert_eq!((code, report["chosen"].as_str()), (Some(1), None));
    let because = report["because"].as_str().unwrap();
    assert!(because.contains("\"vax\"") && because.contains("kvm"), "{because}");
}

#[test]
fn people_get_a_table_and_no_control_characters() {
    let output = doctor(&[], "va\u{1b}[31mx");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("doorbell us"), "{text}");
    assert!(text.contains("chosen: none"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn wrong_options_are_refused_with_the_right_ones() {
    let output = cellule(&["doctor", "--rings", "0"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 is not in 1..=1000000"));
}
