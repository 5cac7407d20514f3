//! Hypercalls that the driver passes through: MSHV_ROOT_HVCALL.

use std::ffi::c_int;
use std::mem::{offset_of, size_of};

use mshv_bindings::{
    HV_STATUS_INVALID_HYPERCALL_CODE, HV_STATUS_INVALID_HYPERCALL_INPUT,
    HV_STATUS_INVALID_PARAMETER, HV_STATUS_INVALID_PARTITION_ID, HV_STATUS_INVALID_REGISTER_VALUE,
    HV_STATUS_INVALID_VP_INDEX, HV_STATUS_SUCCESS, HVCALL_GET_PARTITION_PROPERTY,
    HVCALL_GET_PARTITION_PROPERTY_EX, HVCALL_GET_VP_CPUID_VALUES, HVCALL_GET_VP_REGISTERS,
    HVCALL_INSTALL_INTERCEPT, HVCALL_REGISTER_INTERCEPT_RESULT, HVCALL_SET_PARTITION_PROPERTY,
    HVCALL_SET_VP_REGISTERS, HVCALL_TRANSLATE_VIRTUAL_ADDRESS, hv_input_get_partition_property,
    hv_input_set_partition_property,
    hv_partition_property_code_HV_PARTITION_PROPERTY_VMM_CAPABILITIES, mshv_root_hvcall,
};

use crate::caller::{self, Fields};
use crate::errno::{Errno, missing};
use crate::host::Host;
use crate::partition::Partition;
use crate::property;

mod vp;

const PAGE: usize = 4096;

/// What a hypervisor says of a call: HV_STATUS_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    pub(crate) const SUCCESS: Self = Self(HV_STATUS_SUCCESS);

    /// What the driver makes of it (`hv_result_to_errno` in drivers/hv/hv_common.c).
    fn errno(self) -> Option<c_int> {
        match self.0 {
            HV_STATUS_SUCCESS => None,
            HV_STATUS_INVALID_HYPERCALL_CODE
            | HV_STATUS_INVALID_HYPERCALL_INPUT
            | HV_STATUS_INVALID_PARAMETER
            | HV_STATUS_INVALID_PARTITION_ID
            | HV_STATUS_INVALID_VP_INDEX
            | HV_STATUS_INVALID_REGISTER_VALUE => Some(libc::EINVAL),
            _ => Some(libc::EIO),
        }
    }
}

/// Which descriptor a call was made on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    Host(&'a Host),
    Partition(&'a Partition),
    /// A VP's; the input says of which VP of the partition it is.
    Processor(&'a Partition),
}

/// The input of a call, copied.
#[derive(Debug)]
struct Call<'a> {
    code: u32,
    reps: usize,
    input: Fields<'a>,
}

/// How a call went.
#[derive(Debug)]
struct Outcome {
    status: Status,
    /// How many elements were done, if it has any.
    reps: usize,
    output: Vec<u8>,
}

impl Outcome {
    fn of(result: Result<Vec<u8>, Status>) -> Self {
        match result {
            Ok(output) => Self { status: Status::SUCCESS, reps: 0, output },
            Err(status) => Self { status, reps: 0, output: Vec::new() },
        }
    }
}

/// Makes a call, and leaves status and output with the caller, however it went.
pub(crate) fn answer(origin: Origin<'_>, argument: u64) -> Result<(), Errno> {
    const INVALID: Errno = Errno(libc::EINVAL);
    let mut bytes = caller::read_struct::<{ size_of::<mshv_root_hvcall>() }>(argument)?;
    let fields = Fields(&bytes);
    let in_len = usize::from(fields.u16(offset_of!(mshv_root_hvcall, in_sz)));
    let out_len = usize::from(fields.u16(offset_of!(mshv_root_hvcall, out_sz)));
    let from = fields.u64(offset_of!(mshv_root_hvcall, in_ptr));
    let to = fields.u64(offset_of!(mshv_root_hvcall, out_ptr));
    let is_zero = fields.is_zero(offset_of!(mshv_root_hvcall, status), 8);
    let is_valid = is_zero && from != 0 && (8..=PAGE).contains(&in_len);
    if !is_valid || to != 0 && !(1..=PAGE).contains(&out_len) {
        return Err(INVALID);
    }
    let mut input = vec![0; in_len];
    caller::read(from, &mut input)?;
    let call = Call {
        code: u32::from(fields.u16(offset_of!(mshv_root_hvcall, code))),
        reps: usize::from(fields.u16(offset_of!(mshv_root_hvcall, reps))),
        input: Fields(&input),
    };
    let mut outcome = call.make(origin)?;
    let status = u16::try_from(outcome.status.0).unwrap_or(u16::MAX);
    let reps = u16::try_from(outcome.reps).unwrap_or(u16::MAX);
    put(&mut bytes, offset_of!(mshv_root_hvcall, status), status);
    put(&mut bytes, offset_of!(mshv_root_hvcall, reps), reps);
    caller::write(argument, &bytes)?;
    if to != 0 {
        outcome.output.resize(out_len, 0);
        caller::write(to, &outcome.output)?;
    }
    outcome.status.errno().map_or(Ok(()), |errno| Err(Errno(errno)))
}

fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes.iter_mut().skip(offset).zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
}

impl Call<'_> {
    fn make(&self, origin: Origin<'_>) -> Result<Outcome, Errno> {
        match (origin, self.code) {
            (Origin::Host(host), HVCALL_GET_PARTITION_PROPERTY) => {
                Ok(Outcome::of(property::of_host(host, self.property()).map(to_bytes)))
            }
            (Origin::Partition(of) | Origin::Processor(of), HVCALL_GET_PARTITION_PROPERTY) => {
                Ok(Outcome::of(property::of_partition(of, self.property()).map(to_bytes)))
            }
            (_, HVCALL_GET_PARTITION_PROPERTY_EX) => self.extended_property(),
            (Origin::Partition(of), HVCALL_SET_PARTITION_PROPERTY) => {
                let offset = offset_of!(hv_input_set_partition_property, property_value);
                let result = property::set(of, self.property(), self.input.u64(offset));
                Ok(Outcome::of(result.map(|()| Vec::new())))
            }
            // The driver passes it on from a partition's descriptor alone.
            (Origin::Processor(_), HVCALL_SET_PARTITION_PROPERTY) => Err(Errno(libc::EINVAL)),
            (Origin::Partition(of) | Origin::Processor(of), code) => match code {
                HVCALL_INSTALL_INTERCEPT => self.install_intercept(),
                HVCALL_GET_VP_REGISTERS => self.registers(of),
                HVCALL_SET_VP_REGISTERS => self.set_registers(of),
                HVCALL_TRANSLATE_VIRTUAL_ADDRESS => self.translate(of),
                HVCALL_REGISTER_INTERCEPT_RESULT => self.register_result(of),
                HVCALL_GET_VP_CPUID_VALUES => self.cpuid(of),
                code => Err(missing("no hypercall", code)),
            },
            (Origin::Host(_), code) => Err(missing("no hypercall on the device", code)),
        }
    }

    /// The code of a property, in any of the calls that have one.
    fn property(&self) -> u32 {
        self.input.u32(offset_of!(hv_input_get_partition_property, property_code))
    }

    /// A host without VMM capabilities says that it does not know them.
    fn extended_property(&self) -> Result<Outcome, Errno> {
        match self.property() {
            hv_partition_property_code_HV_PARTITION_PROPERTY_VMM_CAPABILITIES => {
                let status = Status(mshv_bindings::HV_STATUS_UNKNOWN_PROPERTY);
                Ok(Outcome::of(Err(status)))
            }
            code => Err(missing("no extended property", code)),
        }
    }
}

fn to_bytes(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}
