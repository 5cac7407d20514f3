//! The raw floor of a backend without a hypervisor: a traced child that faults
//! on `out`.
//!
//! [`Traced::ring`] is one `PTRACE_CONT` and one `waitpid`. The child goes on at the
//! same `out` and faults again: no register is read or written, no filter is in
//! its way. As the backend does, the floor keeps the child on the tracer's processor.
#![allow(unsafe_code, reason = "fork, ptrace, and an instruction that faults")]

use std::arch::asm;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

/// A live child that faults for ever. Only the thread that made it may use it.
#[derive(Debug)]
pub struct Traced {
    child: libc::pid_t,
    processor: i32,
    this_thread: PhantomData<*mut ()>,
}

impl Traced {
    /// Forks the child, which stops at its first fault.
    ///
    /// # Errors
    ///
    /// What the system said; `Unsupported` if the child stops otherwise.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the child makes three system calls and then faults for ever; it
        // takes no lock and returns to nobody.
        let child = unsafe { libc::fork() };
        match child {
            -1 => Err(io::Error::last_os_error()),
            0 => fault_for_ever(),
            _ => {
                let mut traced = Self { child, processor: -1, this_thread: PhantomData };
                traced.wait()?;
                traced.stay_beside()?;
                Ok(traced)
            }
        }
    }

    /// Lets the child go on until it faults again.
    ///
    /// # Errors
    ///
    /// What the system said; `Unsupported` if the child stops otherwise.
    pub fn ring(&mut self) -> io::Result<()> {
        self.stay_beside()?;
        let none = ptr::null_mut::<libc::c_void>();
        // SAFETY: the child is this thread's, and stopped; no signal is delivered.
        let gone_on = unsafe { libc::ptrace(libc::PTRACE_CONT, self.child, none, none) };
        if gone_on != 0 {
            return Err(io::Error::last_os_error());
        }
        self.wait()
    }

    /// Makes a child, lets it ring once, and ends it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new) and [`ring`](Self::ring).
    pub fn create_ring_kill() -> io::Result<()> {
        Self::new()?.ring()
    }

    fn wait(&self) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: the status is a live local.
        let waited = unsafe { libc::waitpid(self.child, &raw mut status, 0) };
        if waited != self.child {
            return Err(io::Error::last_os_error());
        }
        let faulted = libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSEGV;
        if faulted { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Moves the child to the processor that this thread is on, if it is another.
    fn stay_beside(&mut self) -> io::Result<()> {
        let here = here();
        if here != self.processor {
            allow(self.child, &only(here)?)?;
            self.processor = here;
        }
        Ok(())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // SAFETY: the child is ours and not yet waited for.
        unsafe { libc::kill(self.child, libc::SIGKILL) };
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(self.child, ptr::null_mut(), 0) };
    }
}

/// While it lives, the thread that made it stays on its processor: of one that is
/// moved, the child is elsewhere until the next ring, and the floor is no floor.
#[derive(Debug)]
pub struct Pinned {
    before: libc::cpu_set_t,
    this_thread: PhantomData<*mut ()>,
}

impl Pinned {
    /// Keeps this thread where it is.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn here() -> io::Result<Self> {
        let mut before = none();
        // SAFETY: the set is a live local of the length that is named.
        let asked = unsafe { libc::sched_getaffinity(0, size_of_val(&before), &raw mut before) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        allow(0, &only(here())?)?;
        Ok(Self { before, this_thread: PhantomData })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What was allowed before is allowed again.
        let _ = allow(0, &self.before);
    }
}

/// The processor that this thread is on.
fn here() -> i32 {
    // SAFETY: it has no precondition.
    unsafe { libc::sched_getcpu() }
}

fn none() -> libc::cpu_set_t {
    // SAFETY: all zeros is the empty set.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn only(processor: i32) -> io::Result<libc::cpu_set_t> {
    let mut set = none();
    let processor = usize::try_from(processor).map_err(io::Error::other)?;
    // SAFETY: the set is a live local; the macro checks the number.
    unsafe { libc::CPU_SET(processor, &mut set) };
    Ok(set)
}

/// Lets a thread, 0 for this one, run on these processors only.
fn allow(thread: libc::pid_t, set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set is live and of the length that is named.
    let done = unsafe { libc::sched_setaffinity(thread, size_of_val(set), set) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the child does.
fn fault_for_ever() -> ! {
    // SAFETY: asks for a signal when the parent ends.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: asks to be traced by the parent.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) };
    loop {
        // SAFETY: faults, as ring 3 has no port; it changes nothing.
        unsafe { asm!("out 1, al", in("al") 0_u8, options(nomem, nostack)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_faults_as_often_as_it_is_let() {
        let mut traced = Traced::new().unwrap();
        (0..100).for_each(|_| traced.ring().unwrap());
    }
}
