//! The thread that makes all children of this process.
//!
//! A child asks to be killed when its parent ends, and Linux takes that to mean the
//! *thread* that made it (prctl(2), `PR_SET_PDEATHSIG`). So one thread makes them
//! all, and never ends before the process does.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use crate::trace::Pid;

/// What a child is made of.
#[derive(Debug)]
pub(crate) struct Order {
    /// The program.
    pub(crate) stub: Arc<File>,
    /// Its standard input and output: the memory that it maps.
    pub(crate) files: [OwnedFd; 2],
}

/// An order, and where the child goes.
type Job = (Order, SyncSender<io::Result<Pid>>);

/// The keeper of the process with this number, or why there is none: a process that
/// was forked off has the value, but not the thread.
static KEEPER: OnceLock<(u32, io::Result<mpsc::Sender<Job>>)> = OnceLock::new();

/// Makes a child.
///
/// # Errors
///
/// What the system said to that, or to the thread.
///
/// # Blocking
///
/// Until the child has become the stub.
pub(crate) fn spawn(order: Order) -> io::Result<Pid> {
    let gone = || io::Error::other("the thread that makes processes is gone");
    let (process, keeper) = KEEPER.get_or_init(|| (std::process::id(), start()));
    if *process != std::process::id() {
        return Err(io::Error::other("this process was forked from one that has sandboxes"));
    }
    let keeper = keeper.as_ref().map_err(|error| io::Error::from(error.kind()))?;
    let (reply, answer) = sync_channel(1);
    keeper.send((order, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn start() -> io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = channel();
    thread::Builder::new().name("cellule-keeper".to_owned()).spawn(move || keep(&jobs))?;
    Ok(sender)
}

/// Runs for as long as the process: the sender is never dropped.
fn keep(jobs: &Receiver<Job>) {
    for (order, reply) in jobs {
        // Whoever asked waits for the answer.
        let _ = reply.send(make(order));
    }
}

/// The standard library makes it with `posix_spawn`, so that its cost does not
/// depend on how much memory this process has: there must be no `pre_exec` here.
fn make(order: Order) -> io::Result<Pid> {
    let [input, output] = order.files;
    let mut command = Command::new(format!("/proc/self/fd/{}", order.stub.as_raw_fd()));
    // A group of its own: what a terminal sends to this process's is not for it.
    command.arg0("").env_clear().process_group(0);
    // The stub writes nothing, and closes what else it inherits.
    command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::inherit());
    let child = command.spawn()?;
    // It is waited for by who traces it.
    i32::try_from(child.id()).map(Pid).map_err(io::Error::other)
}
