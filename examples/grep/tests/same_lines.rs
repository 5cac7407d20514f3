//! The selected lines, and the status, are those of the system's `grep -E`.

mod support;

use std::path::PathBuf;
use std::sync::OnceLock;

use support::there_is_grep;
use support::{CHUNK, file, ours, ours_from, prose, text, theirs, there_is_a_backend};

/// Literals, classes, anchors, alternatives, repetitions; and whatever could
/// match a line's end if one looked at many lines at once.
const PATTERNS: &[&str] = &[
    "fox",
    "nowhere in the files",
    "fox|lazy|Zoe",
    "",
    "a",
    ".",
    "^",
    "$",
    "^$",
    "the.*$",
    "x*",
    "a[^b]c",
    "a[^b]*c",
    "[^a-z]+",
    "[^x]",
    r"\s+",
    r"\s",
    r"\S",
    r"\W",
    r"\W\w+\W",
    r"\bthe\b",
    r"\<a",
    r"c\>",
    "^fox",
    "fox$",
    "^(fox|the) ",
    "[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "(fox.*){3}",
    "[[:digit:]]+",
    "[[:space:]]",
    "[[:upper:]][[:lower:]]+$",
    "a.c",
    r"a\.c",
    r"\(q\)",
    "fo?x_?",
    "(the|The) (fox|Zoe)",
    "(a|ab)(c|bcd)$",
    "the\nZoe",
    "^the$\n^$",
    "end\r$",
    "\r",
    "fox.$",
    "thefox|xfox",
    "x{3,}y",
    "c$|^T",
];

/// The files, written once: the tests of this file run at the same time.
fn files() -> &'static [PathBuf] {
    static FILES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FILES.get_or_init(write_files)
}

fn write_files() -> Vec<PathBuf> {
    let line = |bytes: usize, end: &str| [&vec![b'x'; bytes], end.as_bytes()].concat();
    let many = prose(CHUNK + CHUNK / 4);
    let long = [line(2 * CHUNK, " the fox\n"), line(CHUNK, "\nfox\n"), line(CHUNK, "y")];
    [
        ("empty", vec![]),
        ("one_empty_line", b"\n".to_vec()),
        ("empty_lines", vec![b'\n'; 1000]),
        ("no_line_end", b"the fox\nab\nabc".to_vec()),
        ("crlf", b"the fox\r\n\r\na\rc\r\nend\r\nlast end\r".to_vec()),
        ("nul_bytes", b"a\0c fox\0\n\0\n\0the\0\nabc\0".to_vec()),
        ("not_utf8", b"fox \xff\xfe abc\n\xc3( a \xe2\x82\nthe\n".to_vec()),
        ("across_lines", b"a\nc\na\n\nc\nab\nc\n \n\t\nb a\n c b\nx\ny\n".to_vec()),
        ("many", many),
        ("long_lines", long.concat()),
        // A line's end as a chunk's last byte, as the next one's first, beside them.
        ("end_at_chunk", [line(CHUNK - 1, "\nfox\nc\n"), line(CHUNK - 6, "\n")].concat()),
        ("end_after_chunk", line(CHUNK, "\nfox\nabc")),
        ("word_over_chunks", line(CHUNK - 1, "fox abc\nthe\n")),
        ("chunk_without_end", line(CHUNK, "")),
    ]
    .iter()
    .map(|(name, bytes)| file(name, bytes))
    .collect()
}

/// Compares the program with the system's grep, in lines and status.
fn compare(flags: &[&str], pattern: &str, files: &[PathBuf]) {
    let mut args: Vec<_> = flags.iter().map(Into::into).collect();
    args.extend(["--".into(), pattern.into()]);
    args.extend(files.iter().map(|file| file.clone().into_os_string()));
    let (ours, theirs) = (ours(&args), theirs(&args));
    let case = format!("{flags:?} {pattern:?} {files:?}");
    assert_eq!(text(&ours.stderr), "", "{case}: there should be no message");
    assert!(ours.stdout == theirs.stdout, "{case}: {}", difference(&ours.stdout, &theirs.stdout));
    assert_eq!(ours.status.code(), theirs.status.code(), "{case}: status");
}

/// The first lines that differ, or how many more there are.
fn difference(ours: &[u8], theirs: &[u8]) -> String {
    let lines = |bytes: &[u8]| bytes.split(|b| *b == b'\n').map(text).collect::<Vec<_>>();
    let (ours, theirs) = (lines(ours), lines(theirs));
    let pair = ours.iter().zip(&theirs).find(|(our, their)| our != their);
    pair.map_or_else(
        || format!("we print {} lines, grep {}", ours.len(), theirs.len()),
        |(our, their)| format!("we print {our:.200}, grep {their:.200}"),
    )
}

#[test]
fn every_pattern_selects_the_lines_that_grep_selects() {
    if there_is_a_backend() && there_is_grep() {
        let files = files();
        PATTERNS.iter().for_each(|pattern| compare(&[], pattern, files));
    }
}

#[test]
fn every_option_means_what_it_means_to_grep() {
    if there_is_a_backend() && there_is_grep() {
        let files = files();
        for flags in [&["-n"][..], &["-v"], &["-c"], &["-i"], &["-v", "-n"], &["-i", "-v", "-c"]] {
            ["the", "^$", "[^a]c|Q", r"\s$", "x$"].iter().for_each(|p| compare(flags, p, files));
        }
    }
}

#[test]
fn lines_of_a_single_file_have_no_name() {
    if there_is_a_backend() && there_is_grep() {
        files().chunks(1).for_each(|file| compare(&["-n"], "fox|^$|y$", file));
    }
}

#[test]
fn the_standard_input_is_a_file_too() {
    if there_is_a_backend() {
        let input = file("stdin", b"one\ntwo\nthree");
        for args in [&["-n", "t"][..], &["-n", "t", "-"]] {
            let output = ours_from(args, &input);
            assert_eq!(text(&output.stdout), "2:two\n3:three\n");
            assert_eq!(output.status.code(), Some(0));
        }
    }
}
