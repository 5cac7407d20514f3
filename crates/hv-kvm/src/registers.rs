//! The registers that a guest starts with.

use cellule_hv::x86::{Control, TASK, USER_CODE, USER_DATA, usable_states};
use cellule_hv::{RESERVED_FLAG, Registers, USER_FLAGS};
use kvm_bindings::{kvm_cpuid_entry2, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// What the processor has that registers must be set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// The extended states to switch on; 0 if KVM says that there is no XSAVE.
    pub(crate) xcr0: u64,
    cr4: u64,
}

// SDM volume 3, section 2.5, and 2.2.1 for EFER.
const CR0: u64 = {
    const PROTECTED: u64 = 1 << 0;
    const MONITOR_COPROCESSOR: u64 = 1 << 1;
    const EXTENSION_TYPE: u64 = 1 << 4;
    const NUMERIC_ERROR: u64 = 1 << 5;
    const WRITE_PROTECT: u64 = 1 << 16;
    const PAGING: u64 = 1 << 31;
    PROTECTED | MONITOR_COPROCESSOR | EXTENSION_TYPE | NUMERIC_ERROR | WRITE_PROTECT | PAGING
};
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
/// Long mode enabled and active, no-execute; not SCE: `syscall` is undefined.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
impl Features {
    /// Reads off a CPUID table what can be switched on.
    pub(crate) fn of(cpuid: &[kvm_cpuid_entry2]) -> Self {
        let leaf = |function, index| {
            cpuid.iter().find(|entry| entry.function == function && entry.index == index)
        };
        let bit = |register: Option<u32>, bit: u32| register.is_some_and(|r| r >> bit & 1 == 1);
        let ecx1 = leaf(1, 0).map(|entry| entry.ecx);
        let ebx7 = leaf(7, 0).map(|entry| entry.ebx);
        let ecx7 = leaf(7, 0).map(|entry| entry.ecx);
        let xsave = bit(ecx1, 26);
        let states = leaf(0xd, 0).map_or(0, |e| u64::from(e.edx) << 32 | u64::from(e.eax));
        let xcr0 = if xsave { usable_states(states) } else { 0 };
        let optional = [
            (xsave, CR4_OSXSAVE),
            (bit(ebx7, 7), CR4_SMEP),
            (bit(ebx7, 20), CR4_SMAP),
            (bit(ecx7, 2), CR4_UMIP),
        ];
        let extra: u64 = optional.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum();
        Self { xcr0, cr4: CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | extra }
    }
}

/// What a guest must save with XSAVE in order to go on later, or 0 if FXSAVE
/// saves all that there is: of what KVM was told to switch on, and what a
/// guest's `xgetbv` shows.
///
/// What KVM was told holds where the processor has a mode for guests, as that
/// gives each its own XCR0. Where ring 3 runs on the bare processor
/// (`kvm_pvm`), CPUID hides XSAVE in leaf 1 (and yet leaf 0xd lists the states,
/// 0xe7 on the build machines), so that there is nothing to be told; but nothing
/// switches it off either, and a guest that asks the processor instead of CPUID,
/// or was compiled for AVX, has registers that FXSAVE does not know of. There
/// XCR0 is the host's, and may have more states than a guest should count on:
/// AMX's tiles, protection keys.
pub(crate) fn vector_state(told: u64, shown: Option<u64>) -> u64 {
    if told != 0 { told } else { usable_states(shown.unwrap_or(0)) }
}

pub(crate) fn general(registers: &Registers) -> kvm_regs {
    kvm_regs {
        rax: registers.rax,
        rbx: registers.rbx,
        rcx: registers.rcx,
        rdx: registers.rdx,
        rsi: registers.rsi,
        rdi: registers.rdi,
        rsp: registers.rsp,
        rbp: registers.rbp,
        r8: registers.r8,
        r9: registers.r9,
        r10: registers.r10,
        r11: registers.r11,
        r12: registers.r12,
        r13: registers.r13,
        r14: registers.r14,
        r15: registers.r15,
        rip: registers.rip,
        // Interrupts off, I/O privilege level 0.
        rflags: registers.flags(),
    }
}

/// The opposite, with what else a guest's registers are.
pub(crate) fn read(regs: &kvm_regs, sregs: &kvm_sregs) -> Registers {
    Registers {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rsp: regs.rsp,
        rbp: regs.rbp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rip: regs.rip,
        rflags: regs.rflags & USER_FLAGS | RESERVED_FLAG,
        fs_base: sregs.fs.base,
        gs_base: sregs.gs.base,
    }
}

pub(crate) fn system(control: &Control, features: &Features) -> kvm_sregs {
    let data = segment(USER_DATA, 0b0011, 0);
    kvm_sregs {
        cs: segment(USER_CODE, 0b1011, 1),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment {
            base: control.tss.0,
            limit: u32::from(control.tss_limit),
            selector: TASK,
            type_: 0b1011,
            present: 1,
            ..Default::default()
        },
        ldt: kvm_segment { unusable: 1, type_: 0b0010, ..Default::default() },
        gdt: kvm_dtable { base: control.gdt.0, limit: control.gdt_limit, ..Default::default() },
        idt: kvm_dtable { base: control.idt.0, limit: control.idt_limit, ..Default::default() },
        cr0: CR0,
        cr3: control.root,
        cr4: features.cr4,
        efer: EFER,
        ..Default::default()
    }
}

/// A flat segment of ring 3.
fn segment(selector: u16, type_: u8, long: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, eax: u32, ebx: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, ..Default::default() }
    }

    #[test]
    fn a_guest_saves_what_kvm_was_told_and_else_what_it_sees() {
        const AMX_AND_KEYS: u64 = 0b110 << 16 | 1 << 9;
        assert_eq!(vector_state(0b111, Some(0xe7)), 0b111, "its own XCR0 should count");
        assert_eq!(vector_state(0b111, None), 0b111);
        assert_eq!(vector_state(0, Some(0xe7)), 0xe7);
        assert_eq!(vector_state(0, Some(0xe7 | AMX_AND_KEYS)), 0xe7, "it should know the states");
        assert_eq!(vector_state(0, Some(0x67)), 0b111, "AVX-512 is all three states or none");
        assert_eq!(vector_state(0, None), 0, "there should be no XSAVE without XGETBV");
    }

    #[test]
    fn only_what_the_processor_has_is_switched_on() {
        let none = Features::of(&[]);
        assert_eq!((none.xcr0, none.cr4), (0, CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT));
        let avx = Features::of(&[leaf(1, 0, 0, 1 << 26), leaf(0xd, 0b111, 0, 0)]);
        assert_eq!(avx.xcr0, 0b111);
        assert_eq!(avx.cr4 & CR4_OSXSAVE, CR4_OSXSAVE);
        let half = Features::of(&[leaf(1, 0, 0, 1 << 26), leaf(0xd, 0b0110_0111, 0, 0)]);
        assert_eq!(half.xcr0, 0b111, "AVX-512 is all three states or none");
        let protected = Features::of(&[leaf(7, 0, 1 << 7 | 1 << 20, 1 << 2)]);
        assert_eq!(protected.cr4 & CR4_SMEP, CR4_SMEP);
        assert_eq!(protected.cr4 & CR4_SMAP, CR4_SMAP);
        assert_eq!(protected.cr4 & CR4_UMIP, CR4_UMIP);
    }
}
