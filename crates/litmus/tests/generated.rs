//! The generated scripts: what they are good for, counted.

use std::collections::BTreeMap;

use cellule_litmus::{Answer, Item, Script, generate, run};

/// How often each thing was seen, by its name.
type Counts = BTreeMap<String, u32>;

fn count(counts: &mut Counts, name: impl Into<String>) {
    *counts.entry(name.into()).or_default() += 1;
}

fn at_least(counts: &Counts, names: &[&str], least: u32) {
    for name in names {
        let found = counts.get(*name).copied().unwrap_or_default();
        assert!(found >= least, "{name}: {found} times, should be {least}; all: {counts:#?}");
    }
}

#[test]
fn a_generated_script_is_equal_to_its_own_text() {
    for seed in 0..5_000 {
        let script = generate::script(seed);
        assert_eq!(Script::parse(&script.to_string()), Ok(script), "seed {seed}");
    }
}

#[test]
fn the_model_ends_every_generated_script() {
    for seed in 0..20_000 {
        let trace = run(&generate::script(seed));
        let last = trace.0.last();
        assert!(
            matches!(last, Some(Item::End { .. } | Item::Deadlock { .. })),
            "seed {seed}: {trace}"
        );
    }
}

#[test]
fn generated_scripts_are_small_and_seldom_dull() {
    let mut ends = Counts::new();
    let mut items = 0;
    for seed in 0..5_000 {
        let script = generate::script(seed);
        assert!((1..=8).contains(&script.tasks.len()), "seed {seed}");
        assert!(script.tasks.iter().all(|task| task.operations.len() <= 12), "seed {seed}");
        let trace = run(&script);
        items += trace.0.len();
        count(
            &mut ends,
            if matches!(trace.0.last(), Some(Item::End { .. })) { "end" } else { "deadlock" },
        );
    }
    // Both fates are worth testing; the common one leaves the longer trace.
    at_least(&ends, &["end"], 2_500);
    at_least(&ends, &["deadlock"], 500);
    assert!(items >= 5 * 5_000, "{items} items in 5000 traces");
}

#[test]
fn generated_scripts_contain_every_operation_in_each_form() {
    let mut seen = Counts::new();
    for seed in 0..2_000 {
        for operation in generate::script(seed).tasks.iter().flat_map(|task| &task.operations) {
            count(&mut seen, operation.action.keyword());
        }
    }
    let operations = [
        "mark", "work", "sleep", "yield", "take", "give", "lock", "unlock", "put", "get", "set",
        "clear", "wait", "prio", "suspend", "resume", "kill", "join",
    ];
    at_least(&seen, &operations, 150);
}

#[test]
fn generated_scripts_provoke_every_answer_of_every_operation() {
    let mut seen = Counts::new();
    for seed in 0..4_000 {
        let script = generate::script(seed);
        let operations = script.tasks.iter().flat_map(|task| &task.operations);
        let keywords: BTreeMap<_, _> = operations
            .filter_map(|operation| Some((operation.label.as_ref()?, operation.action.keyword())))
            .collect();
        for item in &run(&script).0 {
            if let Item::Answer { label, answer, .. } = item {
                let keyword = keywords[label];
                count(&mut seen, format!("{keyword} {}", name_of(*answer)));
            }
        }
    }
    let answers = [
        "take ok",
        "take busy",
        "take timeout",
        "give ok",
        "give full",
        "lock ok",
        "lock ownerdead",
        "lock recursive",
        "lock busy",
        "lock timeout",
        "unlock ok",
        "unlock notowner",
        "put ok",
        "put busy",
        "put timeout",
        "get value",
        "get busy",
        "get timeout",
        "wait value",
        "wait busy",
        "wait timeout",
        "join ok",
        "join killed",
        "join self",
        "join busy",
        "join timeout",
    ];
    at_least(&seen, &answers, 40);
}

fn name_of(answer: Answer) -> String {
    match answer {
        Answer::Value(_) => "value".into(),
        word => word.to_string(),
    }
}
