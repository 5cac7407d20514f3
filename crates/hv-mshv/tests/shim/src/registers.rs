//! A processor's registers by their names, read and written in KVM's groups.
//!
//! A group is read when its first register is needed, and written once for all
//! that a call sets. General registers and events travel with the next run.

mod by_name;

use std::ffi::c_int;
use std::time::Instant;

use kvm_bindings::{kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs};
use mshv_bindings::{
    HV_STATUS_INVALID_PARAMETER, HV_STATUS_INVALID_REGISTER_VALUE, HV_STATUS_OPERATION_FAILED,
};

use crate::errno::Errno;
use crate::hypercall::Status;
use crate::kvm::{self, Request};
use crate::names::KEPT;
use crate::run_page::{Handover, RunPage};
use crate::vector::{GET_XSAVE, SET_XSAVE, VectorArea};

const UNKNOWN: Status = Status(HV_STATUS_INVALID_PARAMETER);
const BAD_VALUE: Status = Status(HV_STATUS_INVALID_REGISTER_VALUE);
const FAILED: Status = Status(HV_STATUS_OPERATION_FAILED);

/// A group of registers that one ioctl reads and another writes.
#[derive(Debug, Clone, Copy)]
struct Group<T> {
    known: Option<T>,
    is_changed: bool,
}

impl<T: Default> Group<T> {
    const fn new() -> Self {
        Self { known: None, is_changed: false }
    }

    fn load(&mut self, vcpu: c_int, get: &Request<T>) -> Result<&mut T, Status> {
        if self.known.is_none() {
            let mut value = T::default();
            kvm::call(vcpu, get, &mut value).map_err(|_| FAILED)?;
            self.known = Some(value);
        }
        self.known.as_mut().ok_or(FAILED)
    }

    fn change(&mut self, vcpu: c_int, get: &Request<T>) -> Result<&mut T, Status> {
        self.is_changed = true;
        self.load(vcpu, get)
    }

    /// Writes it if it was changed. What KVM makes of it is read when needed.
    fn store(&mut self, vcpu: c_int, set: &Request<T>) -> Result<(), Status> {
        if !self.is_changed {
            return Ok(());
        }
        self.is_changed = false;
        let value = self.known.take();
        value.map_or(Ok(0), |mut value| kvm::call(vcpu, set, &mut value)).map_err(|_| BAD_VALUE)?;
        Ok(())
    }
}

/// All of one processor's registers.
#[derive(Debug)]
pub(crate) struct Registers {
    vcpu: c_int,
    index: u32,
    made: Instant,
    general: Group<kvm_regs>,
    system: Group<kvm_sregs>,
    events: Group<kvm_vcpu_events>,
    vector: Group<VectorArea>,
    debug: Group<kvm_debugregs>,
    xcrs: Group<kvm_xcrs>,
    kept: [u64; KEPT],
    pub(crate) explicit_suspend: bool,
    pub(crate) intercept_suspend: bool,
}

impl Registers {
    pub(crate) fn new(vcpu: c_int, index: u32, made: Instant) -> Self {
        Self {
            vcpu,
            index,
            made,
            general: Group::new(),
            system: Group::new(),
            events: Group::new(),
            vector: Group::new(),
            debug: Group::new(),
            xcrs: Group::new(),
            kept: [0; KEPT],
            // A VP does not run before its first dispatch.
            explicit_suspend: true,
            intercept_suspend: false,
        }
    }

    /// The general registers.
    pub(crate) fn general(&mut self) -> Result<&mut kvm_regs, Status> {
        self.general.load(self.vcpu, &kvm::GET_REGS)
    }

    /// The general registers, to be changed.
    pub(crate) fn change_general(&mut self) -> Result<&mut kvm_regs, Status> {
        self.general.change(self.vcpu, &kvm::GET_REGS)
    }

    /// The segment, table and control registers.
    pub(crate) fn system(&mut self) -> Result<&mut kvm_sregs, Status> {
        self.system.load(self.vcpu, &kvm::GET_SREGS)
    }

    fn change_system(&mut self) -> Result<&mut kvm_sregs, Status> {
        self.system.change(self.vcpu, &kvm::GET_SREGS)
    }

    /// Exceptions and interrupts under way.
    pub(crate) fn events(&mut self) -> Result<&mut kvm_vcpu_events, Status> {
        self.events.load(self.vcpu, &kvm::GET_EVENTS)
    }

    fn change_events(&mut self) -> Result<&mut kvm_vcpu_events, Status> {
        self.events.change(self.vcpu, &kvm::GET_EVENTS)
    }

    /// The XSAVE area.
    pub(crate) fn vector(&mut self) -> Result<&mut VectorArea, Status> {
        self.vector.load(self.vcpu, &GET_XSAVE)
    }

    /// The XSAVE area, to be changed; [`flush`](Self::flush) then writes it.
    pub(crate) fn change_vector(&mut self) -> Result<&mut VectorArea, Status> {
        self.vector.change(self.vcpu, &GET_XSAVE)
    }

    fn debug(&mut self) -> Result<&mut kvm_debugregs, Status> {
        self.debug.load(self.vcpu, &kvm::GET_DEBUG)
    }

    fn change_debug(&mut self) -> Result<&mut kvm_debugregs, Status> {
        self.debug.change(self.vcpu, &kvm::GET_DEBUG)
    }

    fn xcr0(&mut self) -> Result<u64, Status> {
        let xcrs = self.xcrs.load(self.vcpu, &kvm::GET_XCRS)?;
        Ok(xcrs.xcrs.iter().find(|xcr| xcr.xcr == 0).map_or(1, |xcr| xcr.value))
    }

    /// KVM refuses any value where CPUID hides XSAVE, even the present one.
    fn set_xcr0(&mut self, value: u64) -> Result<(), Status> {
        if self.xcr0()? == value {
            return Ok(());
        }
        let xcrs = self.xcrs.change(self.vcpu, &kvm::GET_XCRS)?;
        xcrs.nr_xcrs = 1;
        if let Some(first) = xcrs.xcrs.first_mut() {
            (first.xcr, first.value) = (0, value);
        }
        Ok(())
    }

    /// Writes what was changed and does not travel with the next run.
    pub(crate) fn flush(&mut self, msrs: &[kvm_msr_entry]) -> Result<(), Status> {
        let vcpu = self.vcpu;
        self.system.store(vcpu, &kvm::SET_SREGS)?;
        self.vector.store(vcpu, &SET_XSAVE)?;
        self.debug.store(vcpu, &kvm::SET_DEBUG)?;
        self.xcrs.store(vcpu, &kvm::SET_XCRS)?;
        self.events.store(vcpu, &kvm::SET_EVENTS)?;
        if msrs.is_empty() {
            return Ok(());
        }
        match kvm::set_msrs(vcpu, msrs) {
            Ok(count) if count == msrs.len() => Ok(()),
            Ok(_) => Err(BAD_VALUE),
            Err(_) => Err(FAILED),
        }
    }

    /// Runs the vCPU, or only finishes what it stopped for, and takes over the
    /// registers that it stops with.
    pub(crate) fn run(&mut self, page: &mut RunPage, only_finish: bool) -> Result<(), Errno> {
        let general = self.general;
        let regs = general.known.as_ref().filter(|_| general.is_changed);
        // KVM forgets an exception that it has yet to inject when general
        // registers are set, and has said of it that it was injected.
        let events = self.events.known;
        let events = events.as_ref().filter(|events| events.exception.injected != 0);
        let events = events.filter(|_| regs.is_some());
        let result = page.run(self.vcpu, Handover { regs, events, only_finish });
        match result {
            Ok(()) | Err(Errno(libc::EINTR | libc::EAGAIN | libc::EFAULT)) => self.adopt(page),
            Err(_) => {}
        }
        result
    }

    fn adopt(&mut self, page: &RunPage) {
        let (general, system, events) = page.registers();
        self.general = Group { known: Some(general), is_changed: false };
        self.system = Group { known: Some(system), is_changed: false };
        self.events = Group { known: Some(events), is_changed: false };
        self.vector = Group::new();
        self.debug = Group::new();
        self.xcrs = Group::new();
    }
}
