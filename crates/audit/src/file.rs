//! A log file: JSON lines, one for each record.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::chain::{Digest, Origin};
use crate::options::{Confirm, FileOptions, Sync, WhenFull};
use crate::record::Record;
use crate::sink::{Sink, SinkRefused};
use crate::writer::{Job, Writer};

/// Writes records to a log file, by a thread of its own.
///
/// Its clones write to the same log: one for each sandbox. When the last is dropped,
/// what is queued is written and the log is closed. Should the thread fail to write,
/// every later record is refused: see [`FileSink::failure`].
///
/// # Cost
///
/// A copy of the record and a place in a queue. JSON, hashing and writing are the
/// thread's, unless [`Confirm::Written`] makes the call wait for them.
#[derive(Debug, Clone)]
pub struct FileSink(Arc<Log>);

/// The place of the last line that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The line's number.
    pub number: u64,
    /// Its chain, which no other log's line has.
    pub chain: Digest,
}

/// A log file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is one already.
    #[error("{} exists: a log is never written over; move it away or choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {step} {}: {source}", path.display())]
    Refused {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no thread to write.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[source] io::Error),
    /// The thread has stopped before, for the reason that this holds.
    #[error("the log is no longer written: {0}")]
    Stopped(Arc<FileError>),
    /// The thread has stopped, and has not said why.
    #[error("the log is no longer written: its thread is gone")]
    Gone,
}

struct Log {
    /// Taken when the log is closed.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    when_full: WhenFull,
    confirms: bool,
    failure: Failure,
    /// Ends with the thread. What is queued by then is answered by nobody: a queue
    /// keeps its jobs, and their senders, until the last of both its ends is dropped.
    gone: Receiver<Infallible>,
}

/// Why the thread stopped, once it has.
pub(crate) type Failure = Arc<Mutex<Option<Arc<FileError>>>>;

impl FileOptions {
    /// Creates the file and starts its thread. A path that is no regular file but a
    /// pipe or a device is written to as it is.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file exists or cannot be written, or there is no thread.
    pub fn create(self, path: impl AsRef<Path>) -> Result<FileSink, FileError> {
        let (jobs, queue) = bounded(self.queue);
        let (when_full, failure) = (self.when_full, Failure::default());
        let confirms = self.confirm == Confirm::Written || self.sync == Sync::EachRecord;
        let writer = Writer::create(self, path.as_ref())?;
        let reports = Arc::clone(&failure);
        let thread = std::thread::Builder::new().name("cellule-audit".to_owned());
        let (alive, gone) = bounded(0);
        let work = move || {
            let _alive = alive;
            writer.run(queue, &reports);
        };
        let thread = thread.spawn(work).map_err(FileError::Thread)?;
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(FileSink(Arc::new(Log { jobs, thread, when_full, confirms, failure, gone })))
    }
}

impl FileSink {
    /// Creates a log file, written as [`FileOptions::new`] says.
    ///
    /// # Errors
    ///
    /// Those of [`FileOptions::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, FileError> {
        FileOptions::new().create(path)
    }

    /// Waits until all that was taken is written, and on its medium unless
    /// [`Sync::Never`] was chosen. Returns the place of the last line: kept where the
    /// log's writer cannot change it, it proves the log up to there.
    ///
    /// # Errors
    ///
    /// [`FileError`] if it cannot be written. Then nothing is taken any more.
    ///
    /// # Blocking
    ///
    /// For as long as the system takes to write.
    pub fn flush(&self) -> Result<Head, FileError> {
        let (told, head) = bounded(1);
        let asked = self.0.jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Flush(told)).is_ok());
        self.0.wake();
        let head = if asked { self.0.answer(&head) } else { None };
        head.ok_or_else(|| self.failure().map_or(FileError::Gone, FileError::Stopped))
    }

    /// Why nothing is taken any more, if that is so.
    pub fn failure(&self) -> Option<Arc<FileError>> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for FileSink {
    fn begin(&mut self, origin: &Origin) -> Result<(), SinkRefused> {
        self.0.send(Job::Begin(*origin))
    }

    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        if !self.0.confirms {
            return self.0.send(Job::Record(record.clone(), None));
        }
        let (told, written) = bounded(1);
        self.0.send(Job::Record(record.clone(), Some(told)))?;
        self.0.answer(&written).ok_or(SinkRefused)
    }
}

impl Log {
    fn send(&self, job: Job) -> Result<(), SinkRefused> {
        let jobs = self.jobs.as_ref().ok_or(SinkRefused)?;
        match self.when_full {
            WhenFull::Refuse => jobs.try_send(job).map_err(|_| SinkRefused),
            WhenFull::Wait(most) => jobs.send_timeout(job, most).map_err(|_| SinkRefused),
        }
    }

    /// Waits for the thread's answer to a job. There is none if the thread stopped
    /// before it: then it is gone, and has said why.
    fn answer<T>(&self, answer: &Receiver<T>) -> Option<T> {
        select! {
            recv(answer) -> told => told.ok().or_else(|| {
                let _ = self.gone.recv();
                None
            }),
            recv(self.gone) -> _ => answer.try_recv().ok(),
        }
    }

    /// Ends the thread's pause between two batches.
    fn wake(&self) {
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The queue ends; the thread writes what is in it and closes the log.
        self.jobs = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the log has no end, and says so.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("when_full", &self.when_full).finish_non_exhaustive()
    }
}
