//! The kernel runs litmus scripts as the reference model does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod machine;

use cellule_litmus::{Script, generate};

#[test]
fn the_kernel_runs_every_script_as_it_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../litmus/scripts");
    let mut ran = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "litmus") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let expected = source.lines().find_map(|line| line.strip_prefix("expect ")).unwrap();
        let script = Script::parse(&source).unwrap();
        assert_eq!(machine::run(&script).to_string(), expected.trim(), "{}", path.display());
        ran += 1;
    }
    assert_eq!(ran, 24, "all scripts of the folder should have been run");
}

#[test]
fn the_kernel_runs_random_scripts_as_the_model_does() {
    for seed in 0..60_000 {
        let script = generate::script(seed);
        let expected = cellule_litmus::run(&script).to_string();
        assert_eq!(machine::run(&script).to_string(), expected, "seed {seed}:\n{script}");
    }
}
