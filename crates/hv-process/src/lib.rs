//! The backend for machines without a hypervisor: the same guest binary in a traced
//! child process.
//!
//! It is for development and CI. It gives no hardware isolation: what stands between
//! a guest and the host is the host's own kernel. A program asks for it by name.
//!
//! * [`Process`] says whether this machine allows it (`probe.rs`).
//! * `template.rs` holds what all partitions of an image share; `stub.rs` is the program
//!   that a child begins as, which leaves nothing of itself; `keeper.rs` makes children.
//! * `partition.rs` is what a host has of a guest; `judge.rs` says what a stop of the
//!   child means: a doorbell, with `instruction.rs`, or a fault, with `fault.rs`.
//! * `child.rs` resumes it and waits; `handover.rs`, with `signal.rs`, says which
//!   thread does; `affinity.rs` on which processor; `registers.rs` what it has in its
//!   registers.
//! * `dirty.rs` tells which pages were written, `clock.rs` what `rdtsc` shows.
//! * `trace.rs` is the system calls themselves.
//!
//! # What a run is
//!
//! ```text
//!  PTRACE_SYSEMU   the child goes on, on this thread's processor
//!    out 1, al     is not for a program: #GP, SIGSEGV, which the tracer gets
//!  waitpid
//!  PTRACE_GETREGS  at RIP are the bytes of an `out` to the doorbell: AL is the byte
//!  PTRACE_POKEUSER RIP is behind it, before it goes on
//! ```
//!
//! Four system calls, of which the first two are the floor. Only if there is no `out` is the kernel asked what the signal was. A kick is a
//! signal to the thread that waits, which then interrupts the child.
//!
//! # What stands between a guest and the host
//!
//! The guest is hostile. In the child it finds:
//!
//! * its own memory and nothing else: no stack of the kernel's making, no vDSO, no
//!   environment, no code of ours. What it cannot write it cannot make writable.
//! * no system call. The first wall: guest code is resumed in one place
//!   (`Child::step`) and one way (`PTRACE_SYSEMU`), which stops at the entry
//!   and skips the call, whichever of the processor's ways in it took. The second: a
//!   seccomp filter that kills for any call but one, which only an instruction could
//!   make that is no longer there. So a guest that somebody lets go on without a tracer
//!   dies of its first system call, or of its first doorbell.
//! * no files, no privileges to gain, no core dumps, a process group of its own.
//!
//! The child is killed when the process ends that made it, however it ends
//! (`PR_SET_PDEATHSIG`), and when the thread ends that traces it, unless that lets go
//! of it first. What a guest names is checked and copied as everywhere
//! (`cellule_hv::Memory`); text is sealed, so the `out` that is read is the one that
//! ran; late memory is a file that is not yet that long, and cannot be made shorter.
//!
//! What remains is what any program can do to a kernel without calling it: exceptions,
//! page faults, the vsyscall page (which comes to a page fault), `vmcall` to a hypervisor
//! below, cache and timing channels.
//!
//! # What differs from KVM
//!
//! A guest that keeps to the ABI cannot tell. Of others:
//!
//! * Error codes: Linux keeps them to itself. A page fault's is put together from the
//!   signal and the instruction; of a protection fault only the one of `int n` is known,
//!   else it is zero. Supervisor pages are simply not there (not present, rather than
//!   protected).
//! * `in` from the doorbell's port and repeated `out` are #GP, rather than exits of KVM's
//!   that end the guest; with a count of zero KVM's are no access at all.
//! * `syscall` is #UD and `int 0x80` #GP, at the instruction, as on a processor
//!   where they are switched off (`kvm_pvm` does something else of each). `sysenter` loses
//!   where it came from: it is a page fault or #GP elsewhere, or #UD on AMD's
//!   processors.
//! * `int3`, `int1` and `int 3` are #BP and #DB behind the instruction, as they are on
//!   `kvm_pvm`; a processor whose gates are not for ring 3 reports #GP at `int3`.
//!   `int 4` is #GP behind the instruction.
//! * `sgdt`, `sidt` and `smsw` may run, and show numbers that Linux made up or, on a
//!   processor without UMIP, where the host's kernel has its tables.
//! * With the alignment flag set an access that is not aligned is #AC: Linux switches
//!   that on. The flag ID, and the flag that the debugger owns, stay as they are through
//!   [`restart`](cellule_hv::Partition::restart).
//! * Segment selectors have the numbers of Linux, and a guest can get to 32-bit code
//!   through them. It is as locked in there.
//! * MXCSR with reserved bits is #GP, as on a processor (`kvm_pvm`: #UD).
//!
//! # What a host must leave alone
//!
//! It must not wait for children that are not its own (`waitpid(-1)`), nor ignore SIGCHLD
//! (`SIG_IGN`), nor block on its threads the signals that this takes: the two highest
//! real-time ones that are free. Each doorbell sends the process SIGCHLD, which is nothing
//! unless it has a handler.
#![allow(
    unsafe_code,
    reason = "ptrace, a signal handler, files in memory, processor affinity, the TSC"
)]

mod affinity;
mod child;
mod clock;
mod dirty;
mod fault;
mod handover;
mod instruction;
mod judge;
mod keeper;
mod partition;
mod probe;
mod registers;
mod signal;
mod stub;
mod template;
mod trace;

use std::io;
use std::sync::Arc;

use cellule_hv::{Caps, CreateError, Hypervisor, Plan, Template};

use dirty::Way;

/// A machine that lets this program have traced children.
///
/// ```no_run
/// use cellule_hv::Hypervisor;
/// use cellule_hv_process::Process;
///
/// let process = Process::open()?;
/// assert_eq!(process.name(), "process");
/// # Ok::<(), cellule_hv_process::OpenError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Process {
    way: Way,
    vector_state: u64,
}

/// This machine does not let programs have traced children.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no `/proc`.
    #[error(
        "/proc is not there, which programs in memory are started through: mount it (mount -t proc proc /proc)"
    )]
    NoProc,
    /// `ptrace` is refused.
    #[error(
        "this system does not let a program trace its children ({0}): in a container, allow it \
         (docker run --cap-add=SYS_PTRACE, or a seccomp profile that permits ptrace); \
         elsewhere, set kernel.yama.ptrace_scope to 0 or 1"
    )]
    NoTracing(#[source] io::Error),
    /// A file in memory may not be executed.
    #[error(
        "this system does not let a program execute a file in memory ({0}): set vm.memfd_noexec \
         to 0 or 1, and see what the rules of SELinux or AppArmor say"
    )]
    NoExecution(#[source] io::Error),
    /// seccomp is refused.
    #[error(
        "this system does not let a process forbid itself system calls ({0}): it needs a kernel \
         with CONFIG_SECCOMP_FILTER, and a container whose profile permits prctl and seccomp"
    )]
    NoFilter(#[source] io::Error),
    /// The vDSO cannot be unmapped.
    #[error(
        "this kernel does not let a process unmap what the kernel maps into it ({0}): it needs one \
         built without CONFIG_MSEAL_SYSTEM_MAPPINGS"
    )]
    Sealed(#[source] io::Error),
    /// A system call is missing.
    #[error("this kernel cannot close all files of a process at once ({0}): it needs Linux 5.9")]
    TooOld(#[source] io::Error),
    /// Something else went wrong.
    #[error("cannot {step}: {source}")]
    Other {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Process {
    /// Makes a child, has it ring, and ends it, to see whether all of that is allowed.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is not, and how to have it.
    ///
    /// # Cost
    ///
    /// Less than a millisecond. The first time in a process it starts the thread that
    /// makes all children, and that never ends.
    pub fn open() -> Result<Self, OpenError> {
        clock::begin();
        Ok(Self { way: probe::look()?, vector_state: clock::vector_state() })
    }
}

impl Hypervisor for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn capabilities(&self) -> Caps {
        let exact_dirty_pages = self.way == Way::Marks;
        Caps { vector_state: self.vector_state, exact_dirty_pages }
    }

    fn template(&self, plan: Plan) -> Result<Arc<dyn Template>, CreateError> {
        Ok(Arc::new(template::ProcessTemplate::new(plan, self.way)?))
    }
}
