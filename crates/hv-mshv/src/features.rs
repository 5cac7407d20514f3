//! What a guest's processor has, from properties of its partition.
//!
//! A partition is created with no wishes about features, and then has all that
//! the hypervisor can give on this machine (Linux, drivers/hv/mshv_root_main.c;
//! naming what to leave out takes a newer kernel). What a guest should not use is
//! not switched on: XCR0 has no AMX, CR4 no FSGSBASE, no CET, no protection keys.

use cellule_hv::x86::usable_states;

/// What the processor has that registers must be set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// The extended states to switch on; 0 if there is no XSAVE.
    pub(crate) xcr0: u64,
    /// CR4.
    pub(crate) cr4: u64,
}

// SDM volume 3, section 2.5.
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

// Bits of `hv_partition_processor_features`, the first bank.
const SMEP: u64 = 1 << 23;
const SMAP: u64 = 1 << 35;
const UMIP: u64 = 1 << 58;
// Bits of `hv_partition_processor_xsave_features`.
const XSAVE: u64 = 1 << 0;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 1 << 6;

// States in XCR0: SDM volume 1, section 13.1.
const STATES_LEGACY: u64 = 0b11;
const STATES_AVX: u64 = 0b100;
const STATES_AVX512: u64 = 0b1110_0000;

impl Features {
    /// Reads off two properties what can be switched on: the first bank of
    /// processor features, and the XSAVE features.
    pub(crate) fn of(processor: u64, xsave: u64) -> Self {
        let has = |word: u64, bit: u64| word & bit != 0;
        let if_has = |has: bool, bits: u64| if has { bits } else { 0 };
        let states = STATES_LEGACY
            | if_has(has(xsave, AVX), STATES_AVX)
            | if_has(has(xsave, AVX) && has(xsave, AVX512), STATES_AVX512);
        let extra = if_has(has(xsave, XSAVE), CR4_OSXSAVE)
            | if_has(has(processor, SMEP), CR4_SMEP)
            | if_has(has(processor, SMAP), CR4_SMAP)
            | if_has(has(processor, UMIP), CR4_UMIP);
        Self {
            xcr0: if_has(has(xsave, XSAVE), usable_states(states)),
            cr4: CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | extra,
        }
    }
}

/// What a guest must save with XSAVE in order to go on later, or 0 if FXSAVE
/// saves all that there is: of what the hypervisor was told to switch on, and
/// what a guest's `xgetbv` shows.
///
/// What it was told holds, as the processor gives each guest its own XCR0. Where
/// the hypervisor tells of no XSAVE, and a guest has it all the same, its XCR0
/// is somebody else's: then what is usable of it.
pub(crate) fn vector_state(told: u64, shown: Option<u64>) -> u64 {
    if told != 0 { told } else { usable_states(shown.unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use mshv_bindings::{hv_partition_processor_features, hv_partition_processor_xsave_features};

    use super::*;

    const BASE: u64 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;

    #[test]
    fn the_bits_are_those_of_the_bindings() {
        let mut bank = hv_partition_processor_features { as_uint64: [0; 2] };
        // SAFETY: this bit-field view is of the union's numbers.
        let bits = unsafe { &mut bank.__bindgen_anon_1 };
        bits.set_smep_support(1);
        bits.set_smap_support(1);
        bits.set_umip_support(1);
        // SAFETY: any bits are numbers.
        assert_eq!(unsafe { bank.as_uint64 }, [SMEP | SMAP | UMIP, 0]);
        let mut bank = hv_partition_processor_xsave_features { as_uint64: 0 };
        // SAFETY: this bit-field view is of the union's number.
        let bits = unsafe { &mut bank.__bindgen_anon_1 };
        bits.set_xsave_support(1);
        bits.set_avx_support(1);
        bits.set_avx512_support(1);
        // SAFETY: any bits are a number.
        assert_eq!(unsafe { bank.as_uint64 }, XSAVE | AVX | AVX512);
    }

    #[test]
    fn only_what_the_processor_has_is_switched_on() {
        let cases = [
            ((0, 0), (0, BASE)),
            ((0, AVX | AVX512), (0, BASE)),
            ((0, XSAVE), (0b11, BASE | CR4_OSXSAVE)),
            ((0, XSAVE | AVX), (0b111, BASE | CR4_OSXSAVE)),
            ((0, XSAVE | AVX512), (0b11, BASE | CR4_OSXSAVE)),
            ((0, XSAVE | AVX | AVX512), (0xe7, BASE | CR4_OSXSAVE)),
            ((SMEP, 0), (0, BASE | CR4_SMEP)),
            ((SMAP, 0), (0, BASE | CR4_SMAP)),
            ((UMIP, 0), (0, BASE | CR4_UMIP)),
            ((u64::MAX, u64::MAX), (0xe7, BASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_UMIP)),
        ];
        for ((processor, xsave), (xcr0, cr4)) in cases {
            assert_eq!(Features::of(processor, xsave), Features { xcr0, cr4 });
        }
    }

    #[test]
    fn a_guest_saves_what_the_hypervisor_was_told_and_else_what_it_sees() {
        assert_eq!(vector_state(0b111, Some(0xe7)), 0b111, "its own XCR0 should count");
        assert_eq!(vector_state(0, Some(0xe7 | 0b110 << 16)), 0xe7, "AMX should not");
        assert_eq!(vector_state(0, None), 0);
    }
}
