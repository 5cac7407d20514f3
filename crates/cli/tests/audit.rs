//! `cellule audit` as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cellule::audit::{Audit, Digest, FileOptions, FileSink, Head, Kept, SealKey};
use cellule::{Event, HostError, Outcome, Verdict};
use serde_json::Value;
use tempfile::TempDir;

const SECRET: &[u8] = b"0123456789abcdef";

fn cellule(arguments: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellule"));
    command.arg("audit").args(arguments).args(files).output().expect("it runs")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn opened(request: u64, function: &str, verdict: Verdict) -> Event {
    let (function, arguments) = (function.into(), Kept::Nothing);
    Event::HostCallOpened { request, task: 1, function, argument_bytes: 10, arguments, verdict }
}

fn closed(request: u64, micros: u64) -> Event {
    let (outcome, result) = (Outcome::Replied { bytes: 4 }, Kept::Nothing);
    Event::HostCallClosed { request, outcome, result, took: Duration::from_micros(micros) }
}

/// Nine records of two sandboxes, sealed.
fn log(folder: &TempDir) -> (PathBuf, Head) {
    let path = folder.path().join("log");
    let key = SealKey::new("test", SECRET).unwrap();
    let sink = FileOptions::new().seal(key).create(&path).unwrap();
    let audit =
        |sandbox, sink: &FileSink| Audit::new(Box::new(sink.clone()), sandbox, Digest::default());
    let (mut one, mut two) = (audit(1, &sink), audit(2, &sink));
    for (request, micros) in [(1, 100), (2, 200), (3, 5000)] {
        one.record(opened(request, "weekday", Verdict::Allow)).unwrap();
        one.record(closed(request, micros)).unwrap();
    }
    one.record(opened(4, "\x1b[31mformat\n", Verdict::Deny(HostError::Denied))).unwrap();
    two.record(Event::Poisoned { cause: "a test".into() }).unwrap();
    two.record(Event::Dropped).unwrap();
    (path, sink.flush().unwrap())
}

#[test]
fn a_good_log_is_ok_with_its_key_and_its_head() {
    let folder = tempfile::tempdir().unwrap();
    let (path, head) = log(&folder);
    let key = folder.path().join("key");
    std::fs::write(&key, [SECRET, b"\n"].concat()).unwrap();
    let key = key.to_str().unwrap();
    let output =
        cellule(&["verify", "--key-file", key, "--head", &head.chain.to_string()], &[&path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output);
    assert!(text.starts_with("ok: 9 records of 2 sandboxes in 13 lines\n"), "{text}");
    assert!(text.contains("seals: good, up to the last line"), "{text}");
}

#[test]
fn a_broken_log_is_told_from_a_cut_one_and_from_a_wrong_command() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = log(&folder);
    let good = std::fs::read_to_string(&path).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let changed = write("changed", &good.replacen("\"request\":3", "\"request\":8", 1));
    let output = cellule(&["verify"], &[&changed]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("changed, line 7: this line was changed"), "{output:?}");
    let cut = write("cut", &good[..good.len() - 100]);
    let output = cellule(&["verify"], &[&cut]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("its last line is unfinished"), "{output:?}");
    assert_eq!(cellule(&["verify", "--open"], &[&cut]).status.code(), Some(0));
    let absent = folder.path().join("absent");
    for (arguments, file) in [
        (&["verify"][..], &absent),
        (&["verify", "--key-file", "/no/such/key"], &path),
        (&["verify", "--head", "abc"], &path),
        (&["show"], &absent),
    ] {
        let output = cellule(arguments, &[file]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn show_picks_records_and_escapes_what_a_guest_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = log(&folder);
    for (arguments, count) in [
        (&[][..], 9),
        (&["--sandbox", "2"], 2),
        (&["--function", "weekday"], 3),
        (&["--verdict", "denied"], 1),
        (&["--verdict", "allowed", "--since", "1", "--until", "4"], 2),
        (&["--event", "host_call_closed"], 3),
    ] {
        let all = [&["show", "--json"], arguments].concat();
        let output = cellule(&all, &[&path]);
        let records: Vec<Value> =
            text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), count, "{arguments:?}");
    }
    let shown = text(&cellule(&["show", "--verdict", "denied"], &[&path]));
    assert!(shown.contains("\\u{1b}[31mformat\\n") && !shown.contains('\x1b'), "{shown}");
}

#[test]
fn stats_count_calls_by_function() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = log(&folder);
    let report: Value =
        serde_json::from_slice(&cellule(&["stats", "--json"], &[&path]).stdout).unwrap();
    assert_eq!((&report["records"], &report["left_out"]), (&9.into(), &0.into()));
    let weekday = &report["functions"][1];
    assert_eq!(weekday["function"], "weekday");
    let count = |name: &str| weekday[name].as_u64().unwrap();
    assert_eq!(["allowed", "denied", "argument_bytes", "result_bytes"].map(count), [3, 0, 30, 12]);
    assert!((200_000..=212_500).contains(&count("p50_ns")), "{weekday}");
    assert_eq!(report["functions"][0]["denied"], 1);
    let table = text(&cellule(&["stats"], &[&path]));
    assert!(table.contains("weekday") && !table.contains('\x1b'), "{table}");
}
