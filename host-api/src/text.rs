//! Text that a guest wrote, made safe to show.

/// Returns guest bytes as text in which nothing controls a terminal or forges
/// a line: control and direction characters are escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() || is_direction(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The invisible characters that reorder text: Unicode Standard Annex 9.
fn is_direction(character: char) -> bool {
    matches!(
        character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_control_a_terminal_or_forge_a_line() {
        assert_eq!(printable(b"red \x1b[31m\r\n"), "red \\u{1b}[31m\\r\\n");
        assert_eq!(printable("a\u{202e}b\u{9b}".as_bytes()), "a\\u{202e}b\\u{9b}");
        assert_eq!(printable(b"\xff ok \xc3\xa9"), "\u{fffd} ok é");
    }
}
