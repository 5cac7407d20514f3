//! KVM's ioctls, each with the type of its argument.
//!
//! Numbers are from the kernel's include/uapi/linux/kvm.h.

use std::ffi::{c_int, c_ulong};
use std::marker::PhantomData;
use std::mem::size_of;

use kvm_bindings::{
    kvm_clear_dirty_log, kvm_cpuid_entry2, kvm_cpuid2, kvm_debugregs, kvm_dirty_log,
    kvm_enable_cap, kvm_msr_entry, kvm_msrs, kvm_regs, kvm_sregs, kvm_translation,
    kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs,
};

use crate::errno::Errno;
use crate::real;

pub(crate) const WRITE: c_ulong = 1 << 30;
pub(crate) const READ: c_ulong = 2 << 30;
const KVMIO: c_ulong = 0xae << 8;

/// An ioctl whose argument the kernel reads or writes as a `T`, and no more.
#[derive(Debug)]
pub(crate) struct Request<T> {
    number: c_ulong,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Request<T> {
    pub(crate) const fn new(direction: c_ulong, number: c_ulong) -> Self {
        Self::sized(direction, number, size_of::<T>())
    }

    /// The number carries the size of what comes before an array.
    const fn sized(direction: c_ulong, number: c_ulong, size: usize) -> Self {
        let number = direction | (size as c_ulong) << 16 | KVMIO | number;
        Self { number, argument: PhantomData }
    }
}

pub(crate) const GET_REGS: Request<kvm_regs> = Request::new(READ, 0x81);
pub(crate) const GET_SREGS: Request<kvm_sregs> = Request::new(READ, 0x83);
pub(crate) const SET_SREGS: Request<kvm_sregs> = Request::new(WRITE, 0x84);
pub(crate) const TRANSLATE: Request<kvm_translation> = Request::new(READ | WRITE, 0x85);
pub(crate) const GET_EVENTS: Request<kvm_vcpu_events> = Request::new(READ, 0x9f);
pub(crate) const SET_EVENTS: Request<kvm_vcpu_events> = Request::new(WRITE, 0xa0);
pub(crate) const GET_DEBUG: Request<kvm_debugregs> = Request::new(READ, 0xa1);
pub(crate) const SET_DEBUG: Request<kvm_debugregs> = Request::new(WRITE, 0xa2);
pub(crate) const ENABLE_CAP: Request<kvm_enable_cap> = Request::new(WRITE, 0xa3);
pub(crate) const GET_XCRS: Request<kvm_xcrs> = Request::new(READ, 0xa6);
pub(crate) const SET_XCRS: Request<kvm_xcrs> = Request::new(WRITE, 0xa7);
const GET_MSRS: Request<Msrs> = Request::sized(READ | WRITE, 0x88, size_of::<kvm_msrs>());
const SET_MSRS: Request<Msrs> = Request::sized(WRITE, 0x89, size_of::<kvm_msrs>());
const GET_SUPPORTED_CPUID: Request<Cpuid> =
    Request::sized(READ | WRITE, 0x05, size_of::<kvm_cpuid2>());
const SET_CPUID2: Request<Cpuid> = Request::sized(WRITE, 0x90, size_of::<kvm_cpuid2>());
const SET_USER_MEMORY_REGION: Request<kvm_userspace_memory_region> = Request::new(WRITE, 0x46);
const GET_DIRTY_LOG: Request<kvm_dirty_log> = Request::new(WRITE, 0x42);
const CLEAR_DIRTY_LOG: Request<kvm_clear_dirty_log> = Request::new(READ | WRITE, 0xc0);

/// Makes a call on a descriptor of KVM's, or fails on any other.
pub(crate) fn call<T>(fd: c_int, request: &Request<T>, value: &mut T) -> Result<c_int, Errno> {
    let argument = c_ulong::try_from((&raw mut *value).expose_provenance());
    let argument = argument.map_err(|_| Errno(libc::EFAULT))?;
    // SAFETY: the request's number says that the kernel reads and writes a `T`
    // here, or what comes before and in the array of `Msrs` and `Cpuid`, whose
    // count is never more than they hold; those with pointers in them have
    // functions of their own, below.
    result(unsafe { real::ioctl(fd, request.number, argument) })
}

/// An ioctl whose argument is a number.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Plain {
    CreateVm = 0x01,
    RunPageLen = 0x04,
    CreateVcpu = 0x41,
    Run = 0x80,
    TscKhz = 0xa3,
}

/// Makes a call on a descriptor of KVM's, or fails on any other.
pub(crate) fn plain(fd: c_int, request: Plain, argument: c_ulong) -> Result<c_int, Errno> {
    // SAFETY: none of these takes a pointer.
    result(unsafe { real::ioctl(fd, KVMIO | c_ulong::from(request as u8), argument) })
}

fn result(value: c_int) -> Result<c_int, Errno> {
    if value < 0 { Err(Errno::last()) } else { Ok(value) }
}

/// Maps, changes or unmaps a range of guest memory.
///
/// # Safety
///
/// The process's memory in the range must be the guest's to read and write.
pub(crate) unsafe fn set_memory(
    vm: c_int,
    mut region: kvm_userspace_memory_region,
) -> Result<(), Errno> {
    call(vm, &SET_USER_MEMORY_REGION, &mut region).map(drop)
}

/// The pages of a slot that are marked as written: a bit each, 64 to a word.
/// `pages` is how many pages the slot has, or more.
pub(crate) fn dirty_log(vm: c_int, slot: u32, pages: u64) -> Result<Vec<u64>, Errno> {
    let words = usize::try_from(pages.div_ceil(64)).map_err(|_| Errno(libc::E2BIG))?;
    let mut bitmap = vec![0_u64; words];
    let mut log = kvm_dirty_log { slot, ..Default::default() };
    log.__bindgen_anon_1.dirty_bitmap = bitmap.as_mut_ptr().cast();
    call(vm, &GET_DIRTY_LOG, &mut log)?;
    Ok(bitmap)
}

/// Takes pages out of the log. The first one must be a multiple of 64, as must
/// their number be, unless they reach to the slot's end.
pub(crate) fn clear_dirty_log(
    vm: c_int,
    slot: u32,
    first_page: u64,
    num_pages: u32,
    bitmap: &mut [u64],
) -> Result<(), Errno> {
    if bitmap.len() < num_pages.div_ceil(64).try_into().unwrap_or(usize::MAX) {
        return Err(Errno(libc::EINVAL));
    }
    let mut log = kvm_clear_dirty_log { slot, num_pages, first_page, ..Default::default() };
    log.__bindgen_anon_1.dirty_bitmap = bitmap.as_mut_ptr().cast();
    call(vm, &CLEAR_DIRTY_LOG, &mut log).map(drop)
}

/// As many as fit into the output page of a hypercall.
const MSRS: usize = 256;

#[repr(C)]
struct Msrs {
    count: u32,
    pad: u32,
    entries: [kvm_msr_entry; MSRS],
}

impl Msrs {
    fn new(entries: &[kvm_msr_entry]) -> Self {
        let mut msrs = Self { count: 0, pad: 0, entries: [kvm_msr_entry::default(); MSRS] };
        for (to, from) in msrs.entries.iter_mut().zip(entries) {
            *to = *from;
            msrs.count += 1;
        }
        msrs
    }
}

/// Reads MSRs; returns how many of them, from the first, there are.
pub(crate) fn msrs(vcpu: c_int, entries: &mut [kvm_msr_entry]) -> Result<usize, Errno> {
    let mut msrs = Msrs::new(entries);
    let count = call(vcpu, &GET_MSRS, &mut msrs)?;
    entries.iter_mut().zip(&msrs.entries).for_each(|(to, from)| *to = *from);
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Writes MSRs; returns how many of them, from the first, were accepted.
pub(crate) fn set_msrs(vcpu: c_int, entries: &[kvm_msr_entry]) -> Result<usize, Errno> {
    let count = call(vcpu, &SET_MSRS, &mut Msrs::new(entries))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// As many as KVM takes.
const LEAVES: usize = 256;

#[repr(C)]
struct Cpuid {
    count: u32,
    pad: u32,
    entries: [kvm_cpuid_entry2; LEAVES],
}

/// What CPUID a processor can have. 285 us where this was measured.
pub(crate) fn supported_cpuid(kvm: c_int) -> Result<Vec<kvm_cpuid_entry2>, Errno> {
    let entries = [kvm_cpuid_entry2::default(); LEAVES];
    let mut cpuid = Cpuid { count: u32::try_from(LEAVES).unwrap_or(0), pad: 0, entries };
    call(kvm, &GET_SUPPORTED_CPUID, &mut cpuid)?;
    Ok(cpuid.entries.into_iter().take(cpuid.count.try_into().unwrap_or(0)).collect())
}

/// Sets what CPUID a processor shows.
pub(crate) fn set_cpuid(vcpu: c_int, leaves: &[kvm_cpuid_entry2]) -> Result<(), Errno> {
    if leaves.len() > LEAVES {
        return Err(Errno(libc::E2BIG));
    }
    let mut cpuid = Cpuid { count: 0, pad: 0, entries: [kvm_cpuid_entry2::default(); LEAVES] };
    for (to, from) in cpuid.entries.iter_mut().zip(leaves) {
        *to = *from;
        cpuid.count += 1;
    }
    call(vcpu, &SET_CPUID2, &mut cpuid).map(drop)
}
