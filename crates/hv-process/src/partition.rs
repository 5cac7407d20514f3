//! One child, its memory, and where the guest in it stands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cellule_hv::{
    Counters, CreateError, Exit, GuestClock, Gva, Memory, PageSet, Partition, Position, Registers,
    RunError, Unexpected,
};
use cellule_kick::{AlarmError, Kicker, Target};
use cellule_mem::Region;

use crate::child::{Child, Ran};
use crate::dirty::{Account, Sight, Way};
use crate::judge::{Seen, judge};
use crate::keeper::Order;
use crate::template::ProcessTemplate;
use crate::trace;
use crate::{clock, registers};

/// One child process and its private memory.
///
/// Fields are dropped in order: the child before its memory.
#[derive(Debug)]
pub(crate) struct ProcessPartition {
    child: Child,
    memory: Memory,
    private: Arc<Region>,
    stand: Stand,
    way: Way,
    account: Option<Account>,
    target: Target,
    /// Set by a signal's handler during a run. If the run comes to something else it
    /// stays set, and stops the next.
    kicked: AtomicU8,
    /// System calls that are not the child's.
    calls: u64,
}

/// What the guest may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It was stopped between two instructions.
    Anywhere,
    /// The same, and the caller knows where.
    Known,
    /// It faulted.
    Fault,
    /// There is no process any more, or one that nobody understands.
    Lost,
}

impl ProcessPartition {
    pub(crate) fn new(template: &ProcessTemplate) -> Result<Self, CreateError> {
        const STEP: &str = "pass memory to a process";
        let refused = |source| CreateError::Refused { step: STEP, source };
        let target = Target::new()?;
        let private = Arc::new(Region::growing(template.private_len, template.early_len)?);
        let file = private.file().ok_or_else(|| refused(io::ErrorKind::Unsupported.into()))?;
        let shared = template.shared.file().try_clone_to_owned().map_err(refused)?;
        let file = file.try_clone_to_owned().map_err(refused)?;
        let order = Order { stub: Arc::clone(&template.program), files: [shared, file] };
        let child = Child::new(order, &template.stub, template.start)?;
        let memory = Memory::new(
            Arc::clone(&template.space),
            (Arc::clone(&template.region), 0),
            (Arc::clone(&private), 0),
        );
        Ok(Self {
            child,
            memory,
            private,
            stand: Stand::Known,
            way: template.way,
            account: None,
            target,
            kicked: AtomicU8::new(0),
            calls: 0,
        })
    }

    /// Runs the child until it stops for something, or must not be run now.
    fn enter(&mut self) -> Result<Ran<Seen>, RunError> {
        let timer = |error: AlarmError| failed("arm a timer", io::Error::other(error));
        let Self { child, memory, target, kicked, .. } = self;
        // SAFETY: the flag is this partition's, which is borrowed until the guard is
        // dropped, at the end of this function.
        let running = unsafe { target.enter_until_stopped(kicked.as_ptr()) }.map_err(timer)?;
        if running.is_none() {
            return Ok(Ran::Interrupted);
        }
        let judge = |child: &mut Child, stop| judge(child, memory, stop);
        child.run(kicked, judge).map_err(|source| failed("run a process", source))
    }

    /// Runs a guest that nobody can kick, and tells whether it rang. An alarm that this
    /// thread has for another partition is not used up.
    pub(crate) fn rings_once(&mut self) -> Result<bool, RunError> {
        let Self { child, memory, kicked, account, .. } = self;
        account.iter_mut().for_each(Account::has_run);
        let ran = child.run(kicked, |child, stop| judge(child, memory, stop));
        let ran = ran.map_err(|source| failed("run a process", source))?;
        Ok(matches!(ran, Ran::Stopped(Seen::Doorbell(_))))
    }

    /// What the account looks at.
    fn sight(&self) -> Result<Sight<'_>, RunError> {
        let none = || failed("find private memory", io::ErrorKind::Unsupported.into());
        let file = self.private.file().ok_or_else(none)?;
        Ok(Sight { child: self.child.pid(), file, space: self.memory.space() })
    }

    /// Does something with the account, which is put back whatever comes of it.
    fn with_account(
        &mut self,
        step: &'static str,
        act: impl FnOnce(&mut Account, Sight<'_>) -> io::Result<u64>,
    ) -> Result<(), RunError> {
        let mut account = self.account.take().ok_or_else(|| misuse(step))?;
        let done = self
            .sight()
            .and_then(|sight| act(&mut account, sight).map_err(|source| failed(step, source)));
        self.account = Some(account);
        self.calls += done?;
        Ok(())
    }
}

impl Partition for ProcessPartition {
    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn run(&mut self) -> Result<Exit, RunError> {
        const STEP: &str = "run a guest that has faulted, or is gone";
        if matches!(self.stand, Stand::Fault | Stand::Lost) {
            return Err(misuse(STEP));
        }
        self.child.hold().map_err(|source| {
            failed("take a guest over from the thread that ran it last", source)
        })?;
        let ran = if self.kicked.load(Ordering::SeqCst) == 0 {
            self.account.iter_mut().for_each(Account::has_run);
            self.enter()?
        } else {
            Ran::Interrupted
        };
        match ran {
            Ran::Interrupted => {
                self.kicked.store(0, Ordering::SeqCst);
                self.stand = Stand::Anywhere;
                Ok(Exit::Kicked)
            }
            Ran::Stopped(Seen::Doorbell(byte)) => {
                self.stand = Stand::Anywhere;
                Ok(Exit::Doorbell(byte))
            }
            Ran::Stopped(Seen::Fault(fault)) => {
                self.stand = Stand::Fault;
                Ok(Exit::Fault(fault))
            }
            Ran::Stopped(Seen::Machine(signal)) => {
                self.stand = Stand::Lost;
                let what = "a failure of the machine's memory";
                Ok(Exit::Unexpected(Unexpected { what, detail: signal.unsigned_abs().into() }))
            }
            Ran::Gone(signal) => {
                self.stand = Stand::Lost;
                Err(killed(signal))
            }
        }
    }

    fn position(&mut self) -> Result<Option<Position>, RunError> {
        if !matches!(self.stand, Stand::Anywhere | Stand::Known) {
            return Err(misuse("tell where a stopped guest stands"));
        }
        self.stand = Stand::Known;
        let registers = self.child.registers();
        Ok(Some(Position { rip: Gva(registers.rip), rsp: Gva(registers.rsp) }))
    }

    fn divert(&mut self, to: Position) -> Result<(), RunError> {
        if self.stand != Stand::Known {
            return Err(misuse("divert a guest from where it is not known to be"));
        }
        let registers = *self.child.registers();
        self.child.set_registers(trace::Registers { rip: to.rip.0, rsp: to.rsp.0, ..registers });
        Ok(())
    }

    fn registers(&mut self) -> Result<Registers, RunError> {
        if self.stand != Stand::Known {
            return Err(misuse("read the registers of a guest that is not known to be in ring 3"));
        }
        Ok(registers::read(self.child.registers()))
    }

    fn restart(&mut self, registers: &Registers) -> Result<(), RunError> {
        if !matches!(self.stand, Stand::Fault | Stand::Known) {
            return Err(misuse("restart a guest that has not faulted"));
        }
        self.child.set_registers(registers::of(registers));
        self.stand = Stand::Known;
        Ok(())
    }

    fn track(&mut self) -> Result<(), RunError> {
        if self.account.is_some() {
            return Ok(());
        }
        let opened = Account::open(self.way, self.sight()?);
        let (account, calls) = opened.map_err(|source| failed("mark pages as clean", source))?;
        self.calls += calls;
        self.memory.track();
        self.account = Some(account);
        Ok(())
    }

    fn dirty(&mut self, pages: &mut PageSet) -> Result<(), RunError> {
        const STEP: &str = "tell which pages were written";
        self.with_account(STEP, |account, sight| account.add_to(pages, sight))?;
        self.memory.written(pages);
        Ok(())
    }

    fn rearm(&mut self, pages: &PageSet) -> Result<(), RunError> {
        const STEP: &str = "mark pages as clean again";
        self.with_account(STEP, |account, sight| account.rearm(pages, sight))?;
        self.memory.rearm(pages);
        Ok(())
    }

    fn clock(&mut self) -> Result<GuestClock, RunError> {
        const STEP: &str = "find a time stamp counter that runs evenly";
        let khz = clock::khz().map_err(|source| failed(STEP, source))?;
        Ok(GuestClock::read(khz, 0, clock::host_tsc))
    }

    fn extend(&mut self) -> Result<(), RunError> {
        self.calls += 1;
        self.private.grow().map_err(|source| failed("make memory longer", source))
    }

    fn kicker(&self) -> Kicker {
        self.target.kicker()
    }

    fn clear_kick(&mut self) {
        self.target.clear();
    }

    fn is_kicked(&self) -> bool {
        self.target.is_requested()
    }

    fn counters(&self) -> Counters {
        let Child { runs, calls, .. } = self.child;
        Counters { exits: runs, hypercalls: calls + self.calls }
    }
}

fn failed(step: &'static str, source: io::Error) -> RunError {
    RunError { step, source }
}

/// The caller asked for what the state does not allow.
fn misuse(step: &'static str) -> RunError {
    failed(step, io::ErrorKind::InvalidInput.into())
}

fn killed(signal: i32) -> RunError {
    let source = match signal {
        libc::SIGKILL => io::Error::other("it was killed, by hand or for want of memory (SIGKILL)"),
        0 => io::Error::other("it is gone: this program waits for children that are not its own"),
        _ => io::Error::other(Killed { signal }),
    };
    failed("keep a guest's process alive", source)
}

/// A process ended with a signal that none of ours should get.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it was killed by signal {signal}")]
struct Killed {
    signal: i32,
}

#[cfg(test)]
mod tests;
