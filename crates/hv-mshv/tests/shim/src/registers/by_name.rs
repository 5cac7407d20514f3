//! Registers by the names of MSHV: what the hypercalls 80 and 81 do.

use kvm_bindings::kvm_msr_entry;

use super::{BAD_VALUE, Registers, UNKNOWN};
use crate::hypercall::Status;
use crate::kvm::{self, Plain};
use crate::names::{self, Register};
use crate::{events, segment};

/// A register that was read, or an MSR that is yet to be.
enum Value {
    Known(u128),
    Msr(u32),
}

impl Registers {
    /// Reads registers in the order of their names, as many as there are before
    /// one that there is not.
    pub(crate) fn read(&mut self, names: &[u32]) -> (Vec<u128>, Status) {
        let mut values = Vec::with_capacity(names.len());
        let mut msrs: Vec<(usize, kvm_msr_entry)> = Vec::new();
        let mut status = Status::SUCCESS;
        for name in names {
            match names::register(*name).ok_or(UNKNOWN).and_then(|register| self.one(register)) {
                Ok(Value::Known(value)) => values.push(value),
                Ok(Value::Msr(index)) => {
                    msrs.push((values.len(), kvm_msr_entry { index, ..Default::default() }));
                    values.push(0);
                }
                Err(error) => {
                    status = error;
                    break;
                }
            }
        }
        let (places, mut entries): (Vec<_>, Vec<_>) = msrs.into_iter().unzip();
        let count = if entries.is_empty() { 0 } else { self.msrs(&mut entries) };
        for (place, entry) in places.iter().zip(&entries) {
            if let Some(value) = values.get_mut(*place) {
                *value = u128::from(entry.data);
            }
        }
        if let Some(first_bad) = places.get(count) {
            values.truncate(*first_bad);
            status = UNKNOWN;
        }
        (values, status)
    }

    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> usize {
        kvm::msrs(self.vcpu, entries).unwrap_or(0)
    }

    fn one(&mut self, register: Register) -> Result<Value, Status> {
        Ok(Value::Known(match register {
            Register::General(field) => u128::from(*field(self.general()?)),
            Register::System(field) => u128::from(*field(self.system()?)),
            Register::Segment(field) => segment::segment(field(self.system()?)),
            Register::Table(field) => segment::table(field(self.system()?)),
            Register::Debug(field) => u128::from(*field(self.debug()?)),
            Register::Breakpoint(index) => u128::from(*self.debug()?.db.get(index).ok_or(UNKNOWN)?),
            Register::Vector(place) => self.vector()?.get(place).ok_or(UNKNOWN)?,
            Register::Xfem => u128::from(self.xcr0()?),
            Register::Msr(index) => return Ok(Value::Msr(index)),
            Register::PendingInterruption => {
                u128::from(events::pending_interruption(self.events()?))
            }
            Register::InterruptState => u128::from(events::interrupt_state(self.events()?)),
            Register::ExplicitSuspend => u128::from(self.explicit_suspend),
            Register::InterceptSuspend => u128::from(self.intercept_suspend),
            Register::Zero => 0,
            Register::Kept(index) => u128::from(*self.kept.get(index).ok_or(UNKNOWN)?),
            Register::VpIndex => u128::from(self.index),
            Register::ReferenceTime => self.made.elapsed().as_nanos() / 100,
            Register::Frequency => {
                let khz = kvm::plain(self.vcpu, Plain::TscKhz, 0).map_err(|_| UNKNOWN)?;
                u128::try_from(khz).unwrap_or(0) * 1000
            }
        }))
    }

    /// Sets registers in order, as many as can be before one that cannot; returns
    /// how many.
    pub(crate) fn write(&mut self, values: &[(u32, u128)]) -> (usize, Status) {
        let mut count = 0;
        let mut status = Status::SUCCESS;
        let mut msrs = Vec::new();
        for (name, value) in values {
            let register = names::register(*name).ok_or(UNKNOWN);
            match register.and_then(|register| self.set(register, *value, &mut msrs)) {
                Ok(()) => count += 1,
                Err(error) => {
                    status = error;
                    break;
                }
            }
        }
        match self.flush(&msrs) {
            Ok(()) => (count, status),
            Err(error) => (0, error),
        }
    }

    fn set(
        &mut self,
        register: Register,
        value: u128,
        msrs: &mut Vec<kvm_msr_entry>,
    ) -> Result<(), Status> {
        let low = segment::low_u64(value);
        match register {
            Register::General(field) => {
                *field(self.change_general()?) = low;
            }
            Register::System(field) => *field(self.change_system()?) = low,
            Register::Segment(field) => {
                *field(self.change_system()?) = segment::to_segment(value);
            }
            Register::Table(field) => *field(self.change_system()?) = segment::to_table(value),
            Register::Debug(field) => *field(self.change_debug()?) = low,
            Register::Breakpoint(index) => {
                *self.change_debug()?.db.get_mut(index).ok_or(UNKNOWN)? = low;
            }
            Register::Vector(place) => {
                self.change_vector()?.set(place, value).ok_or(UNKNOWN)?;
            }
            Register::Xfem => self.set_xcr0(low)?,
            Register::Msr(index) => {
                msrs.push(kvm_msr_entry { index, data: low, ..Default::default() });
            }
            Register::PendingInterruption => {
                let events = self.change_events()?;
                events::set_pending_interruption(events, low).ok_or(BAD_VALUE)?;
            }
            Register::InterruptState => {
                let events = self.change_events()?;
                events::set_interrupt_state(events, low).ok_or(BAD_VALUE)?;
            }
            Register::ExplicitSuspend => self.explicit_suspend = low & 1 == 1,
            Register::InterceptSuspend => self.intercept_suspend = low & 1 == 1,
            // A caller that sets 64 bits leaves the others as they were.
            Register::Zero if low == 0 => {}
            Register::Kept(index) => *self.kept.get_mut(index).ok_or(UNKNOWN)? = low,
            // What the hypervisor says of notifications without a SynIC.
            Register::Zero => return Err(UNKNOWN),
            Register::VpIndex | Register::ReferenceTime | Register::Frequency => {
                return Err(BAD_VALUE);
            }
        }
        Ok(())
    }
}
