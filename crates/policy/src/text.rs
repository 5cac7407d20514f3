//! Policies as text: sorted, one key a line, and only what was said.

use std::fmt::Write;

use crate::bucket::Rate;
use crate::policy::Policy;
use crate::rules::{Budgets, OnDenial, Recorded, Rules};
use crate::units;

/// A key and its value as TOML.
pub(crate) type Entry = (&'static str, String);

/// Writes a policy as a file.
pub(crate) fn write(policy: &Policy) -> String {
    let mut entries = rules(&policy.all);
    entries.extend(budgets(&policy.budgets));
    entries.extend(policy.log.map(|level| ("log", quoted(level.name()))));
    let mut text = String::new();
    if !entries.is_empty() {
        table(&mut text, "sandbox", entries);
    }
    for (name, function) in &policy.functions {
        let mut entries = rules(&function.rules);
        entries.push(("allow", function.allow.to_string()));
        table(&mut text, &format!("function.{}", key(name)), entries);
    }
    text
}

fn table(text: &mut String, name: &str, mut entries: Vec<Entry>) {
    entries.sort_unstable();
    let space = if text.is_empty() { "" } else { "\n" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{space}[{name}]");
    for (key, value) in entries {
        let _ = writeln!(text, "{key} = {value}");
    }
}

/// The rules that were given, by the keys of a policy file.
pub(crate) fn rules(rules: &Rules) -> Vec<Entry> {
    let recorded = |recorded| match recorded {
        Recorded::Nothing => quoted("nothing"),
        Recorded::Digest => quoted("digest"),
        Recorded::Bytes(bytes) => units::size(bytes),
    };
    let on_denial = |action| match action {
        OnDenial::Error => quoted("error"),
        OnDenial::Poison => quoted("poison"),
    };
    let entries = [
        ("argument_bytes", rules.argument_bytes.map(units::size)),
        ("result_bytes", rules.result_bytes.map(units::size)),
        ("calls_per_guest_call", rules.calls_per_guest_call.map(count)),
        ("calls", rules.calls.map(|calls| rate(calls, count))),
        ("bytes", rules.bytes.map(|bytes| rate(bytes, units::size))),
        ("deadline", rules.deadline.map(units::time)),
        ("in_flight", rules.in_flight.map(|most| most.to_string())),
        ("record_arguments", rules.record_arguments.map(recorded)),
        ("record_results", rules.record_results.map(recorded)),
        ("on_denial", rules.on_denial.map(on_denial)),
        ("alarm_after", rules.alarm_after.map(count)),
    ];
    given(entries)
}

fn budgets(budgets: &Budgets) -> Vec<Entry> {
    let nanoseconds = |ns| units::time(std::time::Duration::from_nanos(ns));
    let entries = [
        ("call_deadline", budgets.call_deadline.map(units::time)),
        ("call_cpu", budgets.call_cpu.map(units::time)),
        ("call_exits", budgets.call_exits.map(count)),
        ("cpu", budgets.cpu.map(|cpu| rate(cpu, nanoseconds))),
        ("log_bytes", budgets.log_bytes.map(|bytes| rate(bytes, units::size))),
        ("log_records", budgets.log_records.map(|records| rate(records, count))),
    ];
    given(entries)
}

fn given<const N: usize>(entries: [(&'static str, Option<String>); N]) -> Vec<Entry> {
    entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn rate(Rate { amount, per, burst }: Rate, unit: impl Fn(u64) -> String) -> String {
    let per = units::time(per);
    let burst = if burst == amount { String::new() } else { format!(", burst = {}", unit(burst)) };
    format!("{{ amount = {}, per = {per}{burst} }}", unit(amount))
}

fn count(count: u64) -> String {
    count.to_string()
}

/// A key, in quotes unless it is bare: <https://toml.io/en/v1.0.0#keys>.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !name.is_empty() && name.chars().all(bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// A basic string: <https://toml.io/en/v1.0.0#string>.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            other if other.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
