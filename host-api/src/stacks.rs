//! How many task stacks of which sizes a guest gets.

use cellule_abi::PAGE_BYTES;
use cellule_abi::page::STACK_CLASSES;

use crate::error::BuildError;

/// The task stacks, unless said otherwise: 512 of 16 KiB, 64 of 64 KiB, 8 of
/// 256 KiB. They take 14 MiB of addresses, and memory once they are touched.
pub const DEFAULT_TASK_STACKS: [(u64, u32); STACK_CLASSES] =
    [(16 << 10, 512), (64 << 10, 64), (256 << 10, 8)];

const LEAST_BYTES: u64 = 8 << 10;
const MOST_BYTES: u64 = 64 << 20;
/// The most stacks of all sizes together: each is a mapping.
const MOST_COUNT: u64 = 16384;
/// The most bytes of all stacks together, guard pages included.
const MOST_TOTAL: u64 = 1 << 30;

/// Stacks of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Class {
    /// The size of each, whole pages.
    pub(crate) bytes: u64,
    pub(crate) count: u32,
}

/// The sizes and counts, the smallest first. Classes without a stack come last.
pub(crate) type Classes = [Class; STACK_CLASSES];

/// Checks, rounds and sorts what an embedder asks for.
pub(crate) fn classes(wanted: &[(u64, u32)]) -> Result<Classes, BuildError> {
    if wanted.len() > STACK_CLASSES {
        let (count, most) = (wanted.len() as u64, STACK_CLASSES as u64);
        return Err(BuildError::TooMany { what: "sizes of task stacks", count, most });
    }
    let mut found = Vec::with_capacity(STACK_CLASSES);
    for &(bytes, count) in wanted.iter().filter(|(_, count)| *count > 0) {
        if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes) {
            let (least, most) = (LEAST_BYTES, MOST_BYTES);
            return Err(BuildError::Size { what: "task stack", bytes, least, most });
        }
        found.push(Class { bytes: bytes.next_multiple_of(PAGE_BYTES as u64), count });
    }
    at_most("task stacks", found.iter().map(|class| u64::from(class.count)).sum(), MOST_COUNT)?;
    let total = |class: &Class| (class.bytes + PAGE_BYTES as u64) * u64::from(class.count);
    at_most("bytes of task stacks", found.iter().map(total).sum(), MOST_TOTAL)?;
    found.sort_unstable();
    let mut found = found.into_iter();
    Ok([(); STACK_CLASSES].map(|()| found.next().unwrap_or(Class { bytes: 0, count: 0 })))
}

fn at_most(what: &'static str, count: u64, most: u64) -> Result<(), BuildError> {
    if count > most { Err(BuildError::TooMany { what, count, most }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_pages_and_sorted() {
        let [small, large, none] = classes(&[(100_000, 2), (8192, 3), (9000, 0)]).unwrap();
        assert_eq!((small.bytes, small.count), (8192, 3));
        assert_eq!((large.bytes, large.count), (102_400, 2));
        assert_eq!(none.count, 0);
    }

    #[test]
    fn what_is_too_small_too_large_or_too_many_is_refused_with_the_numbers() {
        let text = |wanted: &[(u64, u32)]| classes(wanted).unwrap_err().to_string();
        assert_eq!(
            text(&[(4096, 1)]),
            "task stack of 4096 bytes: must be between 8192 and 67108864"
        );
        assert!(text(&[(1 << 40, 1)]).starts_with("task stack of 1099511627776"));
        assert_eq!(text(&[(8192, 16385)]), "16385 task stacks: at most 16384 are possible");
        assert!(text(&[(64 << 20, 1000)]).starts_with("67112960000 bytes of task stacks: "));
        assert!(text(&[(8192, 1); 4]).starts_with("4 sizes of task stacks: at most 3"));
    }
}
