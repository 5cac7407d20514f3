//! Which register a name means, in KVM's terms.

use kvm_bindings::{kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use mshv_bindings::*;

use crate::vector::{ST0, X87_CONTROL, XMM_CONTROL, XMM0};

/// Where a register is.
#[derive(Clone, Copy)]
pub(crate) enum Register {
    General(fn(&mut kvm_regs) -> &mut u64),
    Segment(fn(&mut kvm_sregs) -> &mut kvm_segment),
    Table(fn(&mut kvm_sregs) -> &mut kvm_dtable),
    System(fn(&mut kvm_sregs) -> &mut u64),
    /// DR0 to DR3.
    Breakpoint(usize),
    Debug(fn(&mut kvm_debugregs) -> &mut u64),
    /// In the XSAVE area, in 16 bytes.
    Vector(usize),
    /// XCR0.
    Xfem,
    Msr(u32),
    PendingInterruption,
    InterruptState,
    ExplicitSuspend,
    InterceptSuspend,
    /// Nothing but zero: no event is pending, and a VP is never idle or halted.
    Zero,
    /// A number that is kept, and means nothing: the hypercall page, the guest's name.
    Kept(usize),
    VpIndex,
    /// In 100 ns since the partition was made.
    ReferenceTime,
    /// Of the processor, in Hz.
    Frequency,
}

/// How many registers are [`Register::Kept`].
pub(crate) const KEPT: usize = 2;

/// The register of a name, if it is one that is there.
pub(crate) fn register(name: u32) -> Option<Register> {
    general(name).or_else(|| system(name)).or_else(|| vector(name)).or_else(|| msr(name)).or_else(
        || {
            Some(match name {
                hv_register_name_HV_REGISTER_PENDING_INTERRUPTION => Register::PendingInterruption,
                hv_register_name_HV_REGISTER_INTERRUPT_STATE => Register::InterruptState,
                hv_register_name_HV_REGISTER_EXPLICIT_SUSPEND => Register::ExplicitSuspend,
                hv_register_name_HV_REGISTER_INTERCEPT_SUSPEND => Register::InterceptSuspend,
                hv_register_name_HV_REGISTER_PENDING_EVENT0
                | hv_register_name_HV_REGISTER_PENDING_EVENT1
                | hv_register_name_HV_REGISTER_INTERNAL_ACTIVITY_STATE
                | hv_register_name_HV_REGISTER_DELIVERABILITY_NOTIFICATIONS => Register::Zero,
                hv_register_name_HV_X64_REGISTER_HYPERCALL => Register::Kept(0),
                hv_register_name_HV_REGISTER_GUEST_OS_ID => Register::Kept(1),
                hv_register_name_HV_REGISTER_VP_INDEX => Register::VpIndex,
                hv_register_name_HV_REGISTER_TIME_REF_COUNT => Register::ReferenceTime,
                hv_register_name_HV_REGISTER_PROCESSOR_CLOCK_FREQUENCY => Register::Frequency,
                _ => return None,
            })
        },
    )
}

fn general(name: u32) -> Option<Register> {
    Some(Register::General(match name {
        hv_register_name_HV_X64_REGISTER_RAX => |r| &mut r.rax,
        hv_register_name_HV_X64_REGISTER_RBX => |r| &mut r.rbx,
        hv_register_name_HV_X64_REGISTER_RCX => |r| &mut r.rcx,
        hv_register_name_HV_X64_REGISTER_RDX => |r| &mut r.rdx,
        hv_register_name_HV_X64_REGISTER_RSI => |r| &mut r.rsi,
        hv_register_name_HV_X64_REGISTER_RDI => |r| &mut r.rdi,
        hv_register_name_HV_X64_REGISTER_RSP => |r| &mut r.rsp,
        hv_register_name_HV_X64_REGISTER_RBP => |r| &mut r.rbp,
        hv_register_name_HV_X64_REGISTER_R8 => |r| &mut r.r8,
        hv_register_name_HV_X64_REGISTER_R9 => |r| &mut r.r9,
        hv_register_name_HV_X64_REGISTER_R10 => |r| &mut r.r10,
        hv_register_name_HV_X64_REGISTER_R11 => |r| &mut r.r11,
        hv_register_name_HV_X64_REGISTER_R12 => |r| &mut r.r12,
        hv_register_name_HV_X64_REGISTER_R13 => |r| &mut r.r13,
        hv_register_name_HV_X64_REGISTER_R14 => |r| &mut r.r14,
        hv_register_name_HV_X64_REGISTER_R15 => |r| &mut r.r15,
        hv_register_name_HV_X64_REGISTER_RIP => |r| &mut r.rip,
        hv_register_name_HV_X64_REGISTER_RFLAGS => |r| &mut r.rflags,
        _ => return None,
    }))
}

fn system(name: u32) -> Option<Register> {
    use Register::{Debug, Segment, System, Table};
    Some(match name {
        hv_register_name_HV_X64_REGISTER_CS => Segment(|s| &mut s.cs),
        hv_register_name_HV_X64_REGISTER_DS => Segment(|s| &mut s.ds),
        hv_register_name_HV_X64_REGISTER_ES => Segment(|s| &mut s.es),
        hv_register_name_HV_X64_REGISTER_FS => Segment(|s| &mut s.fs),
        hv_register_name_HV_X64_REGISTER_GS => Segment(|s| &mut s.gs),
        hv_register_name_HV_X64_REGISTER_SS => Segment(|s| &mut s.ss),
        hv_register_name_HV_X64_REGISTER_LDTR => Segment(|s| &mut s.ldt),
        hv_register_name_HV_X64_REGISTER_TR => Segment(|s| &mut s.tr),
        hv_register_name_HV_X64_REGISTER_GDTR => Table(|s| &mut s.gdt),
        hv_register_name_HV_X64_REGISTER_IDTR => Table(|s| &mut s.idt),
        hv_register_name_HV_X64_REGISTER_CR0
        | hv_register_name_HV_X64_REGISTER_INTERMEDIATE_CR0 => System(|s| &mut s.cr0),
        hv_register_name_HV_X64_REGISTER_CR2 => System(|s| &mut s.cr2),
        hv_register_name_HV_X64_REGISTER_CR3
        | hv_register_name_HV_X64_REGISTER_INTERMEDIATE_CR3 => System(|s| &mut s.cr3),
        hv_register_name_HV_X64_REGISTER_CR4
        | hv_register_name_HV_X64_REGISTER_INTERMEDIATE_CR4 => System(|s| &mut s.cr4),
        hv_register_name_HV_X64_REGISTER_CR8
        | hv_register_name_HV_X64_REGISTER_INTERMEDIATE_CR8 => System(|s| &mut s.cr8),
        hv_register_name_HV_X64_REGISTER_EFER => System(|s| &mut s.efer),
        hv_register_name_HV_X64_REGISTER_APIC_BASE => System(|s| &mut s.apic_base),
        hv_register_name_HV_X64_REGISTER_DR0..=hv_register_name_HV_X64_REGISTER_DR3 => {
            Register::Breakpoint(index(name - hv_register_name_HV_X64_REGISTER_DR0))
        }
        hv_register_name_HV_X64_REGISTER_DR6 => Debug(|d| &mut d.dr6),
        hv_register_name_HV_X64_REGISTER_DR7 => Debug(|d| &mut d.dr7),
        _ => return None,
    })
}

fn vector(name: u32) -> Option<Register> {
    Some(match name {
        hv_register_name_HV_X64_REGISTER_XMM0..=hv_register_name_HV_X64_REGISTER_XMM15 => {
            Register::Vector(XMM0 + index(name - hv_register_name_HV_X64_REGISTER_XMM0))
        }
        hv_register_name_HV_X64_REGISTER_FP_MMX0..=hv_register_name_HV_X64_REGISTER_FP_MMX7 => {
            Register::Vector(ST0 + index(name - hv_register_name_HV_X64_REGISTER_FP_MMX0))
        }
        hv_register_name_HV_X64_REGISTER_FP_CONTROL_STATUS => Register::Vector(X87_CONTROL),
        hv_register_name_HV_X64_REGISTER_XMM_CONTROL_STATUS => Register::Vector(XMM_CONTROL),
        hv_register_name_HV_X64_REGISTER_XFEM => Register::Xfem,
        _ => return None,
    })
}

/// Addresses of MSRs are from the SDM, volume 4, chapter 2.
fn msr(name: u32) -> Option<Register> {
    Some(Register::Msr(match name {
        hv_register_name_HV_X64_REGISTER_TSC => 0x10,
        hv_register_name_HV_X64_REGISTER_TSC_ADJUST => 0x3b,
        hv_register_name_HV_X64_REGISTER_SPEC_CTRL => 0x48,
        hv_register_name_HV_X64_REGISTER_SYSENTER_CS => 0x174,
        hv_register_name_HV_X64_REGISTER_SYSENTER_ESP => 0x175,
        hv_register_name_HV_X64_REGISTER_SYSENTER_EIP => 0x176,
        hv_register_name_HV_X64_REGISTER_MSR_IA32_MISC_ENABLE => 0x1a0,
        hv_register_name_HV_X64_REGISTER_DEBUG_CTL => 0x1d9,
        hv_register_name_HV_X64_REGISTER_PAT => 0x277,
        hv_register_name_HV_X64_REGISTER_BNDCFGS => 0xd90,
        hv_register_name_HV_X64_REGISTER_U_XSS => 0xda0,
        hv_register_name_HV_X64_REGISTER_U_CET => 0x6a0,
        hv_register_name_HV_X64_REGISTER_S_CET => 0x6a2,
        hv_register_name_HV_X64_REGISTER_PL0_SSP..=hv_register_name_HV_X64_REGISTER_PL3_SSP => {
            0x6a4 + (name - hv_register_name_HV_X64_REGISTER_PL0_SSP)
        }
        hv_register_name_HV_X64_REGISTER_INTERRUPT_SSP_TABLE_ADDR => 0x6a8,
        hv_register_name_HV_X64_REGISTER_STAR => 0xc000_0081,
        hv_register_name_HV_X64_REGISTER_LSTAR => 0xc000_0082,
        hv_register_name_HV_X64_REGISTER_CSTAR => 0xc000_0083,
        hv_register_name_HV_X64_REGISTER_SFMASK => 0xc000_0084,
        hv_register_name_HV_X64_REGISTER_KERNEL_GS_BASE => 0xc000_0102,
        hv_register_name_HV_X64_REGISTER_TSC_AUX => 0xc000_0103,
        _ => return memory_type(name),
    }))
}

/// The memory type range registers.
fn memory_type(name: u32) -> Option<Register> {
    const FIXED: [u32; 11] =
        [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
    /// Behind these KVM has no more ranges.
    const RANGES: u32 = 8;
    const BASE: u32 = hv_register_name_HV_X64_REGISTER_MSR_MTRR_PHYS_BASE0;
    const MASK: u32 = hv_register_name_HV_X64_REGISTER_MSR_MTRR_PHYS_MASK0;
    const FIX: u32 = hv_register_name_HV_X64_REGISTER_MSR_MTRR_FIX64K00000;
    let msr = match name {
        hv_register_name_HV_X64_REGISTER_MSR_MTRR_CAP => 0xfe,
        hv_register_name_HV_X64_REGISTER_MSR_MTRR_DEF_TYPE => 0x2ff,
        _ if (BASE..BASE + RANGES).contains(&name) => 0x200 + 2 * (name - BASE),
        _ if (MASK..MASK + RANGES).contains(&name) => 0x201 + 2 * (name - MASK),
        _ => *FIXED.get(index(name.checked_sub(FIX)?))?,
    };
    Some(Register::Msr(msr))
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
