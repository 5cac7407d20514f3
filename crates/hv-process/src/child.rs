//! A child process: made, held by the thread that runs it, resumed, and stopped.
//!
//! It knows nothing of doorbells and faults: [`Child::run`] hands each signal to its
//! caller, who says whether the child goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cellule_hv::CreateError;

use crate::affinity::Place;
use crate::handover::{Leash, Thread};
use crate::keeper::{self, Order};
use crate::stub::{self, Step, Stub};
use crate::trace::{Pid, Registers, Stop};

/// A traced child, which stands still between two runs.
#[derive(Debug)]
pub(crate) struct Child {
    leash: Arc<Leash>,
    /// The thread that traces it, as this last knew.
    holder: Thread,
    /// Its registers, as of the last stop that was told, and what was changed since.
    registers: Registers,
    change: Change,
    /// An interrupt was asked for, and has not been seen to stop it.
    is_interrupted: bool,
    is_gone: bool,
    place: Place,
    /// How many times its caller had it run, and how many system calls that took. Stops
    /// that no caller hears of are not counted.
    pub(crate) runs: u64,
    pub(crate) calls: u64,
}

/// Which registers the child does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Rip,
    All,
}

/// What a caller makes of a signal.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// That is what the run came to.
    Stop(T),
    /// It was somebody else's: the child goes on as if it had not been.
    GoOn,
}

/// Why a run ended, if not by the caller's verdict.
#[derive(Debug)]
pub(crate) enum Ran<T> {
    Stopped(T),
    Interrupted,
    /// It was killed by this signal, or is gone without a word.
    Gone(i32),
}

fn refused(step: &'static str) -> impl FnOnce(io::Error) -> CreateError {
    move |source| CreateError::Refused { step, source }
}

/// The steps of creation that `lib.rs` tells apart.
pub(crate) const SPAWN: &str = "start a process";
pub(crate) const TRACE: &str = "trace a process of its own";

impl Child {
    /// Makes a child that has nothing but the memory of a guest.
    ///
    /// # Errors
    ///
    /// [`CreateError::Refused`] names the step.
    pub(crate) fn new(order: Order, stub: &Stub, start: Registers) -> Result<Self, CreateError> {
        let pid = keeper::spawn(order).map_err(refused(SPAWN))?;
        let leash = Leash::new(pid).map_err(|error| {
            pid.kill(libc::SIGKILL);
            // Gone, whatever is said.
            let _ = pid.wait_through();
            refused(TRACE)(error)
        })?;
        let mut child = Self {
            leash,
            holder: Thread::current(),
            registers: start,
            change: Change::All,
            is_interrupted: false,
            is_gone: false,
            place: Place::Anywhere,
            runs: 0,
            calls: 0,
        };
        // From here on it ends when this is dropped.
        child.prepare(stub)?;
        Ok(child)
    }

    /// Sends the stub on its way, and waits until it has removed itself.
    fn prepare(&mut self, stub: &Stub) -> Result<(), CreateError> {
        let pid = self.pid();
        self.place.follow(pid);
        pid.interrupt().map_err(refused(TRACE))?;
        let stop = pid.wait_through().map_err(refused(TRACE))?;
        if let Stop::Gone(_) = stop {
            return Err(self.died());
        }
        let go = Registers { rip: stub::GO, ..self.registers };
        pid.set_registers(&go).map_err(refused(TRACE))?;
        loop {
            pid.resume_stub().map_err(refused(TRACE))?;
            match pid.wait_through().map_err(refused(TRACE))? {
                Stop::Signal(libc::SIGSEGV | libc::SIGILL) => break,
                Stop::Gone(_) => return Err(self.died()),
                Stop::Signal(_) | Stop::SystemCall | Stop::Event => {}
            }
        }
        let Registers { rip, rax, rbx, .. } = pid.registers().map_err(refused(TRACE))?;
        if rip == stub::GONE && rax == 0 {
            return Ok(());
        }
        let unknown = CreateError::Refused { step: SPAWN, source: io::ErrorKind::Other.into() };
        let failed = stub.failure(rax, rbx);
        Err(failed.map_or(unknown, |failed| {
            refused(failed.step.words())(io::Error::from_raw_os_error(failed.errno))
        }))
    }

    /// The stub has ended before it was done.
    fn died(&self) -> CreateError {
        self.leash.has_ended();
        refused(SPAWN)(io::Error::other("it was killed at once"))
    }

    pub(crate) fn pid(&self) -> Pid {
        self.leash.pid
    }

    /// The registers, as far as the last stop read them.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Sets the next instruction.
    pub(crate) fn set_rip(&mut self, rip: u64) {
        self.registers.rip = rip;
        if self.change == Change::None {
            self.change = Change::Rip;
        }
    }

    /// Sets all registers.
    pub(crate) fn set_registers(&mut self, registers: Registers) {
        self.registers = registers;
        self.change = Change::All;
    }

    /// Reads the registers that the child stopped with.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        self.calls += 1;
        self.registers = self.pid().registers()?;
        Ok(())
    }

    /// Makes this thread the one that traces the child.
    ///
    /// # Errors
    ///
    /// What the kernel said, or `TimedOut` if another thread does not let go.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        let thread = Thread::current();
        if self.holder == thread {
            return Ok(());
        }
        // Some ten, and some of another thread's.
        self.calls += 10;
        match self.leash.take()? {
            Stop::Gone(_) => self.is_gone = true,
            Stop::Event => {}
            Stop::Signal(_) | Stop::SystemCall => self.is_interrupted = true,
        }
        self.holder = thread;
        Ok(())
    }

    /// Runs the child until a signal comes that the caller stops for, or until the
    /// flag is set. This thread must [hold](Self::hold) it.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(crate) fn run<T>(
        &mut self,
        flag: &AtomicU8,
        mut judge: impl FnMut(&mut Self, Stop) -> io::Result<Verdict<T>>,
    ) -> io::Result<Ran<T>> {
        if self.is_gone {
            return Ok(Ran::Gone(0));
        }
        let mut ticks = 0;
        let mut is_due = false;
        self.calls += self.place.follow(self.pid());
        self.load()?;
        self.runs += 1;
        loop {
            match self.step(flag, is_due)? {
                Stop::Gone(signal) => return Ok(Ran::Gone(signal)),
                Stop::Signal(libc::SIGPROF) => {
                    ticks += 1;
                    if ticks == 2 {
                        self.calls += self.place.release(self.pid());
                    }
                }
                Stop::Event => {
                    self.is_interrupted = false;
                    // One that is under way is not to be told from where it is sent.
                    is_due = self.pid().is_faulting()?;
                    self.calls += 1;
                    if flag.load(Ordering::SeqCst) != 0 && !is_due {
                        self.look()?;
                        return Ok(Ran::Interrupted);
                    }
                    continue;
                }
                stop @ (Stop::Signal(_) | Stop::SystemCall) => {
                    if let Verdict::Stop(result) = judge(self, stop)? {
                        return Ok(Ran::Stopped(result));
                    }
                }
            }
            is_due = false;
        }
    }

    /// Lets it go on until the next stop. If the flag is set it is interrupted, unless
    /// a signal is due that stops it anyway.
    fn step(&mut self, flag: &AtomicU8, is_due: bool) -> io::Result<Stop> {
        let pid = self.pid();
        // One that is dead cannot go on; it is waited for.
        self.alive(pid.resume_guest())?;
        self.calls += 2;
        loop {
            if flag.load(Ordering::SeqCst) != 0 && !self.is_interrupted && !is_due {
                self.is_interrupted = true;
                self.calls += 1;
                self.alive(pid.interrupt())?;
            }
            match pid.wait() {
                Ok(stop) => {
                    if let Stop::Gone(_) = stop {
                        self.is_gone = true;
                        self.leash.has_ended();
                    }
                    return Ok(stop);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.calls += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the child the registers that were changed.
    fn load(&mut self) -> io::Result<()> {
        let result = match self.change {
            Change::None => return Ok(()),
            Change::Rip => self.pid().set_rip(self.registers.rip),
            Change::All => self.pid().set_registers(&self.registers),
        };
        self.calls += 1;
        self.alive(result)?;
        self.change = Change::None;
        Ok(())
    }

    /// What the kernel refuses as the child is dead is no error: waiting tells.
    fn alive(&self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
impl Child {
    /// How many processors it may run on.
    pub(crate) fn processors(&self) -> i32 {
        self.place.processors(self.pid())
    }

    /// Waits for the signal that kills it.
    pub(crate) fn wait_for_end(&self) -> i32 {
        match self.pid().wait_through() {
            Ok(Stop::Gone(signal)) => {
                self.leash.has_ended();
                signal
            }
            other => panic!("it should have died, {other:?} came"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.leash.end();
    }
}

impl Step {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Bind => "make a process that dies with this one",
            Self::Limit => "limit a process",
            Self::Unmap => "remove what the kernel maps into a process",
            Self::Map => "map a guest's memory into a process",
            Self::Close => "close a process's files",
            Self::Filter => "forbid a process all system calls",
            Self::Vanish => "remove the last code of ours from a process",
        }
    }
}
