//! Exceptions and interrupts under way: KVM's `kvm_vcpu_events`, and MSHV's
//! pending interruption and interrupt state registers.
//!
//! `hv_x64_pending_interruption_register`: bit 0 pending, 1 to 3 type, 4 error
//! code is delivered, 16 to 31 vector, 32 to 63 error code.
//! `hv_x64_interrupt_state_register`: bit 0 shadow, bit 1 NMI masked.

use kvm_bindings::{KVM_VCPUEVENT_VALID_SHADOW, kvm_vcpu_events};

const PENDING: u64 = 1;
const HAS_CODE: u64 = 1 << 4;
const INTERRUPT: u64 = 0;
const NMI: u64 = 2;
const EXCEPTION: u64 = 3;
const NMI_VECTOR: u64 = 2;

/// What is to be delivered first when the guest goes on.
pub(crate) fn pending_interruption(events: &kvm_vcpu_events) -> u64 {
    let kind = |kind: u64, vector: u64| PENDING | kind << 1 | vector << 16;
    if events.exception.injected != 0 {
        let code = u64::from(events.exception.error_code) << 32 | HAS_CODE;
        let code = if events.exception.has_error_code != 0 { code } else { 0 };
        return kind(EXCEPTION, u64::from(events.exception.nr)) | code;
    }
    if events.nmi.injected != 0 {
        return kind(NMI, NMI_VECTOR);
    }
    if events.interrupt.injected != 0 {
        return kind(INTERRUPT, u64::from(events.interrupt.nr));
    }
    0
}

/// The opposite; `None` if the value is none that KVM has.
pub(crate) fn set_pending_interruption(events: &mut kvm_vcpu_events, value: u64) -> Option<()> {
    let vector = u8::try_from(value >> 16 & 0xffff).ok()?;
    events.exception.injected = 0;
    events.nmi.injected = 0;
    events.interrupt.injected = 0;
    if value & PENDING == 0 {
        return Some(());
    }
    match value >> 1 & 7 {
        EXCEPTION => {
            events.exception.injected = 1;
            events.exception.nr = vector;
            events.exception.has_error_code = u8::from(value & HAS_CODE != 0);
            events.exception.error_code = u32::try_from(value >> 32).ok()?;
        }
        NMI => events.nmi.injected = 1,
        INTERRUPT => {
            events.interrupt.injected = 1;
            events.interrupt.nr = vector;
        }
        _ => return None,
    }
    Some(())
}

/// What keeps interrupts off for one instruction, or until the next IRET.
pub(crate) fn interrupt_state(events: &kvm_vcpu_events) -> u64 {
    u64::from(events.interrupt.shadow != 0) | u64::from(events.nmi.masked != 0) << 1
}

/// The opposite; `None` if the value is none that there is.
pub(crate) fn set_interrupt_state(events: &mut kvm_vcpu_events, value: u64) -> Option<()> {
    if value >> 2 != 0 {
        return None;
    }
    events.interrupt.shadow = u8::from(value & 1 != 0);
    events.nmi.masked = u8::from(value & 2 != 0);
    events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fault_under_way_survives_the_way_there_and_back() {
        let mut events = kvm_vcpu_events::default();
        let value = PENDING | EXCEPTION << 1 | HAS_CODE | 14 << 16 | 6 << 32;
        assert_eq!(set_pending_interruption(&mut events, value), Some(()));
        assert_eq!(pending_interruption(&events), value);
        assert_eq!(set_pending_interruption(&mut events, 0), Some(()));
        assert_eq!(pending_interruption(&events), 0);
    }

    #[test]
    fn a_type_that_kvm_does_not_have_is_refused() {
        let mut events = kvm_vcpu_events::default();
        assert_eq!(set_pending_interruption(&mut events, PENDING | 7 << 1), None);
    }
}
