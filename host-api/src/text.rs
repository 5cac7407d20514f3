//! Text that a guest wrote, made safe to show.

use cellule_channel::audit::Printable;

/// Returns guest bytes as text in which nothing controls a terminal or forges
/// a line: control and direction characters are escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    Printable(&String::from_utf8_lossy(bytes)).to_string()
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
