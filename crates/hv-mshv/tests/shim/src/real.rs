//! The C library's own functions, behind the ones that `interpose.rs` replaces.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::errno::Errno;

type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, ...) -> c_int;
type Ioctl = unsafe extern "C" fn(c_int, c_ulong, ...) -> c_int;
type Mmap = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
type Close = unsafe extern "C" fn(c_int) -> c_int;

/// A function that is looked up when it is first used.
///
/// No lock: several threads may look it up, and find the same.
struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Null if the C library has no such function.
    fn address(&self) -> *mut c_void {
        let known = self.found.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is terminated; RTLD_NEXT is a handle that dlsym knows.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(address, Ordering::Relaxed);
        address
    }
}

static OPEN: Next = Next::new(c"open64");
static OPEN_AT: Next = Next::new(c"openat64");
static IOCTL: Next = Next::new(c"ioctl");
static MMAP: Next = Next::new(c"mmap64");
static CLOSE: Next = Next::new(c"close");

/// Calls the real `open64`.
///
/// # Safety
///
/// As `open(2)`: `path` must be a string, or an address that is not mapped.
pub(crate) unsafe fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let address = OPEN.address();
    if address.is_null() {
        return no_such_function();
    }
    // SAFETY: the C library's `open64` has this type.
    let function = unsafe { std::mem::transmute::<*mut c_void, Open>(address) };
    // SAFETY: the caller's promise.
    unsafe { function(path, flags, mode) }
}

/// Calls the real `openat64`.
///
/// # Safety
///
/// As [`open`].
pub(crate) unsafe fn open_at(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let address = OPEN_AT.address();
    if address.is_null() {
        return no_such_function();
    }
    // SAFETY: the C library's `openat64` has this type.
    let function = unsafe { std::mem::transmute::<*mut c_void, OpenAt>(address) };
    // SAFETY: the caller's promise.
    unsafe { function(at, path, flags, mode) }
}

/// Calls the real `ioctl`.
///
/// # Safety
///
/// As `ioctl(2)`: the argument must be what the request needs.
pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    let address = IOCTL.address();
    if address.is_null() {
        return no_such_function();
    }
    // SAFETY: the C library's `ioctl` has this type.
    let function = unsafe { std::mem::transmute::<*mut c_void, Ioctl>(address) };
    // SAFETY: the caller's promise.
    unsafe { function(fd, request, argument) }
}

/// Calls the real `mmap64`.
///
/// # Safety
///
/// As `mmap(2)`: with MAP_FIXED, nobody may use what is there.
pub(crate) unsafe fn mmap(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let function = MMAP.address();
    if function.is_null() {
        no_such_function();
        return libc::MAP_FAILED;
    }
    // SAFETY: the C library's `mmap64` has this type.
    let function = unsafe { std::mem::transmute::<*mut c_void, Mmap>(function) };
    // SAFETY: the caller's promise.
    unsafe { function(address, len, protection, flags, fd, offset) }
}

/// Calls the real `close`.
///
/// # Safety
///
/// As `close(2)`: the descriptor must be the caller's to close.
pub(crate) unsafe fn close(fd: c_int) -> c_int {
    let address = CLOSE.address();
    if address.is_null() {
        return no_such_function();
    }
    // SAFETY: the C library's `close` has this type.
    let function = unsafe { std::mem::transmute::<*mut c_void, Close>(address) };
    // SAFETY: the caller's promise.
    unsafe { function(fd) }
}

fn no_such_function() -> c_int {
    Errno(libc::ENOSYS).leave();
    -1
}
