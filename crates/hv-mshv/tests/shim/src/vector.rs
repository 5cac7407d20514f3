//! x87, SSE and all other vector registers: KVM's XSAVE area.
//!
//! Its first 512 bytes are those of FXSAVE (SDM volume 1, section 10.5.1), and
//! MSHV's registers of 128 bits are cut from it: control, status, tag, opcode and
//! instruction in the first 16 bytes, operand and MXCSR in the next, then ST0 to
//! ST7 and XMM0 to XMM15. (`KVM_GET_FPU` would not tell MXCSR.)

use std::mem::offset_of;

use mshv_bindings::{
    hv_x64_fp_control_status_register__bindgen_ty_1 as X87Layout,
    hv_x64_xmm_control_status_register__bindgen_ty_1 as XmmLayout,
};

use crate::kvm::{READ, Request, WRITE};

pub(crate) const X87_CONTROL: usize = 0;
pub(crate) const XMM_CONTROL: usize = 1;
pub(crate) const ST0: usize = 2;
pub(crate) const XMM0: usize = 10;
const AFTER_XMM15: usize = 26;
/// Which components are not in their first state: x87 and SSE are bits 0 and 1.
const COMPONENTS: usize = 32;
/// The mask of MXCSR, which is the processor's.
const MASK: u128 = 0xffff_ffff << 96;

pub(crate) const GET_XSAVE: Request<VectorArea> = Request::new(READ, 0xa4);
pub(crate) const SET_XSAVE: Request<VectorArea> = Request::new(WRITE, 0xa5);

/// `struct kvm_xsave`: 4096 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct VectorArea {
    words: [u128; 256],
}

impl Default for VectorArea {
    fn default() -> Self {
        Self { words: [0; 256] }
    }
}

impl VectorArea {
    /// A register of 16 bytes.
    pub(crate) fn get(&self, place: usize) -> Option<u128> {
        self.words.get(place).copied().filter(|_| place < AFTER_XMM15)
    }

    /// Sets a register of 16 bytes.
    pub(crate) fn set(&mut self, place: usize, value: u128) -> Option<()> {
        let register = self.words.get_mut(place).filter(|_| place < AFTER_XMM15)?;
        let kept = if place == XMM_CONTROL { MASK } else { 0 };
        *register = *register & kept | value & !kept;
        *self.words.get_mut(COMPONENTS)? |= 0b11;
        Some(())
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut area = Self::default();
        for (word, bytes) in area.words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u128::from_le_bytes(*bytes);
        }
        area
    }
}

const _: () = {
    assert!(size_of::<VectorArea>() == 4096, "KVM copies so many bytes");
    assert!(offset_of!(X87Layout, fp_status) == 2, "see hvgdk_mini.h");
    assert!(offset_of!(X87Layout, fp_tag) == 4, "see hvgdk_mini.h");
    assert!(offset_of!(X87Layout, last_fp_op) == 6, "see hvgdk_mini.h");
    assert!(offset_of!(XmmLayout, xmm_status_control) == 8, "see hvgdk_mini.h");
    assert!(offset_of!(XmmLayout, xmm_status_control_mask) == 12, "see hvgdk_mini.h");
};
