//! Upcalls at every instruction.
//!
//! An ordinary program's tasks are real, and so is all that upcalls meet: the
//! entry, the mask, sections, switches. What is missing is a host that stops the
//! program between two instructions; the trap flag does that, and [`host`] plays
//! its part. Each scenario runs with upcalls at every instruction that is not
//! masked, twice: with FXSAVE a timer expires at every second upcall, with XSAVE
//! at each, and wakes a task that is more urgent than all others, which preempts
//! right there.
//!
//! * `host`: when it stops whom, and what it holds against the kernel.
//! * `context`: the registers of what it stopped.
//! * `leaf`: a function that uses all registers and the red zone.
//! * `scenarios`: what is stepped.

mod context;
mod host;
mod leaf;
mod scenarios;

use alloc::boxed::Box;
use alloc::vec;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use self::context::Context;
use self::host::{Figures, Host};
use super::block::BLOCK;
use super::{Core, Section, upcall};
use crate::port;

/// Whether a test plays the host.
static STEPPING: AtomicBool = AtomicBool::new(false);
/// A task that need not be stepped any more.
static FAMILIAR: AtomicU32 = AtomicU32::new(NO_TASK);
const NO_TASK: u32 = u32::MAX;

/// How much time has passed that the kernel has not looked at: where a test plays
/// the host, that does not stand still.
static UNSEEN_NS: AtomicU64 = AtomicU64::new(0);
/// How often it has looked; and of so many looks, one is stepped.
static LOOKS: AtomicU32 = AtomicU32::new(0);
const LOOKS_STEPPED: u32 = 37;

/// The handler's knowledge, while there is a [`Stepping`].
struct Shared(UnsafeCell<Option<Host>>);

// SAFETY: reached by the handler, which runs on the thread that has the kernel,
// between two of its instructions; and by that thread while it is not stepped.
unsafe impl Sync for Shared {}

static HOST: Shared = Shared(UnsafeCell::new(None));

/// The task block, as a host reads and writes it.
mod block {
    use super::{BLOCK, Ordering};

    pub(super) fn task() -> u32 {
        BLOCK.task.load(Ordering::Relaxed)
    }

    pub(super) fn mask() -> u32 {
        BLOCK.mask.load(Ordering::Relaxed)
    }

    pub(super) fn set_mask() {
        BLOCK.mask.store(1, Ordering::Relaxed);
    }

    pub(super) fn pending() -> bool {
        BLOCK.pending.load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_pending() {
        BLOCK.pending.store(1, Ordering::Relaxed);
    }
}

/// The kernel's way to unmask upcalls: that which a test plays the host for does
/// not go unwatched.
#[inline(always)]
pub(crate) fn unmask() {
    watch();
    upcall::unmask();
}

/// The kernel's way to look at what a host has done: here it lets time pass.
pub(crate) fn take_completions(core: &mut Core) {
    let passed = UNSEEN_NS.swap(0, Ordering::Relaxed);
    if passed != 0 {
        let now = core.now().saturating_add(passed);
        core.advance(now);
        port::set_virtual(now);
    }
    if LOOKS.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKS_STEPPED) {
        watch();
    }
}

/// Sets the trap flag, if the task is stepped.
fn watch() {
    if STEPPING.load(Ordering::Relaxed) && FAMILIAR.load(Ordering::Relaxed) != block::task() {
        // SAFETY: a trap is what the handler is there for (`Stepping`); the stack
        // is left as it was.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    }
}

/// Clears the trap flag.
fn unwatch() {
    // SAFETY: nothing else is changed; the stack is left as it was.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
}

/// While it lives, this thread's tasks are stepped.
struct Stepping {
    action: libc::sigaction,
    stack: libc::stack_t,
    _own_stack: Box<[u8]>,
}

impl Stepping {
    /// For the handler, unoptimised, and the state of all registers.
    const STACK_BYTES: usize = 256 * 1024;

    /// Has the handler called after each instruction; `urgent` is the task that
    /// upcalls wake.
    fn begin(urgent: u32) -> Self {
        BLOCK.task.store(Section::enter().running.into(), Ordering::Relaxed);
        FAMILIAR.store(NO_TASK, Ordering::Relaxed);
        // SAFETY: this thread has the kernel, and is not stepped yet.
        unsafe { *HOST.0.get() = Some(Host::new(urgent)) };
        let mut own_stack = vec![0; Self::STACK_BYTES].into_boxed_slice();
        let stack = install_stack(libc::stack_t {
            ss_sp: own_stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: own_stack.len(),
        });
        // SAFETY: all zeros are such an action: no handler, no flags, no signals.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_trap as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let action = install(action);
        STEPPING.store(true, Ordering::Relaxed);
        watch();
        Self { action, stack, _own_stack: own_stack }
    }

    /// What the host has seen so far.
    fn end(self) -> Figures {
        drop(self);
        // SAFETY: this thread has the kernel, and is not stepped any more.
        let host = unsafe { &mut *HOST.0.get() };
        host.take().map(|host| host.figures()).unwrap_or_default()
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        unwatch();
        STEPPING.store(false, Ordering::Relaxed);
        install(self.action);
        install_stack(self.stack);
    }
}

/// Makes `action` what is done at a trap; returns what was.
fn install(action: libc::sigaction) -> libc::sigaction {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both are valid; the handler touches its own state and what it is
    // given (`on_trap`), or is one that was installed before.
    let result = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, before.as_mut_ptr()) };
    assert_eq!(result, 0, "SIGTRAP can be handled");
    // SAFETY: the call succeeded, and so has written it.
    unsafe { before.assume_init() }
}

/// Makes `stack` where this thread handles signals; returns what was.
fn install_stack(stack: libc::stack_t) -> libc::stack_t {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both are valid; the stack is `Stepping`'s, or was there before.
    let result = unsafe { libc::sigaltstack(&raw const stack, before.as_mut_ptr()) };
    assert_eq!(result, 0, "the stack is large enough, and not in use");
    // SAFETY: the call succeeded, and so has written it.
    unsafe { before.assume_init() }
}

/// Sheds the pointer.
extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO that is what the third argument points to, for this
    // call alone.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let mut context = Context::new(context);
    // SAFETY: the thread that has the kernel is interrupted, and with SIGTRAP's
    // trap flag clear and the signal blocked this handler is not; see `Shared`.
    let host = unsafe { &mut *HOST.0.get() };
    match host {
        Some(host) if STEPPING.load(Ordering::Relaxed) => host.step(&mut context),
        // A task that was interrupted before the end of the stepping.
        _ => context.set_trap(false),
    }
}

/// Runs with the control words, flags and x87 that code is called with.
///
/// Whether they are those is what a timer's function checks, as upcalls run it.
fn is_called_properly() -> bool {
    #[repr(C, align(16))]
    struct Image([u8; 512]);
    let mut image = Image([0; 512]);
    let flags: u64;
    // SAFETY: the place is large and aligned enough, and the stack is left as it was.
    unsafe {
        asm!(
            "pushfq",
            "pop {flags}",
            "fxsave64 [{image}]",
            flags = out(reg) flags,
            image = in(reg) ptr::from_mut(&mut image),
        );
    }
    let Image(image) = image;
    let direction = flags & 0x400 != 0;
    let unused = image[4] == 0;
    !direction && unused && image[..2] == [0x7f, 3] && image[24..28] == [0x80, 0x1f, 0, 0]
}
