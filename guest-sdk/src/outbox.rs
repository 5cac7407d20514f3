//! Where log records wait for the next doorbell.

use crate::text::prefix;

/// Room for the log records that the host has not read yet.
///
/// A record is written once and then stays where it is: the host reads it from
/// here. All room is given back at once, when the host has read everything.
pub(crate) struct Outbox<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Outbox<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], used: 0 }
    }

    /// Gives all room back: the host has read every record.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    /// Writes the payload of a log record, `target`, a zero byte and `message`,
    /// and returns it; `None` if there is no room.
    ///
    /// A record longer than an empty outbox is cut.
    pub(crate) fn write(&mut self, target: &str, message: &str) -> Option<&[u8]> {
        let target = prefix(target, N / 4);
        let message = prefix(message, N - target.len() - 1);
        let room = self.bytes.get_mut(self.used..)?;
        let record = room.get_mut(..target.len() + 1 + message.len())?;
        self.used += record.len();
        let (start, rest) = record.split_at_mut(target.len());
        start.copy_from_slice(target.as_bytes());
        let (zero, rest) = rest.split_at_mut(1);
        zero.fill(0);
        rest.copy_from_slice(message.as_bytes());
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_lie_one_behind_the_other_until_the_outbox_is_full() {
        let mut outbox = Outbox::<16>::new();
        assert_eq!(outbox.write("a", "first"), Some(b"a\0first".as_slice()));
        assert_eq!(outbox.write("b", "second"), Some(b"b\0second".as_slice()));
        assert_eq!(&outbox.bytes[..15], b"a\0firstb\0second");
        assert_eq!(outbox.write("c", ""), None, "one byte is left and two are needed");
        outbox.clear();
        assert_eq!(outbox.write("c", ""), Some(b"c\0".as_slice()));
    }

    #[test]
    fn a_record_too_long_for_any_outbox_is_cut() {
        let mut outbox = Outbox::<16>::new();
        let record = outbox.write("target", "a message of many words");
        assert_eq!(record, Some(b"targ\0a message o".as_slice()));
    }
}
