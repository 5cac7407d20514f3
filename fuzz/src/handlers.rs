//! Host functions of various types; each notes that it ran.

use std::collections::BTreeMap;
use std::panic::resume_unwind;

use cellule_abi::wire;
use cellule_channel::HostFunction;
use serde::Serialize;

use crate::values::Event;
use crate::watch::{Note, Watch};

/// The names, in the order of the import numbers.
pub const NAMES: [&str; 9] =
    ["add", "upper", "echo", "sum", "find", "fill", "event", "nothing", "panics"];

/// Makes the functions.
pub fn all(watch: &Watch) -> Vec<HostFunction> {
    let functions = [plain(watch), others(watch)];
    functions.into_iter().flatten().collect()
}

fn plain(watch: &Watch) -> Vec<HostFunction> {
    let [a, b, c, d] = std::array::from_fn(|_| watch.clone());
    vec![
        HostFunction::new("add", move |x: u32, y: i64| {
            ran(&a, "add", y.wrapping_add(i64::from(x)))
        }),
        HostFunction::new("upper", move |text: String| ran(&b, "upper", text.to_uppercase())),
        HostFunction::new("echo", move |bytes: Vec<u8>| ran(&c, "echo", bytes)),
        HostFunction::new("sum", move |list: Vec<u64>| {
            ran(&d, "sum", list.iter().fold(0, |sum: u64, x| sum.wrapping_add(*x)))
        }),
    ]
}

fn others(watch: &Watch) -> Vec<HostFunction> {
    let [a, b, c, d, e] = std::array::from_fn(|_| watch.clone());
    let find = move |map: BTreeMap<String, u32>, key: Option<String>| {
        ran(&a, "find", key.and_then(|key| map.get(&key).copied()))
    };
    let event = move |event: Event, keep: bool| -> Result<Event, String> {
        ran(&c, "event", if keep { Ok(event) } else { Err("not kept".into()) })
    };
    vec![
        HostFunction::new("find", find),
        HostFunction::new("fill", move |len: u16| ran(&b, "fill", vec![7_u8; usize::from(len)])),
        HostFunction::new("event", event),
        HostFunction::new("nothing", move || ran(&d, "nothing", ())),
        // Unwinds without the panic hook, which in a fuzz target ends the process.
        HostFunction::new("panics", move || -> u8 {
            ran(&e, "panics", ());
            resume_unwind(Box::new("on purpose"))
        }),
    ]
}

fn ran<R: Serialize>(watch: &Watch, name: &'static str, result: R) -> R {
    let mut bytes = Vec::new();
    wire::append(&mut bytes, &result).expect("these results encode");
    watch.note(Note::Ran(name, bytes));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_the_order_of_the_functions() {
        let functions = all(&Watch::default());
        assert_eq!(functions.iter().map(HostFunction::name).collect::<Vec<_>>(), NAMES);
    }
}
