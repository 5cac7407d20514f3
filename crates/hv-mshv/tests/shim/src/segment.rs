//! Segment and table registers: KVM's fields, and MSHV's 128 bits.
//!
//! `hv_x64_segment_register`: base, limit, selector, attributes, from the lowest
//! bit. `hv_x64_table_register`: 48 unused bits, limit, base. The attributes are
//! those of a descriptor (SDM volume 3, section 3.4.5).

use std::mem::offset_of;

use kvm_bindings::{kvm_dtable, kvm_segment};
use mshv_bindings::{hv_x64_segment_register, hv_x64_table_register};

/// A segment as MSHV has it.
pub(crate) fn segment(from: &kvm_segment) -> u128 {
    let bits = [
        (from.type_, 0),
        (from.s, 4),
        (from.dpl, 5),
        (from.present, 7),
        (from.avl, 12),
        (from.l, 13),
        (from.db, 14),
        (from.g, 15),
    ];
    let attributes: u128 = bits.iter().map(|(value, bit)| u128::from(*value) << bit).sum();
    u128::from(from.base)
        | u128::from(from.limit) << 64
        | u128::from(from.selector) << 96
        | attributes << 112
}

/// A segment as KVM has it: one that is not present cannot be used.
pub(crate) fn to_segment(value: u128) -> kvm_segment {
    let attributes = value >> 112;
    let field = |bit: u32, width: u32| low_u8(attributes >> bit) & ((1 << width) - 1);
    let present = field(7, 1);
    kvm_segment {
        base: low_u64(value),
        limit: low_u32(value >> 64),
        selector: low_u16(value >> 96),
        type_: field(0, 4),
        present,
        dpl: field(5, 2),
        db: field(14, 1),
        s: field(4, 1),
        l: field(13, 1),
        g: field(15, 1),
        avl: field(12, 1),
        unusable: 1 - present,
        ..Default::default()
    }
}

/// A table as MSHV has it.
pub(crate) fn table(from: &kvm_dtable) -> u128 {
    u128::from(from.limit) << 48 | u128::from(from.base) << 64
}

/// A table as KVM has it.
pub(crate) fn to_table(value: u128) -> kvm_dtable {
    kvm_dtable { base: low_u64(value >> 64), limit: low_u16(value >> 48), ..Default::default() }
}

/// The lowest 64 bits.
#[allow(clippy::cast_possible_truncation, reason = "what it is for")]
pub(crate) fn low_u64(value: u128) -> u64 {
    value as u64
}

/// The lowest 32 bits.
#[allow(clippy::cast_possible_truncation, reason = "what it is for")]
pub(crate) fn low_u32(value: u128) -> u32 {
    value as u32
}

/// The lowest 16 bits.
#[allow(clippy::cast_possible_truncation, reason = "what it is for")]
pub(crate) fn low_u16(value: u128) -> u16 {
    value as u16
}

/// The lowest 8 bits.
#[allow(clippy::cast_possible_truncation, reason = "what it is for")]
pub(crate) fn low_u8(value: u128) -> u8 {
    value as u8
}

const _: () = {
    assert!(offset_of!(hv_x64_segment_register, limit) == 8, "see hvgdk_mini.h");
    assert!(offset_of!(hv_x64_segment_register, selector) == 12, "see hvgdk_mini.h");
    assert!(offset_of!(hv_x64_segment_register, __bindgen_anon_1) == 14, "see hvgdk_mini.h");
    assert!(offset_of!(hv_x64_table_register, limit) == 6, "see hvgdk_mini.h");
    assert!(offset_of!(hv_x64_table_register, base) == 8, "see hvgdk_mini.h");
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_survives_the_way_there_and_back() {
        let from = kvm_segment {
            base: 0x1234_5678_9abc,
            limit: 0xffff_f000,
            selector: 0x23,
            type_: 0b1011,
            present: 1,
            dpl: 3,
            db: 0,
            s: 1,
            l: 1,
            g: 1,
            avl: 0,
            ..Default::default()
        };
        assert_eq!(to_segment(segment(&from)), from);
        assert_eq!(low_u16(segment(&from) >> 112), 0xa0fb, "as in a descriptor");
    }

    #[test]
    fn a_segment_that_is_not_present_is_unusable() {
        assert_eq!(to_segment(0x0002 << 112).unusable, 1);
    }
}
