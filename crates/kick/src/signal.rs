//! The process's one signal handler, and sending to one thread.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::{AGAIN, AGAIN_EVERY, FLAG, MISSED};

/// The signal that stops vCPU threads could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Every real-time signal has a handler of somebody else's.
    #[error(
        "no real-time signal from {first} to {last} is free to stop vCPU threads with: \
         leave one at its default action"
    )]
    NoneFree {
        /// The lowest real-time signal.
        first: i32,
        /// The highest.
        last: i32,
    },
}

/// The number of the signal, chosen once.
static SIGNAL: OnceLock<Result<i32, SetupError>> = OnceLock::new();

thread_local! {
    /// This thread's id, 0 until first asked for.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

/// Installs the handler on the highest real-time signal that is at its default.
pub(crate) fn install() -> Result<i32, SetupError> {
    *SIGNAL.get_or_init(|| {
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        (first..=last)
            .rev()
            .find(|signal| take_if_default(*signal))
            .ok_or(SetupError::NoneFree { first, last })
    })
}

/// The signal's number; [`install`] has succeeded before there is a target.
pub(crate) fn number() -> i32 {
    install().unwrap_or(0)
}

fn take_if_default(signal: i32) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action this only writes the old one.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) };
    // SAFETY: sigaction filled it in, and all zeros would be valid too.
    let old = unsafe { old.assume_init() };
    if asked != 0 || old.sa_sigaction != libc::SIG_DFL {
        return false;
    }
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask. No
    // SA_RESTART: the interrupted call must return.
    let mut new = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    new.sa_sigaction = handler as extern "C" fn(i32) as usize;
    // SAFETY: the handler only touches thread-local cells without destructors
    // and one atomic byte, all of which are async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) == 0 }
}

extern "C" fn handler(_: i32) {
    let flag = FLAG.get();
    if flag.is_null() {
        MISSED.set(true);
    } else {
        // SAFETY: `Target::enter`'s caller keeps the flag writable for as long
        // as it stands here, and this runs on the thread that put it here.
        unsafe { AtomicU8::from_ptr(flag) }.store(1, Ordering::SeqCst);
        send_later(AGAIN.get(), AGAIN_EVERY);
    }
}

/// Sends the signal to this thread once more after a while; after no time at
/// all, takes that back. No timer does neither. Async-signal-safe: POSIX
/// lists timer_settime, and no other system call here fails in its way.
pub(crate) fn send_later(timer: Option<libc::timer_t>, after: Duration) {
    let Some(timer) = timer else { return };
    // SAFETY: all zeros is a valid itimerspec.
    let mut spec = unsafe { MaybeUninit::<libc::itimerspec>::zeroed().assume_init() };
    spec.it_value.tv_nsec = i64::from(after.subsec_nanos());
    // SAFETY: the timer is this thread's own, which deletes it
    // only as it ends, and no run of its outlasts it. Setting one that exists to
    // a valid time cannot fail, so that errno stays as it is.
    unsafe { libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut()) };
}

/// This thread's id. The first call on a thread also unblocks the signal there.
pub(crate) fn thread_id() -> i32 {
    if THREAD.get() == 0 {
        unblock();
        // SAFETY: gettid has no precondition.
        THREAD.set(unsafe { libc::gettid() });
    }
    THREAD.get()
}

fn unblock() {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset writes the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised by sigemptyset.
    unsafe { libc::sigaddset(set.as_mut_ptr(), number()) };
    // SAFETY: the set is initialised; no old set is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut()) };
}

/// Sends the signal to one thread of this process. A thread that is gone, or
/// another one with its number, is no harm: the handler finds no flag.
pub(crate) fn send(thread: i32) {
    let process = std::process::id();
    // SAFETY: tgkill within the process only runs our handler on that thread.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, number()) };
}

/// What the system said last.
pub(crate) fn last_error() -> io::Error {
    io::Error::last_os_error()
}
