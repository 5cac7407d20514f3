//! The thread that writes a log file, so that no call waits for a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use crate::chain::{Digest, Origin};
use crate::file::{Failure, FileError, Head};
use crate::line::{self, FORMAT, Header, Line};
use crate::options::{Confirm, FileOptions, Sync};
use crate::record::Record;
use crate::seal::{Place, Seal};
use crate::sink::wall_ns;

/// How long the thread does not look after a batch. Meanwhile a call only puts its
/// record into the queue; to wake a thread that waits would take it a system call.
const PAUSE: Duration = Duration::from_micros(500);

/// How many bytes are written at once, at the least while more are queued: 64 KiB.
const BATCH_BYTES: usize = 64 << 10;

/// What the thread is to do.
pub(crate) enum Job {
    /// Write a sandbox's origin.
    Begin(Origin),
    /// Write a record, and tell when it is written.
    Record(Record, Option<Sender<()>>),
    /// Write and sync everything, and tell the last line.
    Flush(Sender<Head>),
}

/// The state of the log's end.
pub(crate) struct Writer {
    options: FileOptions,
    /// The path of the first file.
    first: PathBuf,
    /// The path of this one, which is the `file`th.
    path: PathBuf,
    file: u64,
    output: File,
    /// How long this file is, with what is not written yet.
    bytes: u64,
    /// Lines that are not written yet.
    batch: Vec<u8>,
    /// The next line's number, and what it follows.
    number: u64,
    chain: Digest,
    unsealed: u64,
    seal_due: Option<Instant>,
    sync_due: Option<Instant>,
}

impl Writer {
    /// Creates the first file and writes its first line.
    pub(crate) fn create(options: FileOptions, path: &Path) -> Result<Self, FileError> {
        let mut writer = Self {
            output: open(path)?,
            first: path.to_owned(),
            path: path.to_owned(),
            file: 0,
            bytes: 0,
            batch: Vec::new(),
            number: 0,
            chain: line::start(),
            unsealed: 0,
            seal_due: None,
            sync_due: None,
            options,
        };
        writer.header(None)?;
        writer.write()?;
        Ok(writer)
    }

    /// Does jobs until the last sender is gone, then closes the log. Stops at the
    /// first failure: the queue is then gone, and nothing more is taken.
    pub(crate) fn run(mut self, jobs: Receiver<Job>, failure: &Failure) {
        let done = self.serve(&jobs).and_then(|()| self.close());
        if let Err(error) = done {
            let error = Arc::new(error);
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&error));
            drop(jobs);
            tracing::error!(target: "cellule::audit", %error, "the log is no longer written");
        }
    }

    fn serve(&mut self, jobs: &Receiver<Job>) -> Result<(), FileError> {
        loop {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => match self.wait(jobs)? {
                    Some(job) => job,
                    None => continue,
                },
            };
            self.perform(job)?;
        }
    }

    /// Writes what there is, and waits for a job or for what is due.
    fn wait(&mut self, jobs: &Receiver<Job>) -> Result<Option<Job>, FileError> {
        self.write()?;
        if self.options.confirm == Confirm::Queued && self.options.sync != Sync::EachRecord {
            std::thread::park_timeout(PAUSE);
        }
        let now = Instant::now();
        if self.seal_due.is_some_and(|due| due <= now) {
            self.seal()?;
            self.write()?;
        }
        if self.sync_due.is_some_and(|due| due <= now) {
            self.sync()?;
        }
        let job = match self.seal_due.into_iter().chain(self.sync_due).min() {
            Some(due) => jobs.recv_deadline(due),
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        // A queue that has ended is seen by who asks next.
        Ok(job.ok())
    }

    fn perform(&mut self, job: Job) -> Result<(), FileError> {
        match job {
            Job::Begin(origin) => self.add(&Line::Sandbox(origin))?,
            Job::Record(record, told) => {
                self.add(&Line::Record(record))?;
                if let Some(told) = told {
                    self.write()?;
                    if self.options.sync == Sync::EachRecord {
                        self.sync()?;
                    }
                    // Whoever gave up waiting is not told.
                    let _ = told.send(());
                }
            }
            Job::Flush(told) => {
                self.write()?;
                if self.options.sync != Sync::Never {
                    self.sync()?;
                }
                let _ =
                    told.send(Head { number: self.number.saturating_sub(1), chain: self.chain });
            }
        }
        if self.batch.len() >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    /// Adds a line of content, then what is due after it.
    fn add(&mut self, line: &Line) -> Result<(), FileError> {
        self.append(line)?;
        self.unsealed += 1;
        let after = self.options.key.is_some().then_some(self.options.seal_after);
        let due = || after.and_then(|after| Instant::now().checked_add(after));
        self.seal_due = self.seal_due.or_else(due);
        if self.unsealed >= self.options.seal_lines {
            self.seal()?;
        }
        if self.bytes >= self.options.rotate_bytes { self.rotate() } else { Ok(()) }
    }

    /// Appends a line to the batch.
    fn append(&mut self, line: &Line) -> Result<(), FileError> {
        let before = self.batch.len();
        let chain = line::append(&mut self.batch, self.chain, self.number, line);
        self.chain = chain.map_err(|source| self.refused("make a line of", source))?;
        self.number += 1;
        self.bytes += (self.batch.len() - before) as u64;
        Ok(())
    }

    fn header(&mut self, previous: Option<String>) -> Result<(), FileError> {
        let key = self.options.key.as_ref().map(|key| key.id().to_owned());
        let (file, name) = (self.file, name(&self.path));
        let header = Header { format: FORMAT, file, name, previous, opened_ns: wall_ns(), key };
        self.append(&Line::Log(header))
    }

    fn seal(&mut self) -> Result<(), FileError> {
        if let Some(seal) = self.seal_of(Place::Between) {
            self.append(&Line::Seal(seal))?;
        }
        Ok(())
    }

    /// A seal of all so far, if there is a key.
    fn seal_of(&mut self, place: Place) -> Option<Seal> {
        (self.unsealed, self.seal_due) = (0, None);
        let key = self.options.key.as_ref()?;
        Some(key.seal(place, self.number, self.chain))
    }

    /// Ends this file and begins the next.
    fn rotate(&mut self) -> Result<(), FileError> {
        self.file += 1;
        let mut next = self.first.clone().into_os_string();
        next.push(format!(".{}", self.file));
        let next = PathBuf::from(next);
        // Should there be no next file, this one is complete.
        self.write()?;
        let output = open(&next)?;
        let seal = self.seal_of(Place::Rotated);
        self.append(&Line::Rotated { next: name(&next), seal })?;
        self.finish_file()?;
        let previous = name(&self.path);
        (self.output, self.path, self.bytes) = (output, next, 0);
        self.header(Some(previous))
    }

    fn close(&mut self) -> Result<(), FileError> {
        let seal = self.seal_of(Place::Closed);
        self.append(&Line::Closed { seal })?;
        self.finish_file()
    }

    fn finish_file(&mut self) -> Result<(), FileError> {
        self.write()?;
        if self.options.sync == Sync::Never { Ok(()) } else { self.sync() }
    }

    /// Hands the batch to the system.
    fn write(&mut self) -> Result<(), FileError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let written = self.output.write_all(&self.batch);
        written.map_err(|source| self.refused("write to", source))?;
        self.batch.clear();
        if let (Sync::Every(time), None) = (self.options.sync, self.sync_due) {
            self.sync_due = Instant::now().checked_add(time);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.sync_due = None;
        self.output.sync_data().map_err(|source| self.refused("sync", source))
    }

    fn refused(&self, step: &'static str, source: io::Error) -> FileError {
        FileError::Refused { step, path: self.path.clone(), source }
    }
}

/// Creates a file that does not exist, or opens what is no regular file.
fn open(path: &Path) -> Result<File, FileError> {
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
    let opened = OpenOptions::new().write(true).create_new(!is_special).open(path);
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::Refused { step: "create", path: path.to_owned(), source },
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
