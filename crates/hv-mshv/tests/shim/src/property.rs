//! Properties of the host and of partitions.

use kvm_bindings::kvm_cpuid_entry2;
use mshv_bindings::*;

use crate::cpuid;
use crate::errno::say;
use crate::host::Host;
use crate::hypercall::Status;
use crate::partition::Partition;

const UNKNOWN: Status = Status(HV_STATUS_UNKNOWN_PROPERTY);
const TOO_LATE: Status = Status(HV_STATUS_INVALID_PARTITION_STATE);
/// KVM's XSAVE area without states that the process must ask for (AMX).
const XSAVE_BYTES: u64 = 4096;

/// Which features of the processor are off in a partition: what it was made
/// with, inverted as there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Banks {
    pub(crate) disabled: [u64; 2],
    pub(crate) disabled_xsave: u64,
}

/// A property of the host. The feature banks are not known to KVM: all is there.
pub(crate) fn of_host(host: &Host, code: u32) -> Result<u64, Status> {
    of_machine(host, &Banks::default(), code).ok_or_else(|| unknown(code))
}

/// A property of a partition.
pub(crate) fn of_partition(partition: &Partition, code: u32) -> Result<u64, Status> {
    Ok(match code {
        hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES => {
            partition.synthetic_features()
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING => {
            u64::from(partition.is_tracked())
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_CLOCK_FREQUENCY => {
            partition.tsc_hz().ok_or(UNKNOWN)?
        }
        _ => {
            let found = of_machine(partition.host, &partition.banks, code);
            return found.ok_or_else(|| unknown(code));
        }
    })
}

/// Sets a property of a partition.
pub(crate) fn set(partition: &Partition, code: u32, value: u64) -> Result<(), Status> {
    match code {
        hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES => {
            if value != 0 {
                say("synthetic features are kept and not there:", value);
            }
            partition.set_synthetic_features(value).map_err(|()| TOO_LATE)
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING => match value {
            0 | 1 => partition.track(value == 1),
            _ => Err(Status(HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE)),
        },
        // Zero: an MSR that is not there is #GP, as it is with KVM.
        hv_partition_property_code_HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION if value == 0 => {
            Ok(())
        }
        _ if is_early(code) && partition.is_initialised() => Err(TOO_LATE),
        _ => Err(unknown(code)),
    }
}

/// Privileges and features are set before a partition is initialised, or not at all.
fn is_early(code: u32) -> bool {
    const PRIVILEGES: u32 = hv_partition_property_code_HV_PARTITION_PROPERTY_PRIVILEGE_FLAGS;
    code >> 16 == PRIVILEGES >> 16
}

fn unknown(code: u32) -> Status {
    say("no property", u64::from(code));
    UNKNOWN
}

fn of_machine(host: &Host, banks: &Banks, code: u32) -> Option<u64> {
    let leaves = &host.cpuid;
    Some(match code {
        hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_FEATURES0 => {
            let [first, _] = banks.disabled;
            !first
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_FEATURES1 => {
            let [_, second] = banks.disabled;
            !second
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_XSAVE_FEATURES => {
            xsave_features(leaves) & !banks.disabled_xsave
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_XSAVE_STATES => states(leaves),
        hv_partition_property_code_HV_PARTITION_PROPERTY_MAX_XSAVE_DATA_SIZE => XSAVE_BYTES,
        hv_partition_property_code_HV_PARTITION_PROPERTY_PHYSICAL_ADDRESS_WIDTH
        | hv_partition_property_code_HV_PARTITION_PROPERTY_IMPLEMENTED_PHYSICAL_ADDRESS_BITS => {
            let [eax, ..] = cpuid::values(leaves, 0x8000_0008, 0);
            u64::from(eax & 0xff)
        }
        hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_VENDOR => vendor(leaves)?,
        _ => return None,
    })
}

/// `hv_partition_processor_xsave_features`, as far as an AVX guest needs: bit 0
/// XSAVE, 1 XSAVEOPT, 2 AVX, 3 AVX2, 4 FMA, 6 AVX-512.
fn xsave_features(leaves: &[kvm_cpuid_entry2]) -> u64 {
    let [_, _, ecx, _] = cpuid::values(leaves, 1, 0);
    let [_, ebx, _, _] = cpuid::values(leaves, 7, 0);
    let [eax, ..] = cpuid::values(leaves, 0xd, 1);
    let bits = [(ecx, 26, 0), (eax, 0, 1), (ecx, 28, 2), (ebx, 5, 3), (ecx, 12, 4), (ebx, 16, 6)];
    if ecx >> 26 & 1 == 0 {
        return 0;
    }
    bits.iter().map(|(register, from, to)| u64::from(register >> from & 1) << to).sum()
}

/// What XCR0 can be; x87 and SSE if there is no XSAVE.
fn states(leaves: &[kvm_cpuid_entry2]) -> u64 {
    let [_, _, ecx, _] = cpuid::values(leaves, 1, 0);
    let [eax, _, _, edx] = cpuid::values(leaves, 0xd, 0);
    if ecx >> 26 & 1 == 1 { u64::from(edx) << 32 | u64::from(eax) } else { 0b11 }
}

/// `hv_processor_vendor`: AMD, Intel, Hygon.
fn vendor(leaves: &[kvm_cpuid_entry2]) -> Option<u64> {
    let [_, ebx, _, _] = cpuid::values(leaves, 0, 0);
    match &ebx.to_le_bytes() {
        b"Auth" => Some(0),
        b"Genu" => Some(1),
        b"Hygo" => Some(2),
        _ => None,
    }
}
