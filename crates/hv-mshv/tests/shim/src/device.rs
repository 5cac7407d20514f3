//! The device itself: makes partitions, and tells properties of the host.

use std::ffi::{c_int, c_ulong};
use std::mem::{offset_of, size_of};
use std::sync::Arc;

use mshv_bindings::{
    MSHV_NUM_CPU_FEATURES_BANKS, MSHV_PT_BIT_COUNT, MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES,
    MSHV_PT_ISOLATION_NONE, mshv_create_partition, mshv_create_partition_v2, mshv_root_hvcall,
};

use crate::caller::{self, Fields};
use crate::errno::{Errno, missing};
use crate::handles::{self, Handle};
use crate::host;
use crate::hypercall::{self, Origin};
use crate::kvm::{self, Plain};
use crate::partition::Partition;
use crate::property::Banks;
use crate::request::{Copied, request};

/// The number has the first version's size, whatever the version.
const CREATE_PARTITION: c_ulong = request(Copied::In, 0x00, size_of::<mshv_create_partition>());
const ROOT_HVCALL: c_ulong = request(Copied::Both, 0x07, size_of::<mshv_root_hvcall>());

/// Does what an ioctl on the device asks for.
pub(crate) fn ioctl(kvm: c_int, request: c_ulong, argument: c_ulong) -> Result<c_int, Errno> {
    match request {
        CREATE_PARTITION => create(kvm, argument),
        ROOT_HVCALL => hypercall::answer(Origin::Host(host::host(kvm)?), argument).map(|()| 0),
        request => Err(missing("no ioctl of the device", request)),
    }
}

fn create(kvm: c_int, argument: c_ulong) -> Result<c_int, Errno> {
    let banks = banks(argument)?;
    let host = host::host(kvm)?;
    let vm = kvm::plain(kvm, Plain::CreateVm, 0)?;
    handles::learn(vm, Handle::Partition(Arc::new(Partition::new(host, vm, banks))));
    Ok(vm)
}

/// Checks the arguments, in the version that their flags say.
fn banks(argument: c_ulong) -> Result<Banks, Errno> {
    let first = caller::read_struct::<{ size_of::<mshv_create_partition>() }>(argument)?;
    let flags = Fields(&first).u64(offset_of!(mshv_create_partition, pt_flags));
    let isolation = Fields(&first).u64(offset_of!(mshv_create_partition, pt_isolation));
    if flags >> MSHV_PT_BIT_COUNT != 0 {
        return Err(Errno(libc::EINVAL));
    }
    if isolation != u64::from(MSHV_PT_ISOLATION_NONE) {
        return Err(missing("no isolation of type", isolation));
    }
    if flags >> MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES & 1 == 0 {
        return Ok(Banks::default());
    }
    let second = caller::read_struct::<{ size_of::<mshv_create_partition_v2>() }>(argument)?;
    let fields = Fields(&second);
    let count = fields.u16(offset_of!(mshv_create_partition_v2, pt_num_cpu_fbanks));
    let is_zero = fields.is_zero(offset_of!(mshv_create_partition_v2, pt_rsvd), 6)
        && fields.is_zero(offset_of!(mshv_create_partition_v2, pt_rsvd1), 16);
    if u32::from(count) != MSHV_NUM_CPU_FEATURES_BANKS || !is_zero {
        return Err(Errno(libc::EINVAL));
    }
    let bank = offset_of!(mshv_create_partition_v2, pt_cpu_fbanks);
    Ok(Banks {
        disabled: [fields.u64(bank), fields.u64(bank + 8)],
        disabled_xsave: fields.u64(offset_of!(mshv_create_partition_v2, pt_disabled_xsave)),
    })
}
