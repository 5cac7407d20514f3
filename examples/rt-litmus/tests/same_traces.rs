//! Scripts on a guest's tasks give the traces of the reference model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use cellule::{Backend, Image};
use cellule_litmus::{Script, generate};
use rt_litmus::{Failure, image, run};

/// The image, if there is something to run it on; says on one line what.
fn guest() -> Option<Image> {
    match Backend::for_development().probe() {
        Ok(backend) => println!("backends: {backend}"),
        Err(missing) => {
            println!("backends: none, so this test runs nothing: {missing}");
            return None;
        }
    }
    Some(image().unwrap())
}

#[test]
fn every_script_gives_the_trace_that_it_expects() {
    let Some(image) = guest() else { return };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/litmus/scripts");
    let mut ran = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "litmus") {
            let script = std::fs::read_to_string(&path).unwrap();
            let expected = script.lines().find_map(|line| line.strip_prefix("expect ")).unwrap();
            assert_eq!(run(&image, &script).unwrap(), expected.trim(), "{}", path.display());
            ran += 1;
        }
    }
    assert_eq!(ran, 24, "all scripts of the folder should have been run");
}

#[test]
fn three_thousand_random_scripts_give_the_models_traces() {
    let Some(image) = guest() else { return };
    for seed in 0..3000 {
        let script = generate::script(seed);
        let expected = cellule_litmus::run(&script).to_string();
        assert_eq!(run(&image, &script.to_string()).unwrap(), expected, "seed {seed}:\n{script}");
    }
}

#[test]
fn work_and_sleep_of_any_length_take_no_time() {
    let Some(image) = guest() else { return };
    let script = "task A 1\n work 1000000000000000\n sleep 18000000000000000000\n mark x\nend";
    let expected = cellule_litmus::run(&Script::parse(script).unwrap()).to_string();
    assert_eq!(run(&image, script).unwrap(), expected);
}

#[test]
fn hundreds_of_tasks_run() {
    let Some(image) = guest() else { return };
    let tasks = (0..500).map(|n| format!("task t{n} {}\n mark m{n}\nend\n", n % 32));
    let script: String = tasks.collect();
    let expected = cellule_litmus::run(&Script::parse(&script).unwrap()).to_string();
    assert_eq!(run(&image, &script).unwrap(), expected);
}

#[test]
fn a_malformed_script_is_named_by_its_line() {
    let Some(image) = guest() else { return };
    let failure = run(&image, "sem s 0 1\ntask A 3\n  take x\nend");
    assert!(matches!(&failure, Err(Failure::Malformed(text)) if text.starts_with("line 3: ")));
}

#[test]
fn the_program_prints_a_line_a_file_and_goes_on_after_a_bad_one() {
    let Some(_) = guest() else { return };
    let folder = std::env::temp_dir().join(format!("rt-litmus-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [bad, good, none] = ["bad", "good", "none"].map(|name| folder.join(name));
    std::fs::write(&bad, "task A 3\nnonsense\nend\n").unwrap();
    std::fs::write(&good, "task A 3\nmark x\nend\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rt-litmus")).args([&bad, &none, &good]).output();
    let output = output.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("{}: error: line 2: ", bad.display())), "{text}");
    assert!(lines[1].starts_with(&format!("{}: error: ", none.display())), "{text}");
    assert_eq!(lines[2], format!("{}: x@0 end@0", good.display()));
    assert_eq!(output.status.code(), Some(1));
}
