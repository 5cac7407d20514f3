//! How a log file is written.

use std::time::Duration;

use crate::seal::SealKey;

/// What becomes of a call while the queue to the writer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused at once.
    Refuse,
    /// It waits for room, so long at most, and is then refused.
    Wait(Duration),
}

/// When a record counts as taken, so that what it records may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// When it is queued. Should this process be killed, what is queued is lost: what
    /// it records may have happened. That the log's end is missing is seen.
    Queued,
    /// When the system has it: a process that is killed loses nothing that happened.
    Written,
}

/// When the system is told to bring the file to its medium. A power cut loses what
/// it was not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// When the system likes.
    Never,
    /// Whenever so much time has passed and something was written.
    Every(Duration),
    /// With every record; the call waits for it, whatever [`Confirm`] says.
    EachRecord,
}

/// How a log file is written. [`FileOptions::create`] makes it.
///
/// ```
/// use cellule_audit::{Confirm, FileOptions, SealKey, Sync, WhenFull};
/// use std::time::Duration;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("audit.jsonl");
/// let sink = FileOptions::new()
///     .when_full(WhenFull::Wait(Duration::from_millis(100)))
///     .confirm(Confirm::Written)
///     .sync(Sync::Every(Duration::from_secs(1)))
///     .rotate_bytes(100 << 20)
///     .seal(SealKey::new("2031-a", b"thirty-two bytes of a real secret")?)
///     .create(&path)?;
/// // Give a clone of it to each sandbox's builder. At times, keep elsewhere:
/// let head = sink.flush()?;
/// assert_eq!(head.number, 0, "so far the log has its first line only");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FileOptions {
    pub(crate) queue: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) confirm: Confirm,
    pub(crate) sync: Sync,
    pub(crate) rotate_bytes: u64,
    pub(crate) key: Option<SealKey>,
    pub(crate) seal_lines: u64,
    pub(crate) seal_after: Duration,
}

impl FileOptions {
    /// 4096 records may be queued; a call then waits a second for room; a record
    /// counts when it is queued; the system syncs when it likes; a new file is begun
    /// after 64 MiB; nothing is sealed.
    pub fn new() -> Self {
        Self {
            queue: 4096,
            when_full: WhenFull::Wait(Duration::from_secs(1)),
            confirm: Confirm::Queued,
            sync: Sync::Never,
            rotate_bytes: 64 << 20,
            key: None,
            seal_lines: 1024,
            seal_after: Duration::from_secs(1),
        }
    }

    /// Sets how many records may wait to be written: at least one.
    #[must_use]
    pub fn queue(mut self, records: usize) -> Self {
        self.queue = records.max(1);
        self
    }

    /// Sets what becomes of a call while the queue is full.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets when a record counts as taken.
    #[must_use]
    pub fn confirm(mut self, confirm: Confirm) -> Self {
        self.confirm = confirm;
        self
    }

    /// Sets when the system is told to bring the file to its medium.
    #[must_use]
    pub fn sync(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    /// Sets after how many bytes a new file is begun: `audit.jsonl.1` and so on. A
    /// file has three lines at least.
    #[must_use]
    pub fn rotate_bytes(mut self, bytes: u64) -> Self {
        self.rotate_bytes = bytes;
        self
    }

    /// Seals the log with a key: every 1024 lines, after a second, and at its end.
    #[must_use]
    pub fn seal(mut self, key: SealKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets after how many lines, and after what time, there is a seal.
    #[must_use]
    pub fn seal_every(mut self, lines: u64, after: Duration) -> Self {
        (self.seal_lines, self.seal_after) = (lines.max(1), after);
        self
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}
