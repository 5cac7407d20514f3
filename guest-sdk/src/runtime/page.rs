//! The shared page and the doorbell: the only code that touches either.
//!
//! The host writes the page and the payloads while the guest has stopped: in
//! [`Page::ring`], or anywhere if it was interrupted. Indices are atomic,
//! Acquire when read and Release when written, and records are volatile.

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use cellule_abi::doorbell::{DOORBELL_PORT, Doorbell};
use cellule_abi::page::{
    ABORT_OFFSET, Abort, BOOT_OFFSET, Boot, CLOCK_LIMIT_OFFSET, COMPLETION_HEAD_OFFSET,
    COMPLETION_TAIL_OFFSET, GENERATION_OFFSET, REQUEST_HEAD_OFFSET, REQUEST_TAIL_OFFSET,
    SEED_OFFSET, TASKS_GVA_OFFSET, VIRTUAL_NOW_OFFSET, WALL_OFFSET_OFFSET, completion_offset,
    request_offset,
};
use cellule_abi::record::{Completion, Request};

use crate::channel::Port;
use crate::random::SEED_WORDS;

/// Where the host mapped the page: what it passed to the entry point.
static START: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The page that host and guest share.
pub(super) struct Page;

impl Page {
    /// Finds the page.
    ///
    /// # Safety
    ///
    /// `start` must be the address of the channel page, mapped readable and
    /// writable for ever, and used by nobody else in this guest.
    pub(super) unsafe fn find(start: *mut u8) {
        START.store(start, Ordering::Relaxed);
    }

    /// Copies what the host says at the start.
    pub(super) fn boot(&self) -> Boot {
        // SAFETY: the block is within the page (ABI.md), which is mapped for
        // ever (`find`), and aligned to 8; any bytes are a `Boot`.
        unsafe { at::<Boot>(BOOT_OFFSET).read_volatile() }
    }

    /// Says why the guest gives up, and does.
    pub(super) fn abort(&self, abort: Abort) -> ! {
        // SAFETY: the block is within the page (ABI.md), which is mapped for
        // ever (`find`), and aligned to 8.
        unsafe { at::<Abort>(ABORT_OFFSET).write_volatile(abort) };
        loop {
            self.ring(Doorbell::Abort);
        }
    }

    /// Publishes where the task block is.
    pub(super) fn publish_tasks(&self, gva: u64) {
        self.word(TASKS_GVA_OFFSET).store(gva, Ordering::Release);
    }

    /// What to add to monotonic time for wall time, modulo 2^64.
    pub(super) fn wall_offset(&self) -> u64 {
        self.word(WALL_OFFSET_OFFSET).load(Ordering::Acquire)
    }

    /// How far virtual time may go.
    pub(super) fn clock_limit(&self) -> u64 {
        self.word(CLOCK_LIMIT_OFFSET).load(Ordering::Acquire)
    }

    /// Publishes virtual time.
    pub(super) fn set_virtual_now(&self, now_ns: u64) {
        self.word(VIRTUAL_NOW_OFFSET).store(now_ns, Ordering::Release);
    }

    /// Which copy of its first self this guest is.
    pub(super) fn generation(&self) -> u64 {
        self.word(GENERATION_OFFSET).load(Ordering::SeqCst)
    }

    /// The seed, where the host puts it.
    pub(super) fn seed(&self) -> [&'static AtomicU64; SEED_WORDS] {
        core::array::from_fn(|index| self.word(SEED_OFFSET + index * size_of::<u64>()))
    }

    fn word(&self, offset: usize) -> &'static AtomicU64 {
        // SAFETY: the nine offsets passed are those of aligned 64-bit words
        // within the page, which is mapped for ever (`find`); this guest
        // accesses them, after its start, only here, atomically.
        unsafe { AtomicU64::from_ptr(at(offset)) }
    }

    fn index(&self, offset: usize) -> &'static AtomicU32 {
        // SAFETY: the four offsets passed are those of aligned 32-bit indices
        // within the page, which is mapped for ever (`find`); this guest
        // accesses them only here, atomically.
        unsafe { AtomicU32::from_ptr(at(offset)) }
    }
}

impl Port for Page {
    fn request_head(&self) -> u32 {
        self.index(REQUEST_HEAD_OFFSET).load(Ordering::Acquire)
    }

    fn completion_tail(&self) -> u32 {
        self.index(COMPLETION_TAIL_OFFSET).load(Ordering::Acquire)
    }

    fn completion(&self, index: u32) -> Completion {
        // SAFETY: `completion_offset` stays within the page, which is mapped for
        // ever (`find`), and is a multiple of 32; any bytes are a `Completion`.
        unsafe { at::<Completion>(completion_offset(index)).read_volatile() }
    }

    fn put_request(&self, index: u32, request: Request) {
        // SAFETY: `request_offset` stays within the page, which is mapped for
        // ever (`find`), and is a multiple of 64.
        unsafe { at::<Request>(request_offset(index)).write_volatile(request) };
    }

    fn publish_requests(&self, tail: u32) {
        self.index(REQUEST_TAIL_OFFSET).store(tail, Ordering::Release);
    }

    fn release_completions(&self, head: u32) {
        self.index(COMPLETION_HEAD_OFFSET).store(head, Ordering::Release);
    }

    fn ring(&self, operation: Doorbell) {
        // SAFETY: the host opened this port to ring 3 and preserves every
        // register. It reads guest memory, and writes what is its own to write:
        // without `nomem`, the compiler reckons with both.
        unsafe {
            asm!(
                "out {port}, al",
                port = const DOORBELL_PORT,
                in("al") operation as u8,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Returns the payload of `completion`, where the host put it.
///
/// # Safety
///
/// `completion` must have been taken from the ring, and the slice must not be
/// used once its bytes are the host's again: after a call's answer, or after
/// the reply was ended.
pub(super) unsafe fn payload<'a>(completion: &Completion) -> &'a [u8] {
    let gva = native(completion.payload_gva);
    let len = native(completion.payload_len.into());
    if len == 0 {
        return &[];
    }
    // SAFETY: the host put `len` bytes there, in memory that is mapped for ever
    // and that it does not write before the caller is done with them.
    unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(gva), len) }
}

/// An address or a length as the host writes it, in this guest's own words.
#[expect(clippy::cast_possible_truncation, reason = "every guest is x86-64")]
pub(super) const fn native(value: u64) -> usize {
    value as usize
}

/// The address of what is at `offset` in the page.
fn at<T>(offset: usize) -> *mut T {
    START.load(Ordering::Relaxed).wrapping_add(offset).cast()
}
