//! The raw floor: the least that a ring-3 doorbell guest takes on bare KVM.
//!
//! The guest is `out 1, al` and a jump back to it, in ring 3, under the control
//! pages that Cellule's guests have. The KVM side is kvm-ioctls alone.
//!
//! * [`Doorbell::ring`] is one `KVM_RUN`. No register is read or written.
//! * [`Spinner::lateness`] is one `KVM_RUN` of a guest that spins, ended by the
//!   timer signal that Cellule's runs are ended by.
//! * [`Floor::create_run_close`] is `KVM_CREATE_VM`, one
//!   `KVM_SET_USER_MEMORY_REGION`, `KVM_CREATE_VCPU`, one `KVM_RUN`, and closing
//!   both descriptors. (kvm-ioctls adds what it cannot do without:
//!   `KVM_GET_VCPU_MMAP_SIZE`, and mapping and unmapping the run page.) The
//!   registers travel with the first `KVM_RUN` by `KVM_CAP_SYNC_REGS`. The
//!   memory is mapped, filled and touched beforehand. There is no CPUID, no
//!   XCR0, no second slot, and no page but the text that the guest touches:
//!   whoever needs those pays for them out of the distance to this floor.
#![allow(unsafe_code, reason = "anonymous memory, and telling KVM of it")]

use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use cellule_hv::conformance::{SUPERVISOR, TEXT};
use cellule_hv::space::{PAGE_BYTES, SpaceError};
use cellule_hv::x86::{CONTROL_GPA, Control, SHARED_GPA, TASK, USER_CODE, USER_DATA};
use cellule_hv::{AddressSpace, Backing, Gva, Mapping, Protection};
use cellule_kick::{Alarm, Target};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};

/// `out 1, al`, and a jump back to it; then a jump to itself.
const CODE: [u8; 6] = [0xe6, DOORBELL, 0xeb, 0xfc, 0xeb, 0xfe];
/// Where the jump to itself is.
const SPIN_OFFSET: u64 = 4;
const DOORBELL: u8 = 1;

/// The floor could not be measured.
#[derive(Debug)]
pub enum FloorError {
    /// KVM refused a step.
    Refused {
        /// The step.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The guest stopped otherwise than at the doorbell.
    Exit(String),
    /// The one-page address space was refused.
    Space(SpaceError),
}

/// An open /dev/kvm, and the pages and registers of the doorbell guest.
#[derive(Debug)]
pub struct Floor {
    kvm: Kvm,
    pages: Pages,
    regs: kvm_regs,
    sregs: kvm_sregs,
}

/// A live VM whose guest rings for ever.
///
/// Fields are dropped in order: the vCPU before its VM.
#[derive(Debug)]
pub struct Doorbell<'a> {
    vcpu: VcpuFd,
    target: Target,
    _vm: VmFd,
    /// The floor's pages stay mapped for as long as the VM.
    _pages: PhantomData<&'a Floor>,
}

impl Floor {
    /// Opens /dev/kvm and lays out the guest.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if there is no KVM or no memory.
    pub fn new() -> Result<Self, FloorError> {
        let text = Mapping {
            name: "text",
            gva: Gva(TEXT),
            len: PAGE_BYTES,
            protection: Protection::ReadExecute,
            backing: Backing::Shared(0),
        };
        let space = AddressSpace::new(vec![text], Gva(SUPERVISOR)).map_err(FloorError::Space)?;
        let control = Control::build(&space, u64::MAX, SHARED_GPA + PAGE_BYTES);
        let kvm = Kvm::new().map_err(refused("open /dev/kvm"))?;
        let mut code = CODE.to_vec();
        code.resize(cellule::abi::PAGE_BYTES, 0);
        let bytes = [&control.descriptors, &code, &control.page_tables];
        let pages = Pages::filled(&bytes.map(Vec::as_slice).concat())
            .map_err(|source| FloorError::Refused { step: "map memory", source })?;
        Ok(Self { kvm, pages, regs: general(), sregs: system(&control) })
    }

    /// Creates the VM, which has not run yet.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if KVM refuses a step.
    pub fn create(&self) -> Result<Doorbell<'_>, FloorError> {
        let vm = self.kvm.create_vm().map_err(refused("create a VM"))?;
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: CONTROL_GPA,
            memory_size: self.pages.len as u64,
            userspace_addr: self.pages.start as u64,
        };
        // SAFETY: the range is `pages`', which the floor owns and the result
        // borrows, so it stays mapped until the VM is gone; it is the only
        // slot; the host never touches the range again.
        unsafe { vm.set_user_memory_region(slot) }.map_err(refused("map guest memory"))?;
        let mut vcpu = vm.create_vcpu(0).map_err(refused("create a vCPU"))?;
        let sync = vcpu.sync_regs_mut();
        sync.regs = self.regs;
        sync.sregs = self.sregs;
        vcpu.set_sync_dirty_reg(SyncReg::Register);
        vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        let target = Target::new().map_err(|error| FloorError::Exit(error.to_string()))?;
        Ok(Doorbell { vcpu, target, _vm: vm, _pages: PhantomData })
    }

    /// Creates a VM whose guest spins.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if KVM refuses a step.
    pub fn spinner(&self) -> Result<Spinner<'_>, FloorError> {
        let mut doorbell = self.create()?;
        let spin = kvm_regs { rip: TEXT + SPIN_OFFSET, ..self.regs };
        doorbell.vcpu.sync_regs_mut().regs = spin;
        doorbell.vcpu.set_sync_dirty_reg(SyncReg::Register);
        Ok(Spinner(doorbell))
    }

    /// Creates a VM, lets it ring once, and closes it.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if KVM refuses a step or the guest stops otherwise.
    pub fn create_run_close(&self) -> Result<(), FloorError> {
        self.create()?.ring()
    }
}

/// A live VM whose guest spins for ever.
#[derive(Debug)]
pub struct Spinner<'a>(Doorbell<'a>);

impl Spinner<'_> {
    /// Runs the guest until `alarm` stops it, and returns how late that was: from
    /// the time for which the alarm was set to the return of `KVM_RUN`.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if KVM fails or the guest stops otherwise.
    pub fn lateness(&mut self, after: Duration) -> Result<Duration, FloorError> {
        let flag = &raw mut self.0.vcpu.get_kvm_run().immediate_exit;
        let due = Instant::now() + after;
        let refused_alarm = |error| FloorError::Exit(format!("{error}"));
        let _alarm = Alarm::at(due).map_err(refused_alarm)?;
        let target = &self.0.target;
        loop {
            // SAFETY: the run page stays mapped as long as the vCPU, which
            // outlives the guard; the guard is dropped below.
            let running = unsafe { target.enter(flag) };
            let stopped = running.is_none() || stopped(self.0.vcpu.run())?;
            let late = Instant::now().checked_duration_since(due);
            drop(running);
            self.0.vcpu.set_kvm_immediate_exit(0);
            if let (true, Some(late)) = (stopped, late) {
                return Ok(late);
            }
        }
    }
}

/// Whether a run was stopped by a signal.
fn stopped(outcome: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Result<bool, FloorError> {
    match outcome {
        Ok(VcpuExit::Intr) => Ok(true),
        Err(error) if error.errno() == libc::EINTR => Ok(true),
        Ok(exit) => Err(FloorError::Exit(format!("{exit:x?}"))),
        Err(error) => Err(refused("run the vCPU")(error)),
    }
}

impl Doorbell<'_> {
    /// Runs the guest until it rings.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if KVM fails or the guest stops otherwise.
    pub fn ring(&mut self) -> Result<(), FloorError> {
        match self.vcpu.run() {
            Ok(VcpuExit::IoOut(port, _)) if port == u16::from(DOORBELL) => Ok(()),
            Ok(exit) => Err(FloorError::Exit(format!("{exit:x?}"))),
            Err(error) => Err(refused("run the vCPU")(error)),
        }
    }
}

/// Anonymous memory, unmapped when dropped.
#[derive(Debug)]
struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// Maps whole pages and fills them, so that all of them are present.
    fn filled(bytes: &[u8]) -> io::Result<Self> {
        let len = bytes.len().next_multiple_of(4096);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping where the kernel likes touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = start.cast::<u8>();
        // SAFETY: `start` is the beginning of a new writable mapping of at
        // least `bytes.len()` bytes, which `bytes` cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        Ok(Self { start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `filled` mapped this range with this length, nothing else
        // unmaps it, and every VM that could reach it borrowed the floor.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

fn refused(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> FloorError {
    move |error| FloorError::Refused { step, source: error.into() }
}

impl std::fmt::Display for FloorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { step, source } => write!(f, "floor: cannot {step}: {source}"),
            Self::Exit(exit) => write!(f, "floor: the guest stopped with {exit}"),
            Self::Space(error) => write!(f, "floor: {error}"),
        }
    }
}

impl std::error::Error for FloorError {}

/// No stack: the guest never uses one.
fn general() -> kvm_regs {
    const RFLAGS_ALWAYS_ONE: u64 = 1 << 1;
    kvm_regs { rip: TEXT, rflags: RFLAGS_ALWAYS_ONE, ..Default::default() }
}

/// Ring 3 in long mode. SDM volume 3, section 2.5 for CR0 and CR4, 2.2.1 for EFER.
fn system(control: &Control) -> kvm_sregs {
    const CR0: u64 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_LME_LMA_NXE: u64 = 1 << 8 | 1 << 10 | 1 << 11;
    let data = segment(USER_DATA, 0b0011, 0);
    kvm_sregs {
        cs: segment(USER_CODE, 0b1011, 1),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment {
            base: control.tss.0,
            limit: u32::from(control.tss_limit),
            selector: TASK,
            type_: 0b1011,
            present: 1,
            ..Default::default()
        },
        ldt: kvm_segment { unusable: 1, type_: 0b0010, ..Default::default() },
        gdt: kvm_dtable { base: control.gdt.0, limit: control.gdt_limit, ..Default::default() },
        idt: kvm_dtable { base: control.idt.0, limit: control.idt_limit, ..Default::default() },
        cr0: CR0,
        cr3: control.root,
        cr4: CR4_PAE,
        efer: EFER_LME_LMA_NXE,
        ..Default::default()
    }
}

/// A flat segment of ring 3.
fn segment(selector: u16, type_: u8, long: u8) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..Default::default()
    }
}
