//! The page that KVM shares with us about a run, and the registers in it.

use std::ffi::c_int;
use std::mem::{offset_of, size_of};
use std::ptr::{self, NonNull};

use kvm_bindings::{
    KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_regs, kvm_run, kvm_sregs,
    kvm_sync_regs, kvm_vcpu_events,
};

use crate::errno::Errno;
use crate::kvm::{self, Plain};
use crate::real;

const REGISTERS: usize = offset_of!(kvm_run, s);
const REGS: usize = REGISTERS + offset_of!(kvm_sync_regs, regs);
const SREGS: usize = REGISTERS + offset_of!(kvm_sync_regs, sregs);
const EVENTS: usize = REGISTERS + offset_of!(kvm_sync_regs, events);
/// What an exit tells begins here, whatever it is.
const DETAIL: usize = offset_of!(kvm_run, __bindgen_anon_1);

/// The shared page of one vCPU.
#[derive(Debug)]
pub(crate) struct RunPage {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and any thread may use it.
unsafe impl Send for RunPage {}

/// A type made of integers.
///
/// # Safety
///
/// Any bytes must be a value of it.
unsafe trait Integers: Copy {}
// SAFETY: an integer.
unsafe impl Integers for u8 {}
// SAFETY: an integer.
unsafe impl Integers for u16 {}
// SAFETY: an integer.
unsafe impl Integers for u32 {}
// SAFETY: an integer.
unsafe impl Integers for u64 {}
// SAFETY: all its fields are integers.
unsafe impl Integers for kvm_regs {}
// SAFETY: all its fields are integers, or structs and arrays of them.
unsafe impl Integers for kvm_sregs {}
// SAFETY: all its fields are integers, or structs and arrays of them.
unsafe impl Integers for kvm_vcpu_events {}

/// A port access that stopped a vCPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortAccess {
    pub(crate) is_out: bool,
    /// In bytes.
    pub(crate) size: u8,
    pub(crate) port: u16,
    pub(crate) count: u32,
}

/// What to hand to KVM with the next run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Handover<'a> {
    pub(crate) regs: Option<&'a kvm_regs>,
    pub(crate) events: Option<&'a kvm_vcpu_events>,
    /// Finish what the last exit was for, and return before the guest runs.
    pub(crate) only_finish: bool,
}

impl RunPage {
    /// Maps the page. `len` is what KVM says that it is.
    pub(crate) fn map(vcpu: c_int, len: usize) -> Result<Self, Errno> {
        if len < size_of::<kvm_run>() {
            return Err(Errno(libc::EINVAL));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED a new mapping takes nothing from anybody.
        let start =
            unsafe { real::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, vcpu, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self { start, len })
    }

    /// Runs the vCPU, or only finishes what it stopped for.
    pub(crate) fn run(&mut self, vcpu: c_int, handover: Handover<'_>) -> Result<(), Errno> {
        let mut dirty = 0;
        if let Some(regs) = handover.regs {
            self.store(REGS, *regs);
            dirty |= KVM_SYNC_X86_REGS;
        }
        if let Some(events) = handover.events {
            self.store(EVENTS, *events);
            dirty |= KVM_SYNC_X86_EVENTS;
        }
        let all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
        self.store(offset_of!(kvm_run, kvm_valid_regs), u64::from(all));
        self.store(offset_of!(kvm_run, kvm_dirty_regs), u64::from(dirty));
        self.store(offset_of!(kvm_run, immediate_exit), u8::from(handover.only_finish));
        let result = kvm::plain(vcpu, Plain::Run, 0).map(drop);
        self.store(offset_of!(kvm_run, immediate_exit), 0_u8);
        result
    }

    pub(crate) fn reason(&self) -> u32 {
        self.load(offset_of!(kvm_run, exit_reason))
    }

    /// What the last exit left.
    pub(crate) fn registers(&self) -> (kvm_regs, kvm_sregs, kvm_vcpu_events) {
        (self.load(REGS), self.load(SREGS), self.load(EVENTS))
    }

    /// If the reason is KVM_EXIT_IO.
    pub(crate) fn port_access(&self) -> PortAccess {
        PortAccess {
            is_out: self.load::<u8>(DETAIL) == 1,
            size: self.load(DETAIL + 1),
            port: self.load(DETAIL + 2),
            count: self.load(DETAIL + 4),
        }
    }

    /// The address, and whether it was written, if the reason is KVM_EXIT_MMIO.
    pub(crate) fn memory_access(&self) -> (u64, bool) {
        (self.load(DETAIL), self.load::<u8>(DETAIL + 20) != 0)
    }

    /// The address, if the reason is KVM_EXIT_MEMORY_FAULT.
    pub(crate) fn fault_address(&self) -> u64 {
        self.load(DETAIL + 8)
    }

    /// The first number of an exit that has no more to say.
    pub(crate) fn detail(&self) -> u32 {
        self.load(DETAIL)
    }

    fn load<T: Integers>(&self, offset: usize) -> T {
        let place = self.place::<T>(offset);
        // SAFETY: `place` says that it lies within the mapping; any bytes are a
        // `T`. Nobody else writes there: the vCPU does not run meanwhile.
        unsafe { place.read_unaligned() }
    }

    fn store<T: Integers>(&mut self, offset: usize, value: T) {
        let place = self.place::<T>(offset);
        // SAFETY: as in `load`; the mapping is writable.
        unsafe { place.write_unaligned(value) }
    }

    /// The place of a field; the page's start if it were not within the page.
    fn place<T>(&self, offset: usize) -> *mut T {
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        let offset = if fits { offset } else { 0 };
        // SAFETY: the offset is within the mapping, checked above.
        unsafe { self.start.add(offset) }.cast::<T>().as_ptr()
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, which is no more. It cannot fail.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// include/uapi/linux/kvm.h, struct kvm_run: what `DETAIL` is added to.
const _: () = {
    assert!(offset_of!(kvm_run, __bindgen_anon_1.io.size) == DETAIL + 1, "see kvm.h");
    assert!(offset_of!(kvm_run, __bindgen_anon_1.io.port) == DETAIL + 2, "see kvm.h");
    assert!(offset_of!(kvm_run, __bindgen_anon_1.io.count) == DETAIL + 4, "see kvm.h");
    assert!(offset_of!(kvm_run, __bindgen_anon_1.mmio.phys_addr) == DETAIL, "see kvm.h");
    assert!(offset_of!(kvm_run, __bindgen_anon_1.mmio.is_write) == DETAIL + 20, "see kvm.h");
    assert!(offset_of!(kvm_run, __bindgen_anon_1.memory_fault.gpa) == DETAIL + 8, "see kvm.h");
    assert!(REGISTERS + 2048 <= size_of::<kvm_run>(), "a run page holds all fields");
};
