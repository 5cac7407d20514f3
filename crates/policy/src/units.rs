//! Sizes and times in a policy file: a whole number and a unit.

use std::time::Duration;

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const TIMES: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

/// What a size is, for messages.
pub(crate) const SIZE: &str =
    "a size: a whole number of bytes, or one with B, KiB, MiB or GiB such as \"64KiB\"";
/// What a time is, for messages.
pub(crate) const TIME: &str =
    "a time: a whole number with ns, us, ms, s, m or h such as \"250ms\", at most 584 years";

/// Reads `64KiB`; `None` if it is no size or does not fit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Reads `250ms`; `None` if it is no time or does not fit.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_nanos)
}

/// Writes a size as a TOML value, in the largest unit of which it is a whole number.
pub(crate) fn size(bytes: u64) -> String {
    match largest(bytes, &SIZES) {
        (count, "B") => count.to_string(),
        (count, unit) => format!("\"{count}{unit}\""),
    }
}

/// Writes a time as a TOML value, in the largest unit of which it is a whole number.
pub(crate) fn time(time: Duration) -> String {
    let (count, unit) = largest(nanoseconds(time), &TIMES);
    format!("\"{count}{unit}\"")
}

/// A time in nanoseconds; the longest that there is if it has more.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    count.parse::<u64>().ok()?.checked_mul(*factor)
}

fn largest(count: u64, units: &[(&'static str, u64)]) -> (u64, &'static str) {
    let exact = |(_, factor): &&(&str, u64)| count > 0 && count.is_multiple_of(*factor);
    let smallest = || units.last().copied().unwrap_or(("", 1));
    let (unit, factor) = units.iter().find(exact).copied().unwrap_or_else(smallest);
    (count / factor, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_they_are_written() {
        for (bytes, text) in [(0, "0"), (1023, "1023"), (65536, "\"64KiB\""), (3 << 30, "\"3GiB\"")]
        {
            assert_eq!(size(bytes), text);
        }
        for (ns, text) in [(0, "0ns"), (1, "1ns"), (250_000_000, "250ms"), (120_000_000_000, "2m")]
        {
            let quoted = format!("\"{text}\"");
            assert_eq!(time(Duration::from_nanos(ns)), quoted);
            assert_eq!(parse_time(text), Some(Duration::from_nanos(ns)));
        }
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("7B"), Some(7));
    }

    #[test]
    fn what_has_no_unit_a_fraction_or_too_much_is_neither() {
        for text in ["", "64", "64KB", "64 KiB", "-1B", "1.5MiB", "KiB", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for text in ["", "2", "2 s", "2sec", "1.5s", "s", "600y", "99999999h"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
