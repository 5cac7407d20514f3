use std::path::Path;
use std::time::Duration;

use cellule_abi::HostError;

use super::*;
use crate::event::{Event, Kept, Outcome, Verdict};
use crate::line;
use crate::options::{FileOptions, Sync};
use crate::sink::Audit;

/// Ten records of two sandboxes, in 14 lines without seals.
fn write(path: &Path, options: FileOptions) -> Head {
    let sink = options.create(path).unwrap();
    let policy = Digest::of(b"the policy");
    let mut one = Audit::new(Box::new(sink.clone()), 1, policy);
    let mut two = Audit::new(Box::new(sink.clone()), 2, policy);
    one.record(Event::Created { backend: "kvm".into() }).unwrap();
    two.record(Event::Created { backend: "kvm".into() }).unwrap();
    let deny = Verdict::Deny(HostError::Denied);
    for (request, verdict) in (0..).zip([Verdict::Allow, deny, Verdict::Allow]) {
        let opened = Event::HostCallOpened {
            request,
            task: 0,
            function: "weekday".into(),
            argument_bytes: 2,
            arguments: Kept::digest([b"a", b"b"]),
            verdict,
        };
        one.record(opened).unwrap();
        let outcome = Outcome::Replied { bytes: 3 };
        let (result, took) = (Kept::bytes([b"Mon", b""], 9), Duration::from_micros(40));
        one.record(Event::HostCallClosed { request, outcome, result, took }).unwrap();
    }
    two.record(Event::Dropped).unwrap();
    one.record(Event::Dropped).unwrap();
    sink.flush().unwrap()
}

fn key() -> SealKey {
    SealKey::new("test", b"0123456789abcdef").unwrap()
}

fn sealed() -> FileOptions {
    FileOptions::new().seal(key()).seal_every(5, Duration::from_secs(3600))
}

/// A log's bytes, and the head that its writer told.
fn log(options: FileOptions) -> (Vec<u8>, Head) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let head = write(&path, options);
    (std::fs::read(path).unwrap(), head)
}

fn check(bytes: &[u8]) -> Result<Verified, VerifyError> {
    verify([Source::bytes("log", bytes.to_vec())], Expected::default())
}

fn defect(outcome: Result<Verified, VerifyError>) -> Box<Defect> {
    match outcome {
        Err(VerifyError::Broken(defect)) => defect,
        other => panic!("this log should be broken: {other:?}"),
    }
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn a_log_is_what_its_writer_wrote() {
    let (bytes, head) = log(FileOptions::new());
    let verified = check(&bytes).unwrap();
    assert_eq!((verified.lines, verified.records, verified.sandboxes), (14, 10, 2));
    assert_eq!((verified.end, verified.unsealed), (End::Closed, 14));
    assert_eq!(head.number, 12, "all but the closing line, when it was flushed");
    let expected = Expected { head: Some(head.chain), key: None };
    assert!(verify([Source::bytes("log", bytes)], expected).is_ok());
}

#[test]
fn every_changed_byte_is_found_in_its_line() {
    let (bytes, _) = log(sealed());
    let mut line = 1;
    for at in 0..bytes.len() {
        for bit in [1_u8, 1 << 5] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            let Err(VerifyError::Broken(defect)) = check(&changed) else {
                // The last end of line: what is left says that it has no end.
                assert_eq!(at, bytes.len() - 1);
                continue;
            };
            assert_eq!(defect.at.line, line, "byte {at} bit {bit}: {defect}");
            // Without an end, two lines are one; of a changed number, it is the number.
            let one_of =
                matches!(defect.what, What::Changed | What::Dropped { .. } | What::Repeated { .. });
            assert!(one_of, "byte {at}: {defect}");
        }
        line += u64::from(bytes[at] == b'\n');
    }
}

#[test]
fn a_changed_last_line_end_leaves_an_unfinished_log() {
    let (mut bytes, _) = log(FileOptions::new());
    *bytes.last_mut().unwrap() = b'x';
    assert!(matches!(check(&bytes).unwrap().end, End::Unfinished { .. }));
}

#[test]
fn every_dropped_line_is_named_by_its_number() {
    let (bytes, _) = log(sealed());
    let all = lines(&bytes);
    for (number, _) in all.iter().enumerate().take(all.len() - 1) {
        let mut left = all.clone();
        left.remove(number);
        let defect = defect(check(&left.concat()));
        let number = number as u64;
        assert_eq!(defect.what, What::Dropped { from: number, to: number }, "{defect}");
        assert_eq!(defect.at.line, number + 1);
    }
    let without_last = &all[..all.len() - 1];
    assert_eq!(check(&without_last.concat()).unwrap().end, End::Open, "not closed, and it says so");
}

#[test]
fn every_repeated_swapped_or_inserted_line_is_named() {
    let (bytes, _) = log(FileOptions::new());
    let all = lines(&bytes);
    for number in 0..all.len() - 1 {
        let mut twice = all.clone();
        twice.insert(number, all[number].clone());
        let found = defect(check(&twice.concat()));
        assert_eq!(found.at.line, number as u64 + 2, "{found}");
        let mut swapped = all.clone();
        swapped.swap(number, number + 1);
        let found = defect(check(&swapped.concat()));
        let (at, expected) =
            (Position { file: "log".into(), line: number as u64 + 2 }, number as u64);
        assert_eq!(found.what, What::Reordered { number: expected, found: at }, "{found}");
        let mut inserted = all.clone();
        inserted.insert(number, b"{\"number\":3,\"line\":\"made up\"}\n".to_vec());
        let found = defect(check(&inserted.concat()));
        assert!(matches!(found.what, What::Inserted { .. } | What::Reordered { .. }), "{found}");
        assert_eq!(found.at.line, number as u64 + 1);
    }
    let after = [&*bytes, &*all[3]].concat();
    assert_eq!(defect(check(&after)).what, What::AfterEnd);
}

#[test]
fn a_log_cut_at_any_byte_has_no_end() {
    let (bytes, head) = log(FileOptions::new());
    for len in 0..bytes.len() {
        let cut = &bytes[..len];
        let full = lines(cut).iter().filter(|line| line.ends_with(b"\n")).count() as u64;
        match check(cut) {
            Ok(verified) => {
                assert_eq!(verified.lines, full);
                let is_whole = len == 0 || cut[len - 1] == b'\n';
                assert_eq!(verified.end == End::Open, is_whole, "{len} bytes: {:?}", verified.end);
                assert_ne!(verified.end, End::Closed);
            }
            Err(error) => assert_eq!((full, error.to_string().contains("no log")), (0, true)),
        }
    }
    let expected = Expected { head: Some(head.chain), key: None };
    let early = lines(&bytes)[..5].concat();
    let found = defect(verify([Source::bytes("log", early)], expected));
    assert_eq!(found.what, What::NoHead, "who kept the head knows that it was cut");
}

#[test]
fn a_chain_made_anew_does_not_fit_its_seals() {
    let (bytes, _) = log(sealed());
    let made_anew = remake(&bytes, "weekday", "weekend");
    assert_eq!(defect(check(&made_anew)).what, What::Link, "the links were not made anew");
    let made_anew = remake(&bytes, "\"previous\":null", "\"previous\":\"x\"");
    assert!(check(&made_anew).is_ok(), "without the key it looks as good as any");
    let key = key();
    let expected = Expected { key: Some(&key), head: None };
    let found = defect(verify([Source::bytes("log", made_anew)], expected));
    assert_eq!(found.what, What::Seal, "{found}");
    let verified = verify([Source::bytes("log", bytes)], expected).unwrap();
    assert_eq!((verified.unsealed, verified.end), (0, End::Closed));
}

/// Changes a text in every line, and makes the chain of the lines anew.
fn remake(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (mut chain, mut made) = (line::start(), Vec::new());
    for text in lines(bytes) {
        let (body, _) = line::split(text.strip_suffix(b"\n").unwrap()).unwrap();
        let body = std::str::from_utf8(body).unwrap().replace(from, to);
        chain = line::digest(chain, body.as_bytes());
        made.extend(format!("{body},\"chain\":\"{chain}\"}}\n").bytes());
    }
    made
}

#[test]
fn a_wrong_key_or_none_is_no_proof() {
    let others = [("test", "another key of 16"), ("other", "0123456789abcdef")];
    let (bytes, _) = log(sealed());
    for (id, secret) in others {
        let key = SealKey::new(id, secret.as_bytes()).unwrap();
        let expected = Expected { key: Some(&key), head: None };
        let found = defect(verify([Source::bytes("log", bytes.clone())], expected));
        assert!(matches!(found.what, What::Seal | What::OtherKey { .. }), "{found}");
    }
    let (bytes, _) = log(FileOptions::new());
    let key = key();
    let expected = Expected { key: Some(&key), head: None };
    let found = defect(verify([Source::bytes("log", bytes.clone())], expected));
    assert!(matches!(found.what, What::OtherKey { found: None, .. }), "{found}");
    let stripped =
        remake(&log(sealed()).0, ",\"seal\":{\"key\":\"test\",\"mac\":", ",\"x\":{\"m\":");
    let found = defect(verify([Source::bytes("log", stripped)], expected));
    assert!(matches!(found.what, What::Seal | What::NoSeal), "{found}");
}

/// The files of a log that begins a new one every few lines.
fn rotated(options: FileOptions) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    write(&path, options.rotate_bytes(1200).sync(Sync::EachRecord));
    let later = (1..).map(|number| folder.path().join(format!("log.{number}")));
    let paths = std::iter::once(path.clone()).chain(later);
    paths.map_while(|path| std::fs::read(path).ok()).collect()
}

fn sources(files: &[Vec<u8>]) -> Vec<Source> {
    let files = files.iter().enumerate();
    files.map(|(number, bytes)| Source::bytes(&format!("log.{number}"), bytes.clone())).collect()
}

#[test]
fn the_chain_goes_on_over_all_files_in_their_order_alone() {
    let files = rotated(sealed());
    assert!(files.len() >= 4, "{}", files.len());
    let key = key();
    let expected = Expected { key: Some(&key), head: None };
    let verified = verify(sources(&files), expected).unwrap();
    assert_eq!((verified.records, verified.end, verified.unsealed), (10, End::Closed, 0));
    let first = String::from_utf8(lines(&files[1])[0].clone()).unwrap();
    assert!(first.contains(r#""file":1,"name":"log.1","previous":"log""#), "{first}");
    let joined = verify([Source::bytes("all", files.concat())], expected);
    assert_eq!(joined.unwrap().records, 10, "one after the other they are one file");
    for number in 0..files.len() - 1 {
        let mut swapped = files.clone();
        swapped.swap(number, number + 1);
        let found = defect(verify(sources(&swapped), expected));
        assert!(matches!(found.what, What::Reordered { .. }), "{found}");
        let mut missing = files.clone();
        missing.remove(number);
        let found = defect(verify(sources(&missing), expected));
        assert!(matches!(found.what, What::Dropped { .. }), "{found}");
        let mut cut = files.clone();
        let shorter = cut[number].len() - 9;
        cut[number].truncate(shorter);
        let found = defect(verify(sources(&cut), expected));
        assert!(matches!(found.what, What::Changed), "{found}");
    }
    let first_only = verify(sources(&files[..1]), expected).unwrap();
    assert_eq!(first_only.end, End::Open, "it names another, which is not there");
}

#[test]
fn a_sandbox_cannot_be_taken_out_of_a_log() {
    let (bytes, _) = log(FileOptions::new());
    let is_of_two = |line: &Vec<u8>| String::from_utf8_lossy(line).contains("\"sandbox\":2");
    let left: Vec<_> = lines(&bytes).into_iter().filter(|line| !is_of_two(line)).collect();
    assert!(matches!(defect(check(&left.concat())).what, What::Dropped { .. }));
    let renumbered = left.iter().enumerate().map(|(number, line)| {
        let text = String::from_utf8(line.clone()).unwrap();
        let rest = text.split_once(',').unwrap().1.to_owned();
        format!("{{\"number\":{number},{rest}").into_bytes()
    });
    let made_anew = remake(&renumbered.collect::<Vec<_>>().concat(), "", "");
    assert!(check(&made_anew).is_ok(), "that is why there are seals and heads");
}

/// Hostile files: whatever is in them, they are read in bounded memory, without a panic.
#[test]
fn ten_thousand_mutated_logs_are_refused_or_read() {
    let bytes = lines(&log(sealed()).0)[..8].concat();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut found = 0;
    for _ in 0..10_000 {
        let mut mutated = bytes.clone();
        for _ in 0..=random(4) {
            let (at, to) = (random(mutated.len()), random(mutated.len()));
            match random(6) {
                0 => mutated[at] = u8::try_from(random(256)).unwrap(),
                1 => mutated.truncate(at.max(1)),
                2 => mutated.insert(at, b"\n{}[\"\\\0"[random(7)]),
                3 => drop(mutated.drain(at.min(to)..at.max(to))),
                4 => mutated.extend_from_within(at.min(to)..at.max(to)),
                _ => mutated.swap(at, to),
            }
            mutated.push(b'\n');
        }
        found += u32::from(check(&mutated).is_err());
        // Its lines are read one by one too, as `show` does.
        let mut reader = Reader::new([Source::bytes("log", remake_numbers(&mutated))]);
        while let Some(text) = reader.next_line().unwrap() {
            let _ = text.parse().map(|numbered| format!("{numbered:?}"));
        }
    }
    assert!(found > 9_000, "{found} of 10000 should have been found broken");
}

/// A mutated number that is still one.
fn remake_numbers(bytes: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(bytes).replace("\"sequence\":1", "\"sequence\":1e999").into_bytes()
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    let long = vec![b'x'; 3 * line::MOST_LINE_BYTES];
    let bytes = [&*long, b"\nshort\n"].concat();
    let mut reader = Reader::new([Source::bytes("log", bytes.clone())]);
    let text = reader.next_line().unwrap().unwrap();
    assert_eq!((text.bytes.len(), text.is_finished), (line::MOST_LINE_BYTES, false));
    assert_eq!(reader.next_line().unwrap().unwrap().bytes, b"short");
    assert_eq!(defect(check(&bytes)).what, What::Changed);
}

#[test]
fn a_defect_says_where_and_what_and_how_far_all_is_well() {
    let (bytes, _) = log(FileOptions::new());
    let changed = String::from_utf8(bytes).unwrap().replacen("\"request\":1,", "\"request\":9,", 1);
    let text = defect(check(changed.as_bytes())).to_string();
    let expected = "log, line 8: this line was changed: it does not fit the chain; the line says \
                    that it is record 3 of sandbox 1; all is well up to record 2 of sandbox 1";
    assert_eq!(text, expected);
}
