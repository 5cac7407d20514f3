//! The scripts in `scripts/`: their expected traces, and the errors of the
//! malformed ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};

use cellule_litmus::{Script, run};

/// The `.litmus` files of a folder beside `src`, with their text.
fn litmus_files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "litmus")).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_script_leaves_the_trace_that_it_expects() {
    let files = litmus_files("scripts");
    // The files that came with the rules: 01 to 18 and 20 to 25.
    assert_eq!(files.len(), 24);
    for (path, text) in files {
        let script = Script::parse(&text).unwrap();
        let expected = text.lines().find_map(|line| line.strip_prefix("expect ")).unwrap();
        let trace: Vec<_> = run(&script).0.iter().map(ToString::to_string).collect();
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(trace, expected, "{}", path.display());
    }
}

#[test]
fn every_script_is_equal_to_its_own_text() {
    for (path, text) in litmus_files("scripts") {
        let mut script = Script::parse(&text).unwrap();
        script.renumber();
        assert_eq!(Script::parse(&script.to_string()).unwrap(), script, "{}", path.display());
    }
}

/// The first line of a malformed script is `# ` and the message.
#[test]
fn every_malformed_script_gives_the_error_in_its_first_line() {
    let files = litmus_files("scripts/malformed");
    assert!(files.len() >= 60, "only {} malformed scripts", files.len());
    for (path, text) in files {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        let error = Script::parse(&text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{}", path.display());
    }
}
