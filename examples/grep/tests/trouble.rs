//! Whatever goes wrong is said, ends with status 2, and costs one file at most.

mod support;

use std::fs::File;
use std::process::Stdio;

use support::{file, ours, program, prose, text, there_is_a_backend};

/// Runs the program with these arguments and gives its message, after a look at
/// its lines and its status, which is 2.
fn message(args: &[&str], lines: &str) -> String {
    let output = ours(args);
    let message = text(&output.stderr);
    assert_eq!(text(&output.stdout), lines, "{message}");
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

#[test]
fn a_pattern_that_is_none_is_explained() {
    if there_is_a_backend() {
        for (pattern, what) in [
            ("a(b", "unclosed group"),
            ("[z-a]", "invalid character class range"),
            (r"(a)\1", "backreferences are not supported"),
            ("*", "repetition operator missing expression"),
        ] {
            let said = message(&[pattern, "/dev/null"], "");
            assert!(said.contains("this pattern cannot be used"), "{said}");
            assert!(said.contains(what), "{said}");
        }
    }
}

#[test]
fn a_pattern_that_is_too_large_is_refused() {
    if there_is_a_backend() {
        let said = message(&["(a{1000}){1000}", "/dev/null"], "");
        assert!(said.contains("exceeds size limit"), "{said}");
        // 100,000 open groups would be as many frames on the guest's stack.
        let said = message(&[&"(".repeat(100_000), "/dev/null"], "");
        assert!(said.contains("this pattern cannot be used"), "{said}");
        let deep = format!("{}a{}", "(x?".repeat(60), ")*".repeat(60));
        assert_eq!(ours(&[&deep, "/dev/null"]).status.code(), Some(1), "60 should be possible");
    }
}

#[test]
fn a_pattern_without_end_costs_its_file_alone() {
    if there_is_a_backend() {
        // Without a period, or few states would be met.
        let slow: Vec<_> = prose(1 << 20).iter().map(|byte| b'a' + byte % 2).collect();
        let slow = file("slow", &slow);
        let quick = file("quick", b"ab\n");
        let [slow, quick] = [&slow, &quick].map(|path| path.to_str().expect("it is UTF-8"));
        // 2^1000 states if determinized; if not, some 500 are looked at for each byte.
        let pattern = "^ab$|a[ab]{1000}[cd]";
        let said = message(&["--seconds", "1", pattern, slow, quick], &format!("{quick}:ab\n"));
        assert!(said.contains(slow) && said.contains("not over within its 1s"), "{said}");
        assert!(said.contains("more --seconds"), "{said}");
    }
}

#[test]
fn a_line_that_no_sandbox_can_hold_costs_its_file_alone() {
    if there_is_a_backend() {
        let endless = file("endless", b"");
        File::create(&endless).and_then(|file| file.set_len(160 << 20)).expect("a sparse file");
        let short = file("short", b"short\n");
        let [endless, short] = [&endless, &short].map(|path| path.to_str().expect("it is UTF-8"));
        let said = message(&["s", endless, short], &format!("{short}:short\n"));
        assert!(said.contains(endless) && said.contains("out of memory"), "{said}");
        assert!(said.contains("must not be longer than 32 MiB"), "{said}");
    }
}

#[test]
fn the_longest_line_that_is_promised_is_printed() {
    if there_is_a_backend() {
        let line = [vec![b'x'; (32 << 20) - 1], b"\n".to_vec()].concat();
        let output = ours(&["x".as_ref(), file("longest", &line).as_os_str()]);
        assert_eq!(text(&output.stderr), "");
        assert!(output.stdout == line, "{} bytes", output.stdout.len());
    }
}

#[test]
fn a_file_that_cannot_be_read_costs_itself_alone() {
    if there_is_a_backend() {
        let there = file("there", b"here\n");
        let there = there.to_str().expect("it is UTF-8");
        let directory = env!("CARGO_TARGET_TMPDIR");
        let said = message(&["h", "/not/there", directory, there], &format!("{there}:here\n"));
        assert!(said.contains("grep: /not/there: No such file or directory"), "{said}");
        assert!(said.contains(&format!("grep: {directory}: Is a directory")), "{said}");
    }
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    if there_is_a_backend() {
        let long = file("long", &prose(4 << 20));
        let mut grep = program();
        grep.args(["".as_ref(), long.as_os_str()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = grep.spawn().expect("the program runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(text(&output.stderr), "", "there should be no message, and no panic");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_command_line_without_sense_gets_the_usage() {
    for (args, what) in [
        (&["-x", "a"][..], "there is no option \"-x\""),
        (&[], "the pattern is missing"),
        (&["--seconds", "0", "a"], "--seconds takes a whole number"),
        (&["--seconds"], "--seconds takes a whole number"),
    ] {
        let said = message(args, "");
        assert!(said.contains(what) && said.contains("usage: grep"), "{said}");
    }
}
