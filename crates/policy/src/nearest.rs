//! The known name that was probably meant.

/// The most letters that two names may differ in and still be taken for one.
const DIFFERENCES: usize = 3;

/// The name of these that is most like `name`, if any is like it.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = |other: &&str| distance(name, other);
    let best = known.into_iter().min_by_key(far)?;
    let limit = DIFFERENCES.min(name.chars().count() / 2);
    (distance(name, best) <= limit).then_some(best)
}

/// How many letters have to be put in, taken out or changed (Levenshtein 1966).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (number, letter) in one.chars().enumerate() {
        let mut diagonal = number;
        let mut left = number + 1;
        let (first, rest) = match row.split_first_mut() {
            Some(parts) => parts,
            None => return 0,
        };
        *first = left;
        for (cell, expected) in rest.iter_mut().zip(other.chars()) {
            let changed = diagonal + usize::from(letter != expected);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_letters_in_out_or_changed() {
        for (one, other, expected) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("burst", "brust", 2)]
        {
            assert_eq!(distance(one, other), expected);
            assert_eq!(distance(other, one), expected);
        }
    }

    #[test]
    fn only_what_is_like_it_is_suggested() {
        let known = ["deadline", "calls", "bytes"];
        assert_eq!(nearest("deadlin", known), Some("deadline"));
        assert_eq!(nearest("call", known), Some("calls"));
        assert_eq!(nearest("x", known), None);
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("a", []), None);
    }
}
