//! `cellule policy check` and `cellule inspect` as a user runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cellule::Policy;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with the guest `hosted`, which imports `double`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("guest"), cellule_test_guests::hosted()).unwrap();
        Self(folder)
    }

    fn with_policy(text: &str) -> Self {
        let folder = Self::new();
        fs::write(folder.path("policy.toml"), text).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the command in the folder: exit code, output, errors.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellule"));
        let output = command.args(arguments).current_dir(self.0.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

const CHECK: [&str; 5] = ["policy", "check", "policy.toml", "--image", "guest"];

#[test]
fn a_policy_that_fits_says_what_it_allows_and_denies() {
    let folder = Folder::with_policy("[function.double]\nallow = true\n");
    let expected =
        "policy.toml: fits; of what the guest imports it allows double; it denies nothing\n";
    assert_eq!(folder.run(&CHECK), (Some(0), expected.to_owned(), String::new()));
    let folder = Folder::with_policy("");
    let expected =
        "policy.toml: fits; of what the guest imports it allows nothing; it denies double\n";
    assert_eq!(folder.run(&CHECK).1, expected);
}

#[test]
fn every_finding_is_a_line_with_the_place_it_comes_from() {
    let text =
        "[sandbox]\ncall_exits = 0\n\n[function.duoble]\nallow = true\n  deadline = \"0s\"\n";
    let (code, output, _) = Folder::with_policy(text).run(&CHECK);
    let expected = "\
policy.toml:2:1: sandbox: `call_exits` is 0, which no call can meet: raise it, or remove the rule
policy.toml:4:11: function `duoble`: the image imports no such function; did you mean `double`?
policy.toml:6:3: function `duoble`: `deadline` is 0, which no call can meet: raise it, or remove the rule
";
    assert_eq!((code, output.as_str()), (Some(1), expected));
}

#[test]
fn a_file_that_is_no_policy_is_refused_with_line_and_column() {
    let folder = Folder::with_policy("[function.double]\nallow = \"ja\"\n");
    let expected = "policy.toml:2:9: `function.double.allow` is \"ja\": must be true or false\n";
    assert_eq!(folder.run(&CHECK), (Some(1), expected.to_owned(), String::new()));
}

#[test]
fn what_cannot_be_read_is_a_failure_with_its_name() {
    let folder = Folder::with_policy("");
    let (code, output, _) = folder.run(&["policy", "check", "none.toml"]);
    assert_eq!((code, output.starts_with("none.toml: cannot be read: ")), (Some(1), true));
    let (code, output, _) =
        folder.run(&["policy", "check", "policy.toml", "--image", "policy.toml"]);
    assert_eq!((code, output.starts_with("not an acceptable guest image: ")), (Some(1), true));
    let (code, output, _) = folder.run(&["policy", "check", "policy.toml"]);
    assert_eq!((code, output.as_str()), (Some(0), "policy.toml: no contradictions\n"));
}

#[test]
fn names_in_a_policy_file_control_no_terminal() {
    let text = "[function.\"a\\u001B[31m\"]\nallow = true\n\"\\u001B\" = 1\n";
    let (_, output, _) = Folder::with_policy(text).run(&CHECK);
    assert!(output.contains("\\u{1b}") && !output.contains('\u{1b}'), "{output:?}");
}

#[test]
fn the_policy_that_inspect_prints_fits_its_guest_and_allows_its_imports_alone() {
    let folder = Folder::new();
    let (code, text, _) = folder.run(&["inspect", "guest", "--policy"]);
    assert_eq!(code, Some(0));
    assert_eq!(Policy::from_toml(&text), Ok(Policy::deny_all().allow("double")), "{text}");
    assert!(text.contains("# fn(u64) -> u64\n[function.double]\n"), "{text}");
    fs::write(folder.path("policy.toml"), text).unwrap();
    assert_eq!(folder.run(&CHECK).0, Some(0));
}

#[test]
fn a_report_for_programs_has_functions_segments_map_and_note() {
    let folder = Folder::new();
    let (code, json, _) = folder.run(&["inspect", "guest", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(report["imports"][0]["name"], "double");
    assert_eq!(report["imports"][0]["signature"], "fn(u64) -> u64");
    assert_eq!(report["abi_version"], u64::from(cellule::abi::ABI_VERSION));
    assert_eq!(report["policy"], "[function.double]\nallow = true\n");
    let protections: Vec<_> =
        report["segments"].as_array().unwrap().iter().map(|it| it["protection"].clone()).collect();
    assert!(protections.contains(&"r-x".into()) && !protections.contains(&"rwx".into()));
    let map = report["memory_map"].as_array().unwrap();
    let heap = map.iter().find(|range| range["name"] == "heap").unwrap();
    assert_eq!(heap["bytes"], cellule::DEFAULT_HEAP_BYTES);
    let stacks = map.iter().filter(|range| range["name"] == "task stack");
    assert_eq!(stacks.map(|range| range["count"].as_u64().unwrap()).sum::<u64>(), 512 + 64 + 8);
}

#[test]
fn people_get_the_same_as_text() {
    let (code, text, _) = Folder::new().run(&["inspect", "guest"]);
    assert_eq!(code, Some(0));
    for part in ["  double: fn(u64) -> u64\n", "  note    ABI ", "  r-x  ", ", 512 times\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_file_that_is_no_guest_is_refused() {
    let folder = Folder::with_policy("");
    let (code, output, error) = folder.run(&["inspect", "policy.toml"]);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(error.starts_with("cellule: not an acceptable guest image: "), "{error}");
}
