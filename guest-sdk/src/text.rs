//! A text of fixed size, for when nothing may be allocated.

use core::fmt;

/// The first `N` bytes of what was written, up to a character.
pub(crate) struct Message<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Message<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Formats `text` in place of what was there; what does not fit is lost.
    pub(crate) fn set(&mut self, text: fmt::Arguments<'_>) -> &str {
        self.len = 0;
        // The error says that not all did fit, or that a part of `text` could
        // not be formatted: what there is must do.
        let _ = fmt::write(self, text);
        self.text()
    }

    pub(crate) fn text(&self) -> &str {
        let written = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(written).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Write for Message<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let fits = prefix(text, room.len());
        if let Some(room) = room.get_mut(..fits.len()) {
            room.copy_from_slice(fits.as_bytes());
        }
        self.len += fits.len();
        if fits.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Returns as much of `text` as `len` bytes hold, in whole characters.
pub(crate) fn prefix(text: &str, len: usize) -> &str {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Returns the size in the message of the standard library's handler of a
/// failed allocation, which panics in a program without std.
///
/// See `__rdl_alloc_error_handler` in the sources of `alloc`.
pub(crate) fn refused_allocation(message: &str) -> Option<u64> {
    let size = message.strip_prefix("memory allocation of ")?.strip_suffix(" bytes failed")?;
    size.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_message_is_cut_between_characters() {
        let mut message = Message::<4>::new();
        assert_eq!(message.set(format_args!("{}é", "ab")), "abé");
        assert_eq!(message.set(format_args!("abc{}", "é")), "abc");
        assert_eq!(message.set(format_args!("{}", 1_234_567)), "1234");
        assert_eq!(message.set(format_args!("")), "");
    }

    #[test]
    fn a_failed_allocation_is_recognised_by_its_message() {
        assert_eq!(refused_allocation("memory allocation of 4096 bytes failed"), Some(4096));
        assert_eq!(refused_allocation("memory allocation of x bytes failed"), None);
        assert_eq!(refused_allocation("index out of bounds".to_string().as_str()), None);
    }
}
