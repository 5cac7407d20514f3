//! Text that a guest may have written, made safe to show; bytes as text.

use std::fmt::{self, Write};

/// Text in which nothing controls a terminal or forges a line: control and
/// direction characters are escaped.
///
/// ```
/// use cellule_audit::Printable;
/// assert_eq!(Printable("red \x1b[31m\n").to_string(), "red \\u{1b}[31m\\n");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| {
            match character.is_control() || is_direction(character) {
                true => write!(f, "{}", character.escape_default()),
                false => f.write_char(character),
            }
        })
    }
}

/// The invisible characters that reorder text: Unicode Standard Annex 9.
fn is_direction(character: char) -> bool {
    matches!(
        character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Bytes in lower-case hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit =
            |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 });
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(byte & 15))
        })
    }
}

/// The bytes that hexadecimal digits name, `None` for a pair that is none. The last
/// digit of an odd number is left out: the caller checks the length.
pub(crate) fn unhex(text: &str) -> impl Iterator<Item = Option<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    text.as_bytes().chunks_exact(2).map(move |pair| match pair {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_control_a_terminal_or_forge_a_line() {
        let shown = |text| Printable(text).to_string();
        assert_eq!(shown("red \x1b[31m\r\n"), "red \\u{1b}[31m\\r\\n");
        assert_eq!(shown("a\u{202e}b\u{9b}"), "a\\u{202e}b\\u{9b}");
        assert_eq!(shown("ok é"), "ok é");
    }

    #[test]
    fn hexadecimal_has_one_form_and_an_inverse() {
        assert_eq!(Hex(&[0, 0x9a, 0xff]).to_string(), "009aff");
        assert_eq!(unhex("009aff").collect::<Option<Vec<_>>>(), Some(vec![0, 0x9a, 0xff]));
        assert_eq!(
            unhex("9A").collect::<Option<Vec<_>>>(),
            None,
            "capitals would be a second form"
        );
    }
}
