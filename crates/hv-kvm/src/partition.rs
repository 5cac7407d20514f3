//! One VM with one vCPU.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cellule_abi::doorbell::DOORBELL_PORT;
use cellule_hv::x86::{
    CONTROL_GPA, FAULT_PORT, FRAME_BYTES, FRAME_OFFSET, PRIVATE_GPA, PRIVATE_RESERVED, VECTORS,
    exception_frame,
};
use cellule_hv::{
    Counters, CreateError, Exit, GuestClock, Gva, Memory, PageSet, Partition, Position, Registers,
    RunError, Unexpected,
};
use cellule_kick::{Kicker, Target};
use cellule_mem::{HostPtr, PAGE_BYTES, Region};
use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_SYNC_X86_SREGS, kvm_sregs, kvm_sync_regs,
    kvm_userspace_memory_region, kvm_xcrs,
};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};

use crate::template::KvmTemplate;
use crate::{Device, clock, dirty, registers};

/// One VM with one vCPU and its private memory.
///
/// Fields are dropped in order: the vCPU and the VM before their memory.
#[derive(Debug)]
pub(crate) struct KvmPartition {
    vcpu: VcpuFd,
    vm: VmFd,
    /// Keeps both regions mapped for as long as the VM can reach them.
    memory: Memory,
    /// Page tables, the exception stack, and the guest's private memory.
    private: Arc<Region>,
    /// How long the page tables are.
    tables_len: usize,
    /// How much of the private region was mapped from the start.
    early: usize,
    /// How much of it is mapped; all, once extended.
    mapped: usize,
    /// Whether dirty pages are logged.
    tracked: bool,
    /// The system registers to start with; once extended, with that root.
    sregs: kvm_sregs,
    /// The root of the page tables that map all of the private memory.
    extended_root: u64,
    /// Where the exception stubs are: there, and only there, runs ring 0.
    stubs: Range<u64>,
    stand: Stand,
    device: Arc<Device>,
    /// The guest's time stamp counter less the host's, once asked for.
    tsc_offset: Option<i64>,
    target: Target,
    counters: Counters,
}

/// Where the guest stands, as far as the last exit tells. The run page has its
/// registers, but for [`Stand::Port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// At the doorbell, where some processors have yet to step over the `out`.
    Port,
    /// Wherever it was when it was interrupted.
    Anywhere,
    /// In ring 3, with no exception under way.
    Ring3,
    /// In an exception stub that has reported.
    Fault,
    /// Nobody knows.
    Lost,
}

// The memory slots.
const FIXED: u32 = 0;
const EARLY: u32 = 1;
const LATE: u32 = 2;

/// Whether KVM logs which pages of a slot are written.
#[derive(Debug, Clone, Copy)]
enum Log {
    Off,
    Dirty,
}

fn refused(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> CreateError {
    move |error| CreateError::Refused { step, source: error.into() }
}

impl KvmPartition {
    pub(crate) fn new(template: &KvmTemplate) -> Result<Self, CreateError> {
        let device = &template.device;
        let target = Target::new()?;
        let page_tables: Vec<_> = template.page_tables.iter().collect();
        let private = Arc::new(Region::copy_on_write(&page_tables, template.private_len)?);
        let vm = device.kvm.create_vm().map_err(refused("create a VM"))?;
        let (fixed, mapped) = (&template.fixed, template.early_len);
        let tables_len = template.tables_len;
        map(&vm, FIXED, CONTROL_GPA, fixed, 0..fixed.len(), Log::Off)
            .map_err(refused("map shared memory"))?;
        map(&vm, EARLY, private_gpa(tables_len), &private, 0..mapped, Log::Off)
            .map_err(refused("map private memory"))?;
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
        // Every exit leaves in the run page what `position` looks at.
        vcpu.set_sync_valid_reg(SyncReg::Register);
        vcpu.set_sync_valid_reg(SyncReg::VcpuEvents);
        let memory = Memory::new(
            Arc::clone(&template.space),
            (Arc::clone(&template.fixed), template.shared_start),
            (Arc::clone(&private), tables_len + PRIVATE_RESERVED),
        );
        Ok(Self {
            vcpu,
            vm,
            memory,
            private,
            tables_len,
            early: mapped,
            mapped,
            tracked: false,
            sregs: template.sregs,
            extended_root: template.extended_root,
            stubs: template.stubs.clone(),
            stand: Stand::Ring3,
            device: Arc::clone(device),
            tsc_offset: None,
            target,
            counters: Counters::default(),
        })
    }

    /// Lets KVM finish the `out` that it stopped for: some processors step over
    /// it only on the way in. The guest does not run.
    fn complete(&mut self) -> Result<(), RunError> {
        const STEP: &str = "complete a write to the doorbell";
        // The flag may be set already, by a signal that came when the run had
        // just ended: it must still stop the next one.
        let flag = self.vcpu.get_kvm_run().immediate_exit;
        self.vcpu.set_kvm_immediate_exit(1);
        let errno = self.vcpu.run().err().map(|error| error.errno());
        self.vcpu.set_kvm_immediate_exit(flag);
        self.counters.hypercalls += 1;
        match errno {
            Some(libc::EINTR) => {
                self.stand = Stand::Anywhere;
                Ok(())
            }
            Some(errno) => Err(failed(STEP, io::Error::from_raw_os_error(errno))),
            None => Err(failed(STEP, io::ErrorKind::Unsupported.into())),
        }
    }

    /// How many pages of the private region are not the guest's.
    fn reserved(&self) -> usize {
        (self.tables_len + PRIVATE_RESERVED) / PAGE_BYTES
    }

    /// Whether, and how, a slot of the private region is logged from now on.
    fn log(&self) -> Log {
        if self.tracked { Log::Dirty } else { Log::Off }
    }

    /// The slots of the private region, and what of it is in each.
    fn slots(&self) -> impl Iterator<Item = (u32, Range<usize>)> + use<> {
        let slots = [(EARLY, 0..self.early), (LATE, self.early..self.mapped)];
        slots.into_iter().filter(|(_, range)| !range.is_empty())
    }

    /// Reads the system registers: one ioctl.
    fn system(&mut self, step: &'static str) -> Result<kvm_sregs, RunError> {
        self.counters.hypercalls += 1;
        self.vcpu.get_sregs().map_err(|error| failed(step, error.into()))
    }

    /// The guest's time stamp counter less the host's, as KVM believes.
    pub(crate) fn believed_tsc_offset(&mut self) -> Result<i64, RunError> {
        let (offset, hypercalls) = clock::believed_offset(&self.vcpu)?;
        self.counters.hypercalls += hypercalls;
        Ok(offset)
    }

    /// The counter's frequency, as KVM set it up for the guest.
    pub(crate) fn tsc_khz(&mut self) -> Result<u32, RunError> {
        self.counters.hypercalls += 1;
        self.vcpu.get_tsc_khz().map_err(|error| failed("read the TSC's frequency", error.into()))
    }

    /// Reads what ring 3 did from the frame that the processor pushed. Two
    /// ioctls fewer than asking for the registers; the address takes one.
    fn fault(&mut self, vector: u8) -> Result<Exit, RunError> {
        let mut frame = [0; FRAME_BYTES];
        // In bounds: the exception stack's page follows the page tables.
        let _ = self.private.read(self.tables_len + FRAME_OFFSET, &mut frame);
        let sregs = self.system("read CR2")?;
        Ok(Exit::Fault(exception_frame(vector, &frame, sregs.cr2)))
    }
}

/// Where the private region begins: its page tables end at [`PRIVATE_GPA`].
fn private_gpa(tables_len: usize) -> u64 {
    PRIVATE_GPA - tables_len as u64
}

/// Maps a range of a region, in whole pages, as far behind `gpa` as it is in the region.
fn map(
    vm: &VmFd,
    slot: u32,
    gpa: u64,
    region: &Region,
    range: Range<usize>,
    log: Log,
) -> Result<(), kvm_ioctls::Error> {
    // A range beyond the region would let the guest reach memory of the host's.
    if range.start > range.end || range.end > region.len() {
        return Err(kvm_ioctls::Error::new(libc::EINVAL));
    }
    let HostPtr(start) = region.host_ptr();
    let slot = kvm_userspace_memory_region {
        slot,
        flags: match (region.is_writable(), log) {
            (false, _) => KVM_MEM_READONLY,
            (true, Log::Off) => 0,
            (true, Log::Dirty) => KVM_MEM_LOG_DIRTY_PAGES,
        },
        guest_phys_addr: gpa + range.start as u64,
        memory_size: range.len() as u64,
        userspace_addr: start + range.start as u64,
    };
    // SAFETY: the address range is the region's (checked above), which the
    // partition keeps mapped until after the VM is gone; slots do not overlap
    // (`KvmTemplate` checks the lengths, the private ranges adjoin, and a slot
    // that is set anew only changes its flags); the host touches the region by
    // copies only.
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
        self.stand = Stand::Lost;
        match seen {
            Seen::Port(DOORBELL_PORT, value) => {
                self.stand = Stand::Port;
                Ok(Exit::Doorbell(value))
            }
            Seen::Port(port, value) => match u8::try_from(port.wrapping_sub(FAULT_PORT)) {
                Ok(vector) if vector < VECTORS => {
                    self.stand = Stand::Fault;
                    self.fault(vector)
                }
                _ => Ok(unexpected("a write to a port that is not open", u64::from(value))),
            },
            Seen::Interrupted => {
                self.stand = Stand::Anywhere;
                self.vcpu.set_kvm_immediate_exit(0);
                Ok(Exit::Kicked)
            }
            Seen::Unexpected(what, detail) => Ok(unexpected(what, detail)),
            Seen::Failed(errno) => Err(failed("run the vCPU", io::Error::from_raw_os_error(errno))),
        }
    }

    fn position(&mut self) -> Result<Option<Position>, RunError> {
        match self.stand {
            Stand::Port => self.complete()?,
            Stand::Anywhere | Stand::Ring3 => {}
            Stand::Fault | Stand::Lost => return Err(misuse("tell where a stopped guest stands")),
        }
        let kvm_sync_regs { regs, events, .. } = self.vcpu.sync_regs_mut();
        let position = Position { rip: Gva(regs.rip), rsp: Gva(regs.rsp) };
        // KVM would deliver an exception that it has accepted for the guest
        // wherever the guest then is. (It says "injected" of one that it has
        // yet to inject, too.) That ring 3 can point RIP at a stub is no harm:
        // its next instruction is a page fault.
        if events.exception.injected != 0 || self.stubs.contains(&regs.rip) {
            self.stand = Stand::Anywhere;
            return Ok(None);
        }
        self.stand = Stand::Ring3;
        Ok(Some(position))
    }

    fn divert(&mut self, to: Position) -> Result<(), RunError> {
        if self.stand != Stand::Ring3 {
            return Err(misuse("divert a guest from where it is not known to be"));
        }
        let regs = &mut self.vcpu.sync_regs_mut().regs;
        (regs.rip, regs.rsp) = (to.rip.0, to.rsp.0);
        self.vcpu.set_sync_dirty_reg(SyncReg::Register);
        Ok(())
    }

    fn registers(&mut self) -> Result<Registers, RunError> {
        if self.stand != Stand::Ring3 {
            return Err(misuse("read the registers of a guest that is not known to be in ring 3"));
        }
        // What is yet to be loaded is in the run page only.
        let dirty = self.vcpu.get_kvm_run().kvm_dirty_regs;
        let sregs = match dirty & u64::from(KVM_SYNC_X86_SREGS) {
            0 => self.system("read the system registers")?,
            _ => self.vcpu.sync_regs().sregs,
        };
        Ok(registers::read(&self.vcpu.sync_regs().regs, &sregs))
    }

    fn restart(&mut self, registers: &Registers) -> Result<(), RunError> {
        if !matches!(self.stand, Stand::Fault | Stand::Ring3) {
            return Err(misuse("restart a guest that has not faulted"));
        }
        // KVM loads these before it would step over the stub's `out`, and does
        // not do so as RIP is another (`complete_fast_pio_out`).
        let sync = self.vcpu.sync_regs_mut();
        sync.regs = registers::general(registers);
        sync.sregs = self.sregs;
        (sync.sregs.fs.base, sync.sregs.gs.base) = (registers.fs_base, registers.gs_base);
        self.vcpu.set_sync_dirty_reg(SyncReg::Register);
        self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        self.stand = Stand::Ring3;
        Ok(())
    }

    fn clock(&mut self) -> Result<GuestClock, RunError> {
        const TSC: &str = "recognise what the guest's time stamp counter shows";
        let unknown = || failed(TSC, io::ErrorKind::Unsupported.into());
        let tsc = self.device.sight()?.tsc.ok_or_else(unknown)?;
        let tsc_offset = match (self.tsc_offset, tsc.applies_offset) {
            (Some(offset), _) => offset,
            (None, true) => self.believed_tsc_offset()?,
            (None, false) => 0,
        };
        self.tsc_offset = Some(tsc_offset);
        Ok(GuestClock::read(u64::from(tsc.khz), tsc_offset, clock::host_tsc))
    }

    fn extend(&mut self) -> Result<(), RunError> {
        let late = self.mapped..self.private.len();
        if late.is_empty() {
            return Ok(());
        }
        self.counters.hypercalls += 1;
        map(&self.vm, LATE, private_gpa(self.tables_len), &self.private, late, self.log())
            .map_err(|error| failed("map late memory", error.into()))?;
        self.mapped = self.private.len();
        self.sregs.cr3 = self.extended_root;
        let sregs = match self.stand {
            // Ring 3 can have changed none of these but the data segments'
            // selectors, which mean nothing to it.
            Stand::Port | Stand::Ring3 => self.sregs,
            // It may be ring 0, on the way to the end of a stub.
            Stand::Anywhere | Stand::Fault | Stand::Lost => {
                kvm_sregs { cr3: self.extended_root, ..self.system("read the system registers")? }
            }
        };
        self.vcpu.sync_regs_mut().sregs = sregs;
        self.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
        Ok(())
    }

    fn track(&mut self) -> Result<(), RunError> {
        const STEP: &str = "log dirty pages";
        if self.tracked {
            return Ok(());
        }
        dirty::keep_until_cleared(&self.vm).map_err(|error| failed(STEP, error))?;
        self.counters.hypercalls += 1;
        self.memory.track();
        self.tracked = true;
        for (slot, range) in self.slots() {
            self.counters.hypercalls += 1;
            map(&self.vm, slot, private_gpa(self.tables_len), &self.private, range, Log::Dirty)
                .map_err(|error| failed(STEP, error.into()))?;
        }
        Ok(())
    }

    fn dirty(&mut self, pages: &mut PageSet) -> Result<(), RunError> {
        if !self.tracked {
            return Err(misuse("tell the dirty pages of a guest that is not tracked"));
        }
        for (slot, range) in self.slots() {
            self.counters.hypercalls += 1;
            let log = self.vm.get_dirty_log(slot, range.len());
            let log = log.map_err(|error| failed("read the dirty pages", error.into()))?;
            dirty::add(&log, range.start / PAGE_BYTES, self.reserved(), pages);
        }
        self.memory.written(pages);
        Ok(())
    }

    fn rearm(&mut self, pages: &PageSet) -> Result<(), RunError> {
        if !self.tracked {
            return Err(misuse("rearm pages of a guest that is not tracked"));
        }
        for (slot, range) in self.slots() {
            self.counters.hypercalls += 1;
            let range = range.start / PAGE_BYTES..range.end / PAGE_BYTES;
            dirty::clear(&self.vm, slot, range, self.reserved(), pages)
                .map_err(|error| failed("protect clean pages again", error))?;
        }
        self.memory.rearm(pages);
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

fn failed(step: &'static str, source: io::Error) -> RunError {
    RunError { step, source }
}

/// The caller asked for what the state does not allow.
fn misuse(step: &'static str) -> RunError {
    failed(step, io::ErrorKind::InvalidInput.into())
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

#[cfg(test)]
mod tests;
