//! The C functions that are replaced.
//!
//! Variadic ones are declared with the argument that they may have: on x86-64 it
//! comes in a register in either case, and is only passed on.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::errno::Errno;
use crate::handles::{self, Handle};
use crate::real;

const MSHV: &CStr = c"/dev/mshv";
const KVM: &CStr = c"/dev/kvm";

/// Stands in for `open(2)`.
///
/// # Safety
///
/// As `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { is_mshv(path) } {
        return device(flags);
    }
    // SAFETY: the caller's promise.
    unsafe { real::open(path, flags, mode) }
}

/// Stands in for `open64(2)`, which is the same here.
///
/// # Safety
///
/// As `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open(path, flags, mode) }
}

/// Stands in for `openat(2)`.
///
/// # Safety
///
/// As `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { is_mshv(path) } {
        return device(flags);
    }
    // SAFETY: the caller's promise.
    unsafe { real::open_at(at, path, flags, mode) }
}

/// Stands in for `openat64(2)`, which is the same here.
///
/// # Safety
///
/// As `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(at, path, flags, mode) }
}

/// Stands in for `ioctl(2)`.
///
/// # Safety
///
/// As `ioctl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    let Some(handle) = handles::find(fd) else {
        // SAFETY: the caller's promise.
        return unsafe { real::ioctl(fd, request, argument) };
    };
    // What a handler locks stays usable after a panic: it is written whole.
    let outcome = catch_unwind(AssertUnwindSafe(|| handle.ioctl(fd, request, argument)));
    match outcome.unwrap_or(Err(Errno(libc::EFAULT))) {
        Ok(value) => value,
        Err(errno) => {
            errno.leave();
            -1
        }
    }
}

/// Stands in for `mmap(2)`: a VP has no pages to map.
///
/// # Safety
///
/// As `mmap(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    if fd >= 0 && handles::find(fd).is_some() {
        Errno(libc::ENODEV).leave();
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's promise.
    unsafe { real::mmap(address, len, protection, flags, fd, offset) }
}

/// Stands in for `mmap64(2)`, which is the same here.
///
/// # Safety
///
/// As `mmap(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { mmap(address, len, protection, flags, fd, offset) }
}

/// Stands in for `close(2)`: forgets the descriptor before its number is free.
///
/// # Safety
///
/// As `close(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    handles::forget(fd);
    // SAFETY: the caller's promise.
    unsafe { real::close(fd) }
}

/// # Safety
///
/// `path` must be null or a string.
unsafe fn is_mshv(path: *const c_char) -> bool {
    if path.is_null() {
        return false;
    }
    // SAFETY: it is not null, and else the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    path == MSHV
}

/// Opens KVM instead.
fn device(flags: c_int) -> c_int {
    let flags = flags & !libc::O_ACCMODE | libc::O_RDWR;
    // SAFETY: the path is a string.
    let fd = unsafe { real::open(KVM.as_ptr(), flags, 0) };
    if fd >= 0 {
        handles::learn(fd, Handle::Device);
    }
    fd
}
