//! A stand-in for `/dev/mshv` over KVM, for machines that have only KVM.
//!
//! Preloaded (`LD_PRELOAD`), it interposes `open`, `ioctl`, `mmap` and `close`
//! of the C library, so that a program that uses the crates mshv-ioctls and
//! mshv-bindings 0.7.1, neither of them modified, runs real guest code. Only the
//! ioctls are the contract; whatever else the program does goes to the real
//! functions.
//!
//! # What it shows
//!
//! * The calls are made with the right numbers and layouts, in an order that
//!   MSHV allows: no VP and no memory before the partition is initialised, no
//!   VP index twice, no overlapping ranges, only exact ranges unmapped.
//! * RIP stands on the instruction of every intercept until the VMM moves it;
//!   a VMM that does not move it sees the same intercept again.
//! * Nothing is emulated for the VMM: memory intercepts carry no data.
//! * There is no `immediate_exit`: a signal that comes before the run is lost.
//! * A query of the access bitmap without CLEAR sets it, even the one that is
//!   called NOOP: so does the driver
//!   (`mshv_partition_ioctl_get_gpap_access_bitmap`). All pages are set at first.
//! * Tracking cannot be switched off while a page is not marked as dirty, which
//!   mshv-ioctls says of `disable_dirty_page_tracking`.
//!
//! # What it does not show
//!
//! * Memory is not pinned, unless `CELLULE_MSHV_SHIM_PIN` is set (see
//!   `memory.rs`), so that MAP_PRIVATE and MADV_DONTNEED work better than there.
//! * Execute permission of the second level: KVM has none, the flag X is ignored.
//! * Error codes are the driver's, as far as it was read; the hypervisor's own
//!   statuses are guessed, but for those that the tests of mshv-ioctls expect.
//!   Inexact unmaps are ENOENT here and EINVAL there.
//! * Times, and the number of exits per operation.
//! * Drift of the kernel's ABI, and of the hypervisor behind it.
//! * The register page and the message page: ENODEV.
//! * CPUID as the feature banks would filter it: the banks are read back, and
//!   otherwise ignored. Processors have what KVM supports plus what is registered.
//! * The order in which registers are set: it is all of a call's at once, so that
//!   a CR0 before its EFER passes here.
//! * Synthetic features (SynIC, timers, hypercalls), local APIC, interrupts,
//!   devices, isolation: not there.
//! * XSAVE is in KVM's format, not compacted.
//! * A write to where no memory is has been stepped over by KVM's emulator when
//!   it tells: the message's RIP is behind the instruction and its length is 0.
//!   The message comes again until RIP or the memory is changed, as it would.
//! * Translations say whether a page is there, and not what may be done with it.
//!
//! The driver that was read is drivers/hv/mshv_root_main.c of Linux, at commit
//! 0ebac01a00be972020c002a7fe0bb6b6fca8410f; others differ.
//!
//! What is not there fails with ENOTTY and says so once on standard error, with
//! its number.
//!
//! # Parts
//!
//! ```text
//!  interpose --> handles --> device ------> hypercall <--- property
//!                    |-----> partition ---> memory, dirty
//!                    +-----> processor ---> run ---> message, instruction, paging
//!                                |--------> registers ---> names, events, vector
//!                                +--------> cpuid
//!  below all: kvm (ioctls), run_page, real (the C library), caller (its memory)
//! ```
#![allow(unsafe_code, reason = "it replaces C functions and makes raw system calls")]
#![allow(non_upper_case_globals, reason = "constants of mshv-bindings in patterns")]

mod caller;
mod cpuid;
mod device;
mod dirty;
mod errno;
mod events;
mod handles;
mod host;
mod hypercall;
mod instruction;
pub mod interpose;
mod kvm;
mod memory;
mod message;
mod names;
mod paging;
mod partition;
mod processor;
mod property;
mod real;
mod registers;
mod request;
mod run;
mod run_page;
mod segment;
mod vector;
