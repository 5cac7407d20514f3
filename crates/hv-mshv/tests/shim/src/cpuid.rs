//! What CPUID a processor shows: what KVM supports, with registered results over it.

use std::mem::offset_of;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use mshv_bindings::{
    hv_register_x64_cpuid_result_parameters as Parameters,
    hv_register_x64_cpuid_result_parameters__bindgen_ty_1 as Input,
    hv_register_x64_cpuid_result_parameters__bindgen_ty_2 as Output,
};

use crate::caller::Fields;

/// EAX, EBX, ECX and EDX of a leaf: zero if it is not there.
pub(crate) fn values(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    let leaf = leaves.iter().find(|leaf| is_leaf(leaf, function, index));
    leaf.map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
}

fn is_leaf(leaf: &kvm_cpuid_entry2, function: u32, index: u32) -> bool {
    let has_index = leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
    leaf.function == function && (!has_index || leaf.index == index)
}

/// A result that is registered: bits of the mask come from the value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overlay {
    function: u32,
    /// `None` for all subleaves.
    index: Option<u32>,
    /// Whether it makes a leaf that is not there.
    always: bool,
    /// Value and mask of EAX, EBX, ECX and EDX.
    registers: [(u32, u32); 4],
}

impl Overlay {
    /// Reads what is behind the header of HVCALL_REGISTER_INTERCEPT_RESULT.
    pub(crate) fn read(fields: Fields<'_>, start: usize) -> Self {
        let input = start + offset_of!(Parameters, input);
        let output = start + offset_of!(Parameters, result);
        let pair = |value, mask| (fields.u32(output + value), fields.u32(output + mask));
        let index = fields.u32(input + offset_of!(Input, ecx));
        let is_specific = fields.u8(input + offset_of!(Input, subleaf_specific)) != 0;
        Self {
            function: fields.u32(input + offset_of!(Input, eax)),
            index: is_specific.then_some(index),
            always: fields.u8(input + offset_of!(Input, always_override)) != 0,
            registers: [
                pair(offset_of!(Output, eax), offset_of!(Output, eax_mask)),
                pair(offset_of!(Output, ebx), offset_of!(Output, ebx_mask)),
                pair(offset_of!(Output, ecx), offset_of!(Output, ecx_mask)),
                pair(offset_of!(Output, edx), offset_of!(Output, edx_mask)),
            ],
        }
    }

    /// Lays it over a table.
    pub(crate) fn apply(&self, leaves: &mut Vec<kvm_cpuid_entry2>) {
        let is_meant = |leaf: &kvm_cpuid_entry2| {
            self.index
                .map_or(leaf.function == self.function, |index| is_leaf(leaf, self.function, index))
        };
        if self.always && !leaves.iter().any(is_meant) {
            let flags = if self.index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
            let (function, index) = (self.function, self.index.unwrap_or(0));
            leaves.push(kvm_cpuid_entry2 { function, index, flags, ..Default::default() });
        }
        for leaf in leaves.iter_mut().filter(|leaf| is_meant(leaf)) {
            let registers = [&mut leaf.eax, &mut leaf.ebx, &mut leaf.ecx, &mut leaf.edx];
            for (register, (value, mask)) in registers.into_iter().zip(self.registers) {
                *register = *register & !mask | value & mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_changes_the_bits_of_its_mask() {
        let leaf = kvm_cpuid_entry2 { function: 1, ecx: 0b1100, ..Default::default() };
        let mut leaves = vec![leaf];
        let none = (0, 0);
        let registers = [none, none, (0b0001, 0b0101), none];
        Overlay { function: 1, index: None, always: false, registers }.apply(&mut leaves);
        assert_eq!(values(&leaves, 1, 0), [0, 0, 0b1001, 0]);
    }

    #[test]
    fn a_leaf_that_is_not_there_is_made_if_it_must_be() {
        let mut leaves = Vec::new();
        let registers = [(7, 7), (0, 0), (0, 0), (0, 0)];
        let overlay = Overlay { function: 0xb, index: Some(1), always: false, registers };
        overlay.apply(&mut leaves);
        assert_eq!(values(&leaves, 0xb, 1), [0; 4]);
        Overlay { always: true, ..overlay }.apply(&mut leaves);
        assert_eq!(values(&leaves, 0xb, 1), [7, 0, 0, 0]);
        assert_eq!(values(&leaves, 0xb, 0), [0; 4]);
    }
}
