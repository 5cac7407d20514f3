//! ptrace and waitpid: one function for each request, and what a stop means.
//!
//! A child is only ever resumed in one of two ways: [`Pid::resume_guest`], which
//! leaves it no system call, and [`Pid::resume_stub`], for the few instructions of
//! ours that prepare it (`stub.rs`).
//!
//! Source of facts: ptrace(2), and the kernel's `kernel/ptrace.c`.

use std::ffi::c_void;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

pub(crate) use libc::user_regs_struct as Registers;

/// A child that has not been waited for to its end: so the number is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pid(pub(crate) i32);

/// What the kernel said of a child that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A signal is about to be delivered: one that its last instruction caused, or
    /// somebody's.
    Signal(i32),
    /// It was about to enter the kernel, and has not.
    SystemCall,
    /// It was interrupted, or stopped or continued by a signal of somebody's.
    Event,
    /// There is no such child any more: the signal that killed it, or zero.
    Gone(i32),
}

/// What the kernel says of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) number: i32,
    /// Why: positive if the kernel sent it.
    pub(crate) code: i32,
    /// Where, if an instruction caused it.
    pub(crate) address: u64,
}

/// Options: the child dies with the thread that traces it, if that ends without
/// letting go; and system calls are told from traps.
const OPTIONS: i32 = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
/// How a stop at a system call is told from a trap.
const SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;
/// How many signals are looked at that wait for a child: one per number at most,
/// but for real-time ones, and the kernel's own come first.
const WAITING: u16 = 32;

impl Stop {
    /// Reads off a status what `waitpid` means by it.
    pub(crate) fn of(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            return Self::Gone(libc::WTERMSIG(status));
        }
        if !libc::WIFSTOPPED(status) {
            return Self::Gone(0);
        }
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_STOP, _) => Self::Event,
            (_, SYSTEM_CALL) => Self::SystemCall,
            (_, signal) => Self::Signal(signal),
        }
    }
}

impl Pid {
    /// Begins to trace the child, which goes on.
    pub(crate) fn seize(self) -> io::Result<()> {
        let options = ptr::without_provenance_mut(OPTIONS.cast_unsigned() as usize);
        self.request(libc::PTRACE_SEIZE, 0, options)
    }

    /// Has a child that this thread traces stop as soon as it can: once.
    pub(crate) fn interrupt(self) -> io::Result<()> {
        self.request(libc::PTRACE_INTERRUPT, 0, ptr::null_mut())
    }

    /// Lets it go on until it stops, the latest at a system call, which it does not
    /// make. The signal that it stopped for, if any, is forgotten.
    pub(crate) fn resume_guest(self) -> io::Result<()> {
        self.request(libc::PTRACE_SYSEMU, 0, ptr::null_mut())
    }

    /// The same for the stub, which makes system calls.
    pub(crate) fn resume_stub(self) -> io::Result<()> {
        self.request(libc::PTRACE_CONT, 0, ptr::null_mut())
    }

    /// Ceases to trace it. It goes on, unless SIGSTOP waits for it.
    pub(crate) fn detach(self) -> io::Result<()> {
        self.request(libc::PTRACE_DETACH, 0, ptr::null_mut())
    }

    /// Reads the general registers.
    pub(crate) fn registers(self) -> io::Result<Registers> {
        let mut registers = MaybeUninit::<Registers>::zeroed();
        self.request(libc::PTRACE_GETREGS, 0, registers.as_mut_ptr().cast())?;
        // SAFETY: integers, of which any value is valid; the kernel filled them in.
        Ok(unsafe { registers.assume_init() })
    }

    /// Sets them.
    pub(crate) fn set_registers(self, registers: &Registers) -> io::Result<()> {
        self.request(libc::PTRACE_SETREGS, 0, ptr::from_ref(registers).cast_mut().cast())
    }

    /// Sets the next instruction only: a third of the cost.
    pub(crate) fn set_rip(self, rip: u64) -> io::Result<()> {
        let at = offset_of!(Registers, rip);
        // On x86-64 the machine's word is 64 bits.
        self.request(libc::PTRACE_POKEUSER, at, ptr::without_provenance_mut(word(rip)))
    }

    /// Reads what the signal says that it stopped for.
    pub(crate) fn signal(self) -> io::Result<Signal> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        self.request(libc::PTRACE_GETSIGINFO, 0, info.as_mut_ptr().cast())?;
        // SAFETY: zeroed before, and the kernel filled it in: integers.
        Ok(read(unsafe { info.assume_init_ref() }))
    }

    /// Whether a signal waits for it that its own last instruction caused.
    pub(crate) fn is_faulting(self) -> io::Result<bool> {
        let look = PeekArguments { offset: 0, flags: 0, count: WAITING.into() };
        let mut infos = [const { MaybeUninit::<libc::siginfo_t>::zeroed() }; WAITING as usize];
        let from = ptr::from_ref(&look).expose_provenance();
        let seen = self.requested(libc::PTRACE_PEEKSIGINFO, from, infos.as_mut_ptr().cast())?;
        let seen = usize::try_from(seen).unwrap_or(0);
        let mut signals = infos.iter().take(seen).map(|info| {
            // SAFETY: zeroed before, and the kernel filled it in: integers.
            read(unsafe { info.assume_init_ref() })
        });
        Ok(signals.any(|signal| signal.is_fault()))
    }

    /// Waits until the child stops or ends.
    ///
    /// # Errors
    ///
    /// `Interrupted` if a signal came to this thread. Never that there is no child.
    pub(crate) fn wait(self) -> io::Result<Stop> {
        let mut status = 0;
        // SAFETY: writes one integer, which is a live local.
        if unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) } >= 0 {
            return Ok(Stop::of(status));
        }
        let error = io::Error::last_os_error();
        // Whoever ignores SIGCHLD, or waits for all children, has had it.
        if error.raw_os_error() == Some(libc::ECHILD) { Ok(Stop::Gone(0)) } else { Err(error) }
    }

    /// Whether it has ended, and how; does not wait.
    pub(crate) fn gone(self) -> io::Result<Option<Stop>> {
        let mut status = 0;
        // SAFETY: writes one integer, which is a live local.
        match unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL | libc::WNOHANG) } {
            0 => Ok(None),
            1.. => Ok(Some(Stop::of(status)).filter(|stop| matches!(stop, Stop::Gone(_)))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits, whatever signals come to this thread.
    pub(crate) fn wait_through(self) -> io::Result<Stop> {
        loop {
            match self.wait() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Sends the child a signal.
    pub(crate) fn kill(self, signal: i32) {
        // SAFETY: kill has no memory to touch, and the number is the child's: it has
        // not been waited for to its end. A child cannot be out of its parent's
        // reach, but by changing its user, which it has no system call for.
        unsafe { libc::kill(self.0, signal) };
    }

    fn request(self, request: libc::c_uint, at: usize, data: *mut c_void) -> io::Result<()> {
        self.requested(request, at, data).map(drop)
    }

    fn requested(
        self,
        request: libc::c_uint,
        at: usize,
        data: *mut c_void,
    ) -> io::Result<libc::c_long> {
        let at = ptr::with_exposed_provenance_mut::<c_void>(at);
        // SAFETY: the callers above, which are all there are, pass with each request
        // what ptrace(2) says that it reads or writes: an integer in place of a
        // pointer, or a live local of the right type. To another process it does
        // what a program that may do so can do anyway.
        let result = unsafe { libc::ptrace(request, self.0, at, data) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}

impl Signal {
    /// Whether an instruction caused it, rather than somebody sent it.
    pub(crate) fn is_fault(self) -> bool {
        const OF_INSTRUCTIONS: [i32; 6] =
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
        self.code > 0 && OF_INSTRUCTIONS.contains(&self.number)
    }
}

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct PeekArguments {
    offset: u64,
    flags: u32,
    count: i32,
}

fn read(info: &libc::siginfo_t) -> Signal {
    // SAFETY: every siginfo has these bytes, and as integers all are valid: the
    // address of a fault, and of a system call (sigaction(2)), are at one offset.
    let address = unsafe { info.si_addr() };
    Signal { number: info.si_signo, code: info.si_code, address: address.addr() as u64 }
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "this is for x86-64 only");

fn word(value: u64) -> usize {
    usize::from_ne_bytes(value.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_why_a_child_stopped() {
        let stopped = |signal: i32, event: i32| Stop::of(event << 16 | signal << 8 | 0x7f);
        assert_eq!(stopped(libc::SIGSEGV, 0), Stop::Signal(libc::SIGSEGV));
        assert_eq!(stopped(libc::SIGTRAP, 0), Stop::Signal(libc::SIGTRAP));
        assert_eq!(stopped(libc::SIGTRAP | 0x80, 0), Stop::SystemCall);
        assert_eq!(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP), Stop::Event);
        assert_eq!(stopped(libc::SIGSTOP, libc::PTRACE_EVENT_STOP), Stop::Event);
        assert_eq!(Stop::of(libc::SIGKILL), Stop::Gone(libc::SIGKILL));
        assert_eq!(Stop::of(3 << 8), Stop::Gone(0));
    }

    #[test]
    fn only_the_kernel_s_own_signals_are_faults() {
        let signal = |number, code| Signal { number, code, address: 0 };
        assert!(signal(libc::SIGSEGV, 0x80).is_fault());
        assert!(!signal(libc::SIGSEGV, libc::SI_USER).is_fault());
        assert!(!signal(libc::SIGSEGV, libc::SI_TKILL).is_fault());
        assert!(!signal(libc::SIGPROF, 0x80).is_fault());
    }
}
