//! The hypercalls about one VP.

use std::mem::{offset_of, size_of};

use mshv_bindings::{
    HV_STATUS_INVALID_HYPERCALL_INPUT, HV_STATUS_INVALID_VP_STATE, hv_cpuid_leaf_info,
    hv_input_get_vp_cpuid_values, hv_input_get_vp_registers, hv_input_install_intercept,
    hv_input_register_intercept_result, hv_input_set_vp_registers,
    hv_input_translate_virtual_address, hv_intercept_type_HV_INTERCEPT_TYPE_X64_CPUID,
    hv_intercept_type_HV_INTERCEPT_TYPE_X64_IO_PORT, hv_output_translate_virtual_address,
    hv_register_assoc, hv_translate_gva_result_code_HV_TRANSLATE_GVA_PAGE_NOT_PRESENT,
};

use super::{Call, Outcome, Status};
use crate::cpuid::Overlay;
use crate::errno::{Errno, missing};
use crate::partition::Partition;

const INPUT: Status = Status(HV_STATUS_INVALID_HYPERCALL_INPUT);

impl Call<'_> {
    /// Whether the input has as many elements as it says.
    fn has(&self, header: usize, element: usize) -> bool {
        self.reps > 0 && self.input.0.len() >= header + self.reps * element
    }

    pub(super) fn registers(&self, partition: &Partition) -> Result<Outcome, Errno> {
        let header = offset_of!(hv_input_get_vp_registers, names);
        if !self.has(header, size_of::<u32>()) {
            return Ok(Outcome::of(Err(INPUT)));
        }
        let names: Vec<_> = (0..self.reps).map(|rep| self.input.u32(header + rep * 4)).collect();
        let index = self.input.u32(offset_of!(hv_input_get_vp_registers, vp_index));
        let done = partition.with_processor(index, |state| state.registers.read(&names));
        Ok(match done {
            Ok(done) => {
                let (values, status) = done?;
                let output = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Outcome { status, reps: values.len(), output }
            }
            Err(status) => Outcome::of(Err(status)),
        })
    }

    pub(super) fn set_registers(&self, partition: &Partition) -> Result<Outcome, Errno> {
        const ELEMENT: usize = size_of::<hv_register_assoc>();
        let header = offset_of!(hv_input_set_vp_registers, elements);
        if !self.has(header, ELEMENT) {
            return Ok(Outcome::of(Err(INPUT)));
        }
        let value = |rep: usize| {
            let start = header + rep * ELEMENT;
            let name = self.input.u32(start + offset_of!(hv_register_assoc, name));
            (name, self.input.u128(start + offset_of!(hv_register_assoc, value)))
        };
        let values: Vec<_> = (0..self.reps).map(value).collect();
        let index = self.input.u32(offset_of!(hv_input_set_vp_registers, vp_index));
        let done = partition.with_processor(index, |state| state.registers.write(&values));
        Ok(match done {
            Ok(done) => {
                let (reps, status) = done?;
                Outcome { status, reps, output: Vec::new() }
            }
            Err(status) => Outcome::of(Err(status)),
        })
    }

    pub(super) fn translate(&self, partition: &Partition) -> Result<Outcome, Errno> {
        type Input = hv_input_translate_virtual_address;
        type Output = hv_output_translate_virtual_address;
        let page = self.input.u64(offset_of!(Input, gva_page));
        let index = self.input.u32(offset_of!(Input, vp_index));
        let found =
            match partition.with_processor(index, |state| state.translate(partition, page << 12)) {
                Ok(found) => found?,
                Err(status) => return Ok(Outcome::of(Err(status))),
            };
        let missing = u64::from(hv_translate_gva_result_code_HV_TRANSLATE_GVA_PAGE_NOT_PRESENT);
        let (result, page) = found.map_or((missing, 0), |gpa| (0, gpa >> 12));
        const { assert!(offset_of!(Output, gpa_page) == 8, "the page follows the result") };
        Ok(Outcome::of(Ok([result, page].iter().flat_map(|w| w.to_le_bytes()).collect())))
    }

    /// Ports stop a guest in any case; nothing else can be made to.
    pub(super) fn install_intercept(&self) -> Result<Outcome, Errno> {
        let kind = self.input.u32(offset_of!(hv_input_install_intercept, intercept_type));
        if kind != hv_intercept_type_HV_INTERCEPT_TYPE_X64_IO_PORT {
            return Err(missing("no intercept of type", kind));
        }
        Ok(Outcome::of(Ok(Vec::new())))
    }

    pub(super) fn register_result(&self, partition: &Partition) -> Result<Outcome, Errno> {
        type Input = hv_input_register_intercept_result;
        let kind = self.input.u32(offset_of!(Input, intercept_type));
        if kind != hv_intercept_type_HV_INTERCEPT_TYPE_X64_CPUID {
            return Err(missing("no results of intercepts of type", kind));
        }
        let overlay = Overlay::read(self.input, offset_of!(Input, parameters));
        let index = self.input.u32(offset_of!(Input, vp_index));
        let done = partition.with_processor(index, |state| state.overlay_cpuid(&overlay));
        Ok(Outcome::of(match done {
            Ok(done) => done?.map(|()| Vec::new()).map_err(|_| Status(HV_STATUS_INVALID_VP_STATE)),
            Err(status) => Err(status),
        }))
    }

    pub(super) fn cpuid(&self, partition: &Partition) -> Result<Outcome, Errno> {
        const ELEMENT: usize = size_of::<hv_cpuid_leaf_info>();
        let header = offset_of!(hv_input_get_vp_cpuid_values, cpuid_leaf_info);
        if !self.has(header, ELEMENT) {
            return Ok(Outcome::of(Err(INPUT)));
        }
        let leaf = |rep: usize| {
            let start = header + rep * ELEMENT;
            let function = self.input.u32(start + offset_of!(hv_cpuid_leaf_info, eax));
            (function, self.input.u32(start + offset_of!(hv_cpuid_leaf_info, ecx)))
        };
        let leaves: Vec<_> = (0..self.reps).map(leaf).collect();
        let index = self.input.u32(offset_of!(hv_input_get_vp_cpuid_values, vp_index));
        let values = partition.with_processor(index, |state| -> Vec<u8> {
            let values = leaves.iter().flat_map(|(function, index)| state.cpuid(*function, *index));
            values.flat_map(u32::to_le_bytes).collect()
        });
        Ok(match values {
            Ok(output) => Outcome { status: Status::SUCCESS, reps: self.reps, output: output? },
            Err(status) => Outcome::of(Err(status)),
        })
    }
}
