//! The `log` crate's records, through the ring.

use log::{LevelFilter, Log, Metadata, Record};

use super::{CHANNEL, unbroken};
use crate::text::Message;

/// The longest message; the rest is cut off.
const MESSAGE_BYTES: usize = 1024;

struct Logger;

/// Sends log records of every level to the host, which decides what to keep.
pub(super) fn start() {
    // It fails if there is a logger already; this runs once, before any guest code.
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Formatted before the channel is locked: a value's `Display` may log.
        let mut message = Message::<MESSAGE_BYTES>::new();
        let message = message.set(*record.args());
        let level = record.level() as u32;
        unbroken(CHANNEL.with(|channel| channel.log(level, record.target(), message)));
    }

    fn flush(&self) {}
}
