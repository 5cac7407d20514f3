//! What the tests of the program share.
#![allow(dead_code, reason = "not every test file uses every helper")]
#![allow(clippy::expect_used, reason = "a test that cannot run has failed")]

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use cellule::{BACKEND_VARIABLE, Backend};

/// How much of a file goes to the guest in one call.
pub(crate) const CHUNK: usize = 1 << 20;

/// The program, ready to be run on the backend that this test runs on, about
/// which it then has nothing to say.
pub(crate) fn program() -> Command {
    let backend = Backend::for_development();
    let mut program = Command::new(env!("CARGO_BIN_EXE_grep"));
    program.env(BACKEND_VARIABLE, backend.probe().unwrap_or(backend).name());
    program
}

/// Runs the program; nothing is on its standard input.
pub(crate) fn ours(args: &[impl AsRef<OsStr>]) -> Output {
    program().args(args).stdin(Stdio::null()).output().expect("the program runs")
}

/// Runs the program with a file on its standard input.
pub(crate) fn ours_from(args: &[&str], input: &Path) -> Output {
    let input = File::open(input).expect("the input is there");
    program().args(args).stdin(input).output().expect("the program runs")
}

/// Runs the system's `grep -E`, bytes as bytes.
pub(crate) fn theirs(args: &[impl AsRef<OsStr>]) -> Output {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-E", "-a"]).args(args).stdin(Stdio::null());
    grep.output().expect("the system's grep runs")
}

/// Whether there is a grep to compare with; says on one line if there is none.
pub(crate) fn there_is_grep() -> bool {
    let version = Command::new("grep").arg("--version").output();
    if version.is_err() {
        println!("no grep on this machine, so this test compares nothing");
    }
    version.is_ok()
}

/// Whether there is a backend; says on one line which. If there is none, checks
/// that the program says so.
pub(crate) fn there_is_a_backend() -> bool {
    let missing = match Backend::for_development().probe() {
        Ok(backend) => {
            println!("backends: {backend}");
            return true;
        }
        Err(missing) => missing,
    };
    println!("backends: none, so this test checks only that grep says so: {missing}");
    let output = ours(&["pattern", "/dev/null"]);
    assert_eq!(text(&output.stderr), format!("grep: {missing}\n"));
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "nothing should be printed");
    false
}

/// Writes a file for one test.
pub(crate) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).expect("the test's directory is writable");
    path
}

/// Lines of small words that are the same in every run, so many bytes or a line more.
pub(crate) fn prose(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 12] =
        ["fox", "The", "the", "2026-11-23", "abc", "a\tc", "Zoe", "x_y", "a.c", "lazy", "(q)", "0"];
    let mut state = 1_u64;
    let mut random = |below: usize| {
        // Knuth's MMIX generator; the upper bits are the good ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut text = Vec::with_capacity(bytes + 200);
    while text.len() < bytes {
        let words: Vec<_> = (0..random(15)).map(|_| WORDS[random(WORDS.len())]).collect();
        text.extend_from_slice(words.join(" ").as_bytes());
        text.push(b'\n');
    }
    text
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
