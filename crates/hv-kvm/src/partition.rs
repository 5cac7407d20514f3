//! One VM with one vCPU.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cellule_abi::doorbell::DOORBELL_PORT;
use cellule_hv::x86::{
    CONTROL_GPA, FAULT_PORT, FRAME_BYTES, FRAME_OFFSET, PRIVATE_GPA, PRIVATE_RESERVED, VECTORS,
    exception_frame,
};
use cellule_hv::{Counters, CreateError, Exit, Memory, Partition, RunError, Unexpected};
use cellule_kick::{Kicker, Target};
use cellule_mem::{HostPtr, Region};
use kvm_bindings::{KVM_MEM_READONLY, kvm_sregs, kvm_userspace_memory_region, kvm_xcrs};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};

use crate::template::KvmTemplate;

/// One VM with one vCPU and its private memory.
///
/// Fields are dropped in order: the vCPU and the VM before their memory.
#[derive(Debug)]
pub(crate) struct KvmPartition {
    vcpu: VcpuFd,
    vm: VmFd,
    /// Keeps both regions mapped for as long as the VM can reach them.
    memory: Memory,
    private: Arc<Region>,
    /// How much of the private memory is mapped; all, once extended.
    mapped: usize,
    /// The system registers with the page tables that map all of it.
    extended: kvm_sregs,
    target: Target,
    counters: Counters,
}

fn refused(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> CreateError {
    move |error| CreateError::Refused { step, source: error.into() }
}

impl KvmPartition {
    pub(crate) fn new(template: &KvmTemplate) -> Result<Self, CreateError> {
        let device = &template.device;
        let target = Target::new()?;
        let private = Arc::new(Region::demand_zero(template.private_len)?);
        let vm = device.kvm.create_vm().map_err(refused("create a VM"))?;
        let (fixed, mapped) = (&template.fixed, template.early_len);
        map(&vm, 0, CONTROL_GPA, fixed, 0..fixed.len()).map_err(refused("map shared memory"))?;
        map(&vm, 1, PRIVATE_GPA, &private, 0..mapped).map_err(refused("map private memory"))?;
        let mut vcpu = vm.create_vcpu(0).map_err(refused("create a vCPU"))?;
        vcpu.set_cpuid2(&device.cpuid).map_err(refused("set CPUID"))?;
        if device.features.xcr0 != 0 {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0].value = device.features.xcr0;
            vcpu.set_xcrs(&xcrs).map_err(refused("set XCR0"))?;
        }
        // No ioctl for the first registers: the first run takes them along.
        let sync = vcpu.sync_regs_mut();
        sync.regs = template.regs;
        sync.sregs = template.sregs;
        vcpu.set_sync_dirty_reg(SyncReg::Register);
        vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        let memory = Memory::new(
            Arc::clone(&template.space),
            (Arc::clone(&template.fixed), template.shared_start),
            (Arc::clone(&private), PRIVATE_RESERVED),
        );
        let counters = Counters::default();
        let extended = kvm_sregs { cr3: template.extended_root, ..template.sregs };
        Ok(Self { vcpu, vm, memory, private, mapped, extended, target, counters })
    }

    /// Reads what ring 3 did from the frame that the processor pushed. Two
    /// ioctls fewer than asking for the registers; the address takes one.
    fn fault(&mut self, vector: u8) -> Result<Exit, RunError> {
        let mut frame = [0; FRAME_BYTES];
        // In bounds: the private region begins with the exception stack's page.
        let _ = self.private.read(FRAME_OFFSET, &mut frame);
        self.counters.hypercalls += 1;
        let sregs = self
            .vcpu
            .get_sregs()
            .map_err(|error| RunError { step: "read CR2", source: error.into() })?;
        Ok(Exit::Fault(exception_frame(vector, &frame, sregs.cr2)))
    }
}

/// Maps a range of a region, in whole pages, as far behind `gpa` as it is in the region.
fn map(
    vm: &VmFd,
    slot: u32,
    gpa: u64,
    region: &Region,
    range: Range<usize>,
) -> Result<(), kvm_ioctls::Error> {
    // A range beyond the region would let the guest reach memory of the host's.
    if range.start > range.end || range.end > region.len() {
        return Err(kvm_ioctls::Error::new(libc::EINVAL));
    }
    let HostPtr(start) = region.host_ptr();
    let slot = kvm_userspace_memory_region {
        slot,
        flags: if region.is_writable() { 0 } else { KVM_MEM_READONLY },
        guest_phys_addr: gpa + range.start as u64,
        memory_size: range.len() as u64,
        userspace_addr: start + range.start as u64,
    };
    // SAFETY: the address range is the region's (checked above), which the
    // partition keeps mapped until after the VM is gone; slots do not overlap
    // (`KvmTemplate` checks the lengths, and the private ranges adjoin); the
    // host touches the region by copies only.
    unsafe { vm.set_user_memory_region(slot) }
}

/// What a run came to, free of borrows of the run page.
enum Seen {
    Port(u16, u8),
    Interrupted,
    Unexpected(&'static str, u64),
    Failed(i32),
}

impl Partition for KvmPartition {
    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn run(&mut self) -> Result<Exit, RunError> {
        let flag = &raw mut self.vcpu.get_kvm_run().immediate_exit;
        // SAFETY: the run page stays mapped as long as the vCPU, which outlives
        // the guard; the guard is dropped below.
        let Some(running) = (unsafe { self.target.enter(flag) }) else {
            return Ok(Exit::Kicked);
        };
        let seen = match self.vcpu.run() {
            Ok(VcpuExit::IoOut(port, [value])) => Seen::Port(port, *value),
            Ok(exit) => name(&exit),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Seen::Interrupted,
            Err(error) => Seen::Failed(error.errno()),
        };
        drop(running);
        self.counters.exits += 1;
        self.counters.hypercalls += 1;
        match seen {
            Seen::Port(DOORBELL_PORT, value) => Ok(Exit::Doorbell(value)),
            Seen::Port(port, value) => match u8::try_from(port.wrapping_sub(FAULT_PORT)) {
                Ok(vector) if vector < VECTORS => self.fault(vector),
                _ => Ok(unexpected("a write to a port that is not open", u64::from(value))),
            },
            Seen::Interrupted => {
                self.vcpu.set_kvm_immediate_exit(0);
                Ok(Exit::Kicked)
            }
            Seen::Unexpected(what, detail) => Ok(unexpected(what, detail)),
            Seen::Failed(errno) => {
                Err(RunError { step: "run the vCPU", source: io::Error::from_raw_os_error(errno) })
            }
        }
    }

    fn extend(&mut self) -> Result<(), RunError> {
        let late = self.mapped..self.private.len();
        if late.is_empty() {
            return Ok(());
        }
        self.counters.hypercalls += 1;
        map(&self.vm, 2, PRIVATE_GPA, &self.private, late)
            .map_err(|error| RunError { step: "map late memory", source: error.into() })?;
        self.mapped = self.private.len();
        // Ring 3 can have changed none of these but the data segments' selectors,
        // which mean nothing to it.
        self.vcpu.sync_regs_mut().sregs = self.extended;
        self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        Ok(())
    }

    fn kicker(&self) -> Kicker {
        self.target.kicker()
    }

    fn clear_kick(&mut self) {
        self.target.clear();
    }

    fn is_kicked(&self) -> bool {
        self.target.is_requested()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

fn unexpected(what: &'static str, detail: u64) -> Exit {
    Exit::Unexpected(Unexpected { what, detail })
}

/// Names an exit that is no doorbell and no fault.
fn name(exit: &VcpuExit<'_>) -> Seen {
    match exit {
        VcpuExit::IoOut(port, _) => {
            Seen::Unexpected("a wide or repeated write to a port", u64::from(*port))
        }
        VcpuExit::IoIn(port, _) => Seen::Unexpected("a read from a port", u64::from(*port)),
        VcpuExit::MmioRead(gpa, _) => Seen::Unexpected("a read of no memory", *gpa),
        VcpuExit::MmioWrite(gpa, _) => Seen::Unexpected("a write to no memory", *gpa),
        VcpuExit::Shutdown => Seen::Unexpected("a triple fault", 0),
        VcpuExit::Hlt => Seen::Unexpected("a halt in an exception stub", 0),
        VcpuExit::FailEntry(reason, _) => Seen::Unexpected("a failed entry", *reason),
        VcpuExit::InternalError => Seen::Unexpected("an internal error of KVM", 0),
        VcpuExit::Intr => Seen::Interrupted,
        _ => Seen::Unexpected("an exit that no guest of ours causes", 0),
    }
}
