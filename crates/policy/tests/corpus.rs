//! Policy files, good and bad, one defect a file, with what is expected beside each.
//!
//! What is expected is committed, so that a change of a message is seen in review.
//! `CELLULE_BLESS=1 cargo test -p cellule-policy` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cellule_policy::{Document, Facts, Policy};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The image and host that all files are for.
fn facts() -> Facts {
    Facts::default()
        .imports(["weekday", "store:write"])
        .registered(["weekday", "store:write", "unused"])
        .deferred(["store:write"])
        .message_bytes(1 << 20)
}

/// All that is wrong with a file, a line each.
fn outcome(text: &str) -> String {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return format!("{error}\n"),
    };
    let line = |finding| {
        let position = document.position(&finding).expect("every finding is in the file");
        format!("{position}: {finding}\n")
    };
    document.policy().verify(&facts()).into_iter().map(line).collect()
}

/// The names of the policy files, sorted.
fn names() -> BTreeSet<String> {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let policies = files.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    policies.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn text(name: &str, extension: &str) -> String {
    fs::read_to_string(directory().join(format!("{name}.{extension}"))).unwrap_or_default()
}

#[test]
fn every_file_gives_what_is_expected_beside_it() {
    for name in names() {
        let found = outcome(&text(&name, "toml"));
        if std::env::var_os("CELLULE_BLESS").is_some() {
            fs::write(directory().join(format!("{name}.expected")), &found).unwrap();
        }
        assert_eq!(found, text(&name, "expected"), "{name}");
        assert_eq!(found.is_empty(), name.starts_with("good_"), "{name}");
    }
}

#[test]
fn every_expectation_has_its_file() {
    let expected = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let expected = expected.filter(|path| path.extension().is_some_and(|end| end == "expected"));
    let orphans: Vec<_> = expected.filter(|path| !path.with_extension("toml").exists()).collect();
    assert!(orphans.is_empty(), "{orphans:?}");
}

#[test]
fn what_can_be_read_can_be_written_and_read_again() {
    for name in names() {
        let Ok(policy) = Policy::from_toml(&text(&name, "toml")) else { continue };
        let written = policy.to_toml();
        assert_eq!(Policy::from_toml(&written).as_ref(), Ok(&policy), "{name}: {written}");
        assert_eq!(Policy::from_toml(&written).unwrap().canonical(), written.as_bytes());
    }
}

#[test]
fn expected_messages_control_no_terminal() {
    for name in names() {
        let shown = outcome(&text(&name, "toml"));
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{name}: {shown:?}");
    }
}

#[test]
fn two_ways_to_say_the_same_have_one_canonical_form() {
    let one = "[function.b]\nallow = true\ndeadline = \"1000ms\"\n[function.a]\nallow = true\n";
    let other = "function = { a = { allow = true }, b = { deadline = \"1s\", allow = true } }";
    let [one, other] = [one, other].map(|text| Policy::from_toml(text).unwrap());
    assert_eq!(one.canonical(), other.canonical());
    let text = "[function.a]\nallow = true\n\n[function.b]\nallow = true\ndeadline = \"1s\"\n";
    assert_eq!(one.to_toml(), text);
}

#[test]
fn names_of_any_kind_are_quoted_so_that_the_text_stays_toml() {
    let text = Policy::deny_all().allow("a\"b\\c\u{1b}\n").to_toml();
    assert_eq!(text, "[function.\"a\\\"b\\\\c\\u001B\\u000A\"]\nallow = true\n");
}

#[test]
fn no_prefix_of_a_file_and_no_changed_byte_makes_the_reader_panic() {
    let whole = text("good_every_key", "toml");
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let _: Result<Policy, _> = Policy::from_toml(&whole[..end]);
    }
    for at in 0..whole.len() {
        for byte in [b'"', b'{', b'=', b'.', b'[', b'\n', b'9', b'\\'] {
            let mut changed = whole.clone().into_bytes();
            changed[at] = byte;
            let _: Result<Policy, _> = Policy::from_toml(&String::from_utf8(changed).unwrap());
        }
    }
}
