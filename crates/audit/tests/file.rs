//! Log files as sandboxes write them: full queues, disks that refuse, a process
//! that is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellule_audit::read::{Reader, Source};
use cellule_audit::{
    Audit, Confirm, Digest, End, Event, Expected, FileError, FileOptions, FileSink, SealKey,
    SinkRefused, Sync, WhenFull, verify,
};

fn audit(sink: FileSink) -> Audit {
    Audit::new(Box::new(sink), 1, Digest::of(b"the policy"))
}

fn event() -> Event {
    Event::CallBegan { call: 1, function: "weekday".into() }
}

/// A log that goes into a pipe, which holds 64 KiB until somebody reads.
fn piped(options: FileOptions) -> (FileSink, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    (options.create(path).unwrap(), reader)
}

/// Records until the first refusal: the writer waits at a full pipe, or has had no
/// time, and the queue is full.
fn fill(audit: &mut Audit) -> u64 {
    let taken = std::iter::repeat_with(|| audit.record(event())).take_while(Result::is_ok);
    taken.count() as u64
}

#[test]
fn a_full_queue_refuses_at_once_if_told_to() {
    let (sink, mut reader) = piped(FileOptions::new().queue(8).when_full(WhenFull::Refuse));
    let mut full = audit(sink.clone());
    let taken = fill(&mut full);
    drop(full);
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    drop(sink);
    let bytes = reading.join().unwrap();
    let verified = verify([Source::bytes("pipe", bytes)], Expected::default()).unwrap();
    assert!(verified.records >= taken, "{} of {taken} were taken", verified.records);
    assert_eq!(verified.end, End::Closed, "what was refused left no gap");
}

#[test]
fn a_full_queue_waits_as_long_as_told_and_no_longer() {
    let limit = Duration::from_millis(30);
    let (sink, mut reader) = piped(FileOptions::new().queue(8).when_full(WhenFull::Wait(limit)));
    let mut full = audit(sink);
    let waited = loop {
        let before = Instant::now();
        if full.record(event()).is_err() {
            break before.elapsed();
        }
    };
    assert!(waited >= limit, "it should wait before it refuses");
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    while full.record(event()).is_err() {}
    drop(full);
    let source = Source::bytes("pipe", reading.join().unwrap());
    let verified = verify([source], Expected::default()).unwrap();
    assert_eq!(verified.end, End::Closed, "what was refused left no gap");
}

#[test]
fn after_a_write_error_nothing_is_taken_and_the_reason_is_told() {
    let (sink, reader) = piped(FileOptions::new().confirm(Confirm::Written));
    let mut failing = audit(sink.clone());
    failing.record(event()).unwrap();
    assert!(sink.failure().is_none());
    drop(reader);
    assert_eq!(failing.record(event()), Err(SinkRefused), "the pipe has no reader");
    assert_eq!(failing.record(event()), Err(SinkRefused), "and never will");
    let error = sink.flush().unwrap_err();
    let FileError::Stopped(cause) = &error else { panic!("{error:?}") };
    assert!(matches!(**cause, FileError::Refused { step: "write to", .. }), "{error}");
    assert!(error.to_string().starts_with("the log is no longer written: cannot write to /proc/"));
}

#[test]
fn a_queued_record_that_cannot_be_written_stops_all_later_ones() {
    let (sink, reader) = piped(FileOptions::new().sync(Sync::Never));
    let mut failing = audit(sink.clone());
    drop(reader);
    // Refused only if the writer has been there already, with the sandbox's origin.
    let _ = failing.record(event());
    sink.flush().unwrap_err();
    assert_eq!(failing.record(event()), Err(SinkRefused));
}

#[test]
fn a_log_that_cannot_begin_its_next_file_stops_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(folder.path().join("log.1"), "mine").unwrap();
    let options = FileOptions::new().rotate_bytes(1500).confirm(Confirm::Written);
    let sink = options.create(&path).unwrap();
    let mut failing = audit(sink.clone());
    let taken = fill(&mut failing);
    assert!(
        sink.failure().unwrap().to_string().contains("log.1 exists: a log is never written over")
    );
    drop(failing);
    drop(sink);
    let verified = verify([Source::open(&path).unwrap()], Expected::default()).unwrap();
    assert!(verified.records >= taken && verified.end == End::Open, "{verified:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("log.1")).unwrap(), "mine");
}

#[test]
fn a_log_is_never_written_over() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = FileSink::create(file.path()).unwrap_err();
    assert!(matches!(error, FileError::Exists { .. }), "{error}");
    let error = FileSink::create("/dev/full").unwrap_err().to_string();
    assert!(error.starts_with("cannot write to /dev/full: "), "{error}");
    let error = FileSink::create("/no/such/folder/log").unwrap_err().to_string();
    assert!(error.starts_with("cannot create /no/such/folder/log: "), "{error}");
}

#[test]
fn a_record_longer_than_the_limit_is_refused_and_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut audit = audit(FileSink::create(&path).unwrap());
    let long = |len| Event::CallFailed { call: 1, reason: "\0".repeat(len) };
    assert_eq!(audit.record(long(cellule_audit::MOST_RECORD_BYTES)), Err(SinkRefused));
    // 58 bytes are the record's other fields.
    audit.record(long(cellule_audit::MOST_RECORD_BYTES - 58)).unwrap();
    drop(audit);
    let verified = verify([Source::open(&path).unwrap()], Expected::default()).unwrap();
    assert_eq!((verified.records, verified.end), (1, End::Closed), "JSON makes six of each byte");
}

#[test]
fn a_seal_comes_when_its_time_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let key = SealKey::new("test", b"0123456789abcdef").unwrap();
    let options = FileOptions::new().seal(key.clone());
    let options =
        options.seal_every(u64::MAX, Duration::from_millis(1)).sync(Sync::Every(Duration::ZERO));
    let sink = options.create(&path).unwrap();
    let mut audit = audit(sink.clone());
    audit.record(event()).unwrap();
    let expected = Expected { key: Some(&key), head: None };
    let unsealed = || verify([Source::open(&path).unwrap()], expected).unwrap().unsealed;
    // The header, the sandbox, the record and the seal: it comes without another record.
    while sink.flush().unwrap().number < 3 {}
    assert_eq!(unsealed(), 0);
}

const CHILD: &str = "CELLULE_AUDIT_CHILD";

/// Not a test of its own: the process that
/// [`a_killed_writer_loses_nothing_that_was_confirmed`] kills.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let sink = FileOptions::new().confirm(Confirm::Written).rotate_bytes(50_000);
    let mut audit = audit(sink.create(path).unwrap());
    for taken in 1_u64.. {
        audit.record(event()).unwrap();
        println!("taken {taken}");
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap());
    let mut taken = told.lines().filter_map(|line| {
        line.unwrap().rsplit_once("taken ").map(|(_, number)| number.parse::<u64>().unwrap())
    });
    let confirmed = taken.find(|taken| *taken >= 500).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let confirmed = taken.last().unwrap_or(confirmed);
    let later = (1..).map(|number| folder.path().join(format!("log.{number}")));
    let sources = || {
        let paths = std::iter::once(path.clone()).chain(later.clone());
        paths.map_while(|path| Source::open(path).ok())
    };
    assert!(sources().count() > 1, "it was killed in a later file");
    let verified = verify(sources(), Expected::default()).unwrap();
    assert!(verified.records >= confirmed, "{} of {confirmed}", verified.records);
    assert_ne!(verified.end, End::Closed, "that the end is missing is said");
    let mut reader = Reader::new(sources());
    while reader.next_line().unwrap().is_some() {}
}
