//! One VM with one vCPU.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cellule_abi::doorbell::DOORBELL_PORT;
use cellule_hv::exit::PAGE_FAULT;
use cellule_hv::x86::{
    FAULT_PORT, FRAME_BYTES, FRAME_OFFSET, PRIVATE_RESERVED, VECTORS, exception_frame,
};
use cellule_hv::{
    Counters, CreateError, Exit, GuestClock, Gva, Memory, PageSet, Partition, Position, Registers,
    RunError, Unexpected,
};
use cellule_kick::{Kicker, Target};
use cellule_mem::Region;

use crate::message::Seen;
use crate::template::MshvTemplate;
use crate::vcpu::{Ran, Vcpu};
use crate::vm::Vm;
use crate::{Device, clock, registers};

/// One VM with one vCPU and its private memory.
///
/// Fields are dropped in order: the vCPU before its VM, and that before its memory.
#[derive(Debug)]
pub(crate) struct MshvPartition {
    vcpu: Vcpu,
    vm: Vm,
    memory: Memory,
    /// The exception stack, and the guest's private memory behind it.
    private: Arc<Region>,
    /// The root of the page tables that map all of the private memory.
    extended_root: u64,
    /// Where the exception stubs are: there, and only there, runs ring 0.
    stubs: Range<u64>,
    stand: Stand,
    device: Arc<Device>,
    /// The guest's time stamp counter less the host's, once asked for.
    tsc_offset: Option<i64>,
    target: Target,
    /// A signal sets it that comes while the vCPU is entered.
    stop: AtomicU8,
    exits: u64,
}

/// Where the guest stands, as far as the last exit tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// At the doorbell, and goes on at this instruction.
    Port { next: Gva },
    /// Wherever it was when it was interrupted.
    Anywhere,
    /// In ring 3, with no exception under way.
    Ring3(Position),
    /// In an exception stub that has reported.
    Fault,
    /// Nobody knows.
    Lost,
}

fn refused(step: &'static str) -> impl FnOnce(io::Error) -> CreateError {
    move |source| CreateError::Refused { step, source }
}

impl MshvPartition {
    pub(crate) fn new(template: &MshvTemplate) -> Result<Self, CreateError> {
        let device = &template.device;
        let target = Target::new()?;
        let private = Arc::new(Region::demand_zero(template.private_len)?);
        let vm = device.create_vm().map_err(refused("create a VM"))?;
        let fixed = (Arc::clone(&template.fixed), &template.pieces[..]);
        let early = (Arc::clone(&private), template.early_len);
        let vm = Vm::new(vm, fixed, early).map_err(refused("map guest memory"))?;
        let vcpu = vm.create_vcpu().map_err(refused("create a vCPU"))?;
        let vcpu = Vcpu::new(vcpu, &template.first).map_err(refused("set the first registers"))?;
        let memory = Memory::new(
            Arc::clone(&template.space),
            (Arc::clone(&template.fixed), template.shared_start),
            (Arc::clone(&private), PRIVATE_RESERVED),
        );
        Ok(Self {
            vcpu,
            vm,
            memory,
            private,
            extended_root: template.extended_root,
            stubs: template.stubs.clone(),
            stand: Stand::Ring3(template.start),
            device: Arc::clone(device),
            tsc_offset: None,
            target,
            stop: AtomicU8::new(0),
            exits: 0,
        })
    }

    /// The guest's time stamp counter less the host's, as the hypervisor believes.
    pub(crate) fn believed_tsc_offset(&mut self) -> Result<i64, RunError> {
        clock::believed_offset(&mut self.vcpu)
            .map_err(|source| failed("read the guest's time stamp counter", source))
    }

    /// Tells the vCPU what has changed, and runs it; `None` if it was to stop
    /// before.
    fn enter(&mut self) -> Result<Option<Ran>, RunError> {
        let flag = self.stop.as_ptr();
        // SAFETY: the flag is a field of this partition, which is borrowed until
        // the guard is dropped below; nobody leaks the guard.
        let running = unsafe { self.target.enter_until_stopped(flag) };
        let running =
            running.map_err(|error| failed("arm the timer of a run", io::Error::other(error)))?;
        let is_stopped = || self.stop.load(Ordering::SeqCst) != 0;
        // It may be set already, by a signal that came when the last run had just
        // ended, or just now.
        if running.is_none() || is_stopped() {
            return Ok(None);
        }
        self.vcpu.tell().map_err(|source| failed("set registers", source))?;
        loop {
            match self.vcpu.run() {
                Ran::Again if !is_stopped() => {}
                ran => return Ok(Some(ran)),
            }
        }
        // Here the guard goes, while the flag still says whether it was needed.
    }

    /// A write to a port that is not the doorbell: an exception stub's, or nobody's.
    fn reported(&mut self, port: u16, value: u8) -> Result<Exit, RunError> {
        match u8::try_from(port.wrapping_sub(FAULT_PORT)) {
            Ok(vector) if vector < VECTORS => {
                self.stand = Stand::Fault;
                self.fault(vector)
            }
            _ => Ok(unexpected("a write to a port that is not open", u64::from(value))),
        }
    }

    /// Reads what ring 3 did from the frame that the processor pushed. The address
    /// of a page fault takes a call, all else is in memory.
    fn fault(&mut self, vector: u8) -> Result<Exit, RunError> {
        let mut frame = [0; FRAME_BYTES];
        // In bounds: the private region begins with the exception stack's page.
        let _ = self.private.read(FRAME_OFFSET, &mut frame);
        let address = match vector {
            PAGE_FAULT => self.vcpu.register(registers::CR2),
            _ => Ok(0),
        };
        let address = address.map_err(|source| failed("read CR2", source))?;
        Ok(Exit::Fault(exception_frame(vector, &frame, address)))
    }
}

impl Partition for MshvPartition {
    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn run(&mut self) -> Result<Exit, RunError> {
        let Some(ran) = self.enter()? else {
            self.stop.store(0, Ordering::SeqCst);
            return Ok(Exit::Kicked);
        };
        self.exits += 1;
        self.stand = Stand::Lost;
        match ran {
            Ran::Interrupted | Ran::Again => {
                self.stop.store(0, Ordering::SeqCst);
                self.stand = Stand::Anywhere;
                Ok(Exit::Kicked)
            }
            Ran::Failed(errno) => Err(failed("run the vCPU", io::Error::from_raw_os_error(errno))),
            Ran::Stopped(Seen::Port { port: DOORBELL_PORT, value, next }) => {
                self.vcpu.go_on(next);
                self.stand = Stand::Port { next: Gva(next) };
                Ok(Exit::Doorbell(value))
            }
            Ran::Stopped(Seen::Port { port, value, .. }) => self.reported(port, value),
            Ran::Stopped(Seen::Unexpected(what, detail)) => Ok(unexpected(what, detail)),
        }
    }

    fn position(&mut self) -> Result<Option<Position>, RunError> {
        const STEP: &str = "read where the guest stands";
        let position = match self.stand {
            Stand::Ring3(position) => position,
            Stand::Port { next } => {
                let rsp = self.vcpu.rsp().map_err(|source| failed(STEP, source))?;
                Position { rip: next, rsp: Gva(rsp) }
            }
            Stand::Anywhere => {
                let stand = self.vcpu.stand();
                let (position, delivering) = stand.map_err(|source| failed(STEP, source))?;
                // The hypervisor would deliver an exception that it has accepted
                // for the guest wherever the guest then is. That ring 3 can point
                // RIP at a stub is no harm: its next instruction is a page fault.
                if delivering || self.stubs.contains(&position.rip.0) {
                    return Ok(None);
                }
                position
            }
            Stand::Fault | Stand::Lost => return Err(misuse("tell where a stopped guest stands")),
        };
        self.stand = Stand::Ring3(position);
        Ok(Some(position))
    }

    fn divert(&mut self, to: Position) -> Result<(), RunError> {
        let Stand::Ring3(_) = self.stand else {
            return Err(misuse("divert a guest from where it is not known to be"));
        };
        self.vcpu.divert(to);
        self.stand = Stand::Ring3(to);
        Ok(())
    }

    fn registers(&mut self) -> Result<Registers, RunError> {
        let Stand::Ring3(position) = self.stand else {
            return Err(misuse("read the registers of a guest that is not known to be in ring 3"));
        };
        self.vcpu.registers(position).map_err(|source| failed("read registers", source))
    }

    fn restart(&mut self, registers: &Registers) -> Result<(), RunError> {
        let (Stand::Fault | Stand::Ring3(_)) = self.stand else {
            return Err(misuse("restart a guest that has not faulted"));
        };
        self.vcpu.restart(registers);
        self.stand = Stand::Ring3(Position { rip: Gva(registers.rip), rsp: Gva(registers.rsp) });
        Ok(())
    }

    fn track(&mut self) -> Result<(), RunError> {
        if self.vm.track().map_err(|source| failed("log dirty pages", source))? {
            self.memory.track();
        }
        Ok(())
    }

    fn dirty(&mut self, pages: &mut PageSet) -> Result<(), RunError> {
        let found = self.vm.dirty(pages).map_err(|source| failed("read the dirty pages", source));
        found?.ok_or_else(|| misuse("tell the dirty pages of a guest that is not tracked"))?;
        self.memory.written(pages);
        Ok(())
    }

    fn rearm(&mut self, pages: &PageSet) -> Result<(), RunError> {
        let found = self.vm.rearm(pages).map_err(|source| failed("clear dirty pages", source));
        found?.ok_or_else(|| misuse("rearm pages of a guest that is not tracked"))?;
        self.memory.rearm(pages);
        Ok(())
    }

    fn clock(&mut self) -> Result<GuestClock, RunError> {
        const TSC: &str = "recognise what the guest's time stamp counter shows";
        let unknown = || failed(TSC, io::ErrorKind::Unsupported.into());
        let applies_offset = self.device.sight()?.applies_offset.ok_or_else(unknown)?;
        let tsc_khz = self.device.tsc_khz().ok_or_else(unknown)?;
        let tsc_offset = match (self.tsc_offset, applies_offset) {
            (Some(offset), _) => offset,
            (None, true) => self.believed_tsc_offset()?,
            (None, false) => 0,
        };
        self.tsc_offset = Some(tsc_offset);
        Ok(GuestClock::read(tsc_khz, tsc_offset, clock::host_tsc))
    }

    fn extend(&mut self) -> Result<(), RunError> {
        if self.vm.extend().map_err(|source| failed("map late memory", source))? {
            self.vcpu.set_root(self.extended_root);
        }
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
        Counters { exits: self.exits, hypercalls: self.vm.calls + self.vcpu.calls }
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
