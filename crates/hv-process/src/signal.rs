//! The signal that asks another thread of this process to let go of a child.
//!
//! Its handler does on that thread what only that thread can, and no more: it asks the
//! kernel to detach the child whose number came with the signal, and wakes who waits.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cellule_kick::Target;

use crate::trace::Pid;

/// `si_code` of a signal that has a value.
const SI_QUEUE: i32 = -1;

/// How often a child was let go, to wait for.
static LET_GO: AtomicU32 = AtomicU32::new(0);
/// The number of the signal, or 0 if none is free.
static SIGNAL: OnceLock<i32> = OnceLock::new();

thread_local! {
    /// This thread's number, once it can be asked to let go; 0 until then.
    static LISTENING: Cell<i32> = const { Cell::new(0) };
}

/// The beginning of `siginfo_t` as rt_sigqueueinfo(2) takes it, and the rest.
#[repr(C)]
struct Queued {
    number: i32,
    errno: i32,
    code: i32,
    padding: i32,
    process: i32,
    user: u32,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>(), "sigaction(2)");

/// Asks a thread of this process to let go of a child. One that is gone has.
pub(crate) fn ask(thread: i32, Pid(child): Pid) -> io::Result<()> {
    let number = listen_for()?;
    let process = process();
    let value = u64::from(child.cast_unsigned());
    let (errno, padding, user, rest) = (0, 0, 0, [0; 12]);
    let info = Queued { number, errno, code: SI_QUEUE, padding, process, user, value, rest };
    let at = ptr::from_ref(&info);
    // SAFETY: the kernel reads a siginfo, which a live local is; the signal is the
    // one of our handler, within this process.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, number, at) };
    let error = io::Error::last_os_error();
    if sent == 0 || error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

/// Makes sure that this thread can be asked, and returns its number.
pub(crate) fn listen() -> io::Result<i32> {
    if LISTENING.get() == 0 {
        unblock(listen_for()?);
        // SAFETY: gettid has no precondition.
        LISTENING.set(unsafe { libc::gettid() });
    }
    Ok(LISTENING.get())
}

/// The signal, once it has the handler.
fn listen_for() -> io::Result<i32> {
    const NONE_FREE: &str = "no real-time signal is free: leave one at its default action";
    // Whoever looks for a free signal first must have it before another looks.
    let _ = Target::new().map_err(io::Error::other)?;
    let number = *SIGNAL.get_or_init(|| {
        let mut numbers = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev();
        numbers.find(|number| take_if_default(*number)).unwrap_or(0)
    });
    if number == 0 { Err(io::Error::other(NONE_FREE)) } else { Ok(number) }
}

fn take_if_default(number: i32) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action this only writes the old one.
    let asked = unsafe { libc::sigaction(number, ptr::null(), old.as_mut_ptr()) };
    // SAFETY: sigaction filled it in, and all zeros would be valid too.
    let old = unsafe { old.assume_init() };
    if asked != 0 || old.sa_sigaction != libc::SIG_DFL {
        return false;
    }
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut new = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    new.sa_sigaction = handler as extern "C" fn(i32, *const Queued, *mut libc::c_void) as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler makes three system calls and adds to an atomic, which is all
    // async-signal-safe, and leaves errno as it was.
    unsafe { libc::sigaction(number, &raw const new, ptr::null_mut()) == 0 }
}

/// On the thread that is asked. Another process may send the signal, too, if it is
/// of the same user: it could trace the child, or this process, itself.
extern "C" fn handler(_: i32, info: *const Queued, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo, of which every byte is
    // there; as integers all are valid.
    let info = unsafe { &*info };
    let Ok(child) = i32::try_from(info.value) else { return };
    if info.code == SI_QUEUE && info.process == process() {
        // SAFETY: this thread's own, which lives as long as the thread.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: readable, says its contract.
        let before = unsafe { *errno };
        // One that this thread does not trace, or that is dead, is refused.
        let _ = Pid(child).detach();
        LET_GO.fetch_add(1, Ordering::SeqCst);
        wake();
        // SAFETY: writable, says its contract.
        unsafe { *errno = before };
    }
}

fn process() -> i32 {
    // SAFETY: getpid has no precondition.
    unsafe { libc::getpid() }
}

fn unblock(number: i32) {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset writes the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised by sigemptyset.
    unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    // SAFETY: the set is initialised; no old set is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut()) };
}

/// How often a child was let go so far.
pub(crate) fn let_go_count() -> u32 {
    LET_GO.load(Ordering::SeqCst)
}

/// Sleeps until a child is let go, for less than a second at most, unless one was
/// since the count was `seen`.
pub(crate) fn nap(seen: u32, most: Duration) {
    let nanoseconds = i64::from(most.subsec_nanos());
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let (word, wait) = (LET_GO.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    // SAFETY: an aligned word that lives for ever, and a live local.
    unsafe { libc::syscall(libc::SYS_futex, word, wait, seen, &raw const time) };
}

fn wake() {
    let (word, wake) = (LET_GO.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
    // SAFETY: an aligned word that lives for ever.
    unsafe { libc::syscall(libc::SYS_futex, word, wake, i32::MAX) };
}
