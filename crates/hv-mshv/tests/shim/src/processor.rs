//! A virtual processor: a vCPU, its run page, and what is known of its registers.

use std::ffi::{c_int, c_ulong};
use std::mem::{offset_of, size_of};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use kvm_bindings::kvm_cpuid_entry2;
use mshv_bindings::{
    MSHV_VP_STATE_XSAVE, mshv_get_set_vp_state, mshv_root_hvcall, mshv_run_vp, mshv_translate_gva,
};

use crate::caller::{self, Fields};
use crate::cpuid;
use crate::errno::{Errno, missing, say};
use crate::host::Host;
use crate::hypercall::{self, Origin};
use crate::kvm;
use crate::partition::Partition;
use crate::registers::Registers;
use crate::request::{Copied, request};
use crate::run::Standing;
use crate::run_page::RunPage;
use crate::vector::VectorArea;

const RUN_VP: c_ulong = request(Copied::Out, 0x00, size_of::<mshv_run_vp>());
const GET_VP_STATE: c_ulong = request(Copied::Both, 0x01, size_of::<mshv_get_set_vp_state>());
const SET_VP_STATE: c_ulong = request(Copied::Both, 0x02, size_of::<mshv_get_set_vp_state>());
const ROOT_HVCALL: c_ulong = request(Copied::Both, 0x07, size_of::<mshv_root_hvcall>());
const TRANSLATE_GVA: c_ulong = request(Copied::Both, 0xf2, size_of::<mshv_translate_gva>());
const PAGE: u32 = 4096;

/// A virtual processor.
#[derive(Debug)]
pub(crate) struct Processor {
    /// Taken out by whoever uses it, so that no lock is held while the guest
    /// runs; gone once its descriptor is closed.
    state: Mutex<Slot>,
}

#[derive(Debug)]
enum Slot {
    Free(Box<State>),
    Taken,
    Retired,
}

/// What belongs to the one thread that uses a processor.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) vcpu: c_int,
    pub(crate) index: u32,
    pub(crate) page: RunPage,
    pub(crate) registers: Registers,
    pub(crate) standing: Option<Standing>,
    cpuid: Vec<kvm_cpuid_entry2>,
}

impl Processor {
    /// Makes what stands for a vCPU of KVM's.
    pub(crate) fn new(
        host: &Host,
        vcpu: c_int,
        index: u32,
        partition_made: Instant,
    ) -> Result<Self, Errno> {
        let cpuid = host.cpuid.clone();
        kvm::set_cpuid(vcpu, &cpuid)?;
        let state = State {
            vcpu,
            index,
            page: RunPage::map(vcpu, host.run_page_len)?,
            registers: Registers::new(vcpu, index, partition_made),
            standing: None,
            cpuid,
        };
        Ok(Self { state: Mutex::new(Slot::Free(Box::new(state))) })
    }

    fn replace(&self, slot: Slot) -> Slot {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), slot)
    }

    /// Gives up the vCPU, whose descriptor is about to be closed.
    pub(crate) fn retire(&self) {
        drop(self.replace(Slot::Retired));
    }

    /// Uses the processor, which nobody else must do at the same time.
    ///
    /// The driver would let the second caller wait until the run ends; that it
    /// happens at all is a mistake that should be seen.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Free(mut state) => {
                drop(slot);
                let result = work(&mut state);
                let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if matches!(*slot, Slot::Taken) {
                    *slot = Slot::Free(state);
                }
                result
            }
            Slot::Taken => {
                say("a VP was used while it ran, or by two threads: errno", 16);
                Err(Errno(libc::EBUSY))
            }
            Slot::Retired => {
                *slot = Slot::Retired;
                Err(Errno(libc::EBADF))
            }
        }
    }

    /// Does what an ioctl on the VP's descriptor asks for.
    pub(crate) fn ioctl(
        &self,
        partition: &Partition,
        request: c_ulong,
        argument: c_ulong,
    ) -> Result<c_int, Errno> {
        match request {
            RUN_VP => {
                let message = self.with(|state| state.run(partition))?;
                caller::write(argument, &message)?;
            }
            ROOT_HVCALL => hypercall::answer(Origin::Processor(partition), argument)?,
            GET_VP_STATE => self.with(|state| state.xsave(argument, Direction::Get))?,
            SET_VP_STATE => self.with(|state| state.xsave(argument, Direction::Set))?,
            // mshv-ioctls tries it first, and then the hypercall.
            TRANSLATE_GVA => return Err(Errno(libc::ENOTTY)),
            request => return Err(missing("no ioctl of a VP", request)),
        }
        Ok(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Get,
    Set,
}

impl State {
    /// What CPUID the processor shows.
    pub(crate) fn cpuid(&self, function: u32, index: u32) -> [u32; 4] {
        cpuid::values(&self.cpuid, function, index)
    }

    /// Changes that; KVM refuses once the guest has run.
    pub(crate) fn overlay_cpuid(&mut self, overlay: &cpuid::Overlay) -> Result<(), Errno> {
        let mut leaves = self.cpuid.clone();
        overlay.apply(&mut leaves);
        kvm::set_cpuid(self.vcpu, &leaves)?;
        self.cpuid = leaves;
        Ok(())
    }

    /// Copies the XSAVE area: in whole pages, as the driver has it.
    fn xsave(&mut self, argument: u64, direction: Direction) -> Result<(), Errno> {
        let bytes = caller::read_struct::<{ size_of::<mshv_get_set_vp_state>() }>(argument)?;
        let fields = Fields(&bytes);
        let kind = fields.u8(offset_of!(mshv_get_set_vp_state, type_));
        let len = fields.u32(offset_of!(mshv_get_set_vp_state, buf_sz));
        let buffer = fields.u64(offset_of!(mshv_get_set_vp_state, buf_ptr));
        let is_zero = fields.is_zero(offset_of!(mshv_get_set_vp_state, rsvd), 3);
        if len == 0
            || !len.is_multiple_of(PAGE)
            || !buffer.is_multiple_of(u64::from(PAGE))
            || !is_zero
        {
            return Err(Errno(libc::EINVAL));
        }
        if u32::from(kind) != MSHV_VP_STATE_XSAVE {
            return Err(missing("no VP state of type", kind));
        }
        let len_at = offset_of!(mshv_get_set_vp_state, buf_sz);
        let len_at = argument.wrapping_add(u64::try_from(len_at).unwrap_or(0));
        caller::write(len_at, &PAGE.to_le_bytes())?;
        match direction {
            Direction::Get => {
                let area = *self.registers.vector().map_err(|_| Errno(libc::EIO))?;
                caller::write(buffer, &area.to_bytes())
            }
            Direction::Set => {
                let bytes = caller::read_struct::<4096>(buffer)?;
                let area = self.registers.change_vector().map_err(|_| Errno(libc::EIO))?;
                *area = VectorArea::from_bytes(&bytes);
                self.registers.flush(&[]).map_err(|_| Errno(libc::EINVAL))
            }
        }
    }
}
