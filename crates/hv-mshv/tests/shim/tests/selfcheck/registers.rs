//! Registers, CPUID and XSAVE, there and back.

use mshv_bindings::*;
use mshv_ioctls::MshvError;

use super::Case;
use super::guest::{Guest, NOWHERE, NOWHERE_GPA, partition};

pub(crate) const CASES: &[Case] = &[
    ("registers come back as they were set", round_trip),
    ("MSRs come back as they were set", msrs),
    ("a register that is not there is an invalid parameter", unknown),
    ("a value that cannot be is an invalid register value", bad_value),
    ("XSAVE carries the vector registers", xsave),
    ("CPUID shows what is registered", cpuid),
    ("an address is translated", translation),
    ("what a guest did to its registers is seen", seen),
];

fn round_trip() {
    let guest = Guest::ring3(&[0xe6, 1]);
    let vp = &guest.vp;
    let regs =
        StandardRegisters { rax: 1, r15: 15, rip: 0x1234, rflags: 0x246, ..Default::default() };
    vp.set_regs(&regs).unwrap();
    assert_eq!(vp.get_regs().unwrap(), regs);
    let sregs = vp.get_sregs().unwrap();
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.dpl), (0x23, 1, 3));
    assert_eq!((sregs.efer, sregs.cr3, sregs.tr.base), (0xd00, 0x1000, 0x100));
    vp.set_sregs(&sregs).unwrap();
    let again = vp.get_sregs().unwrap();
    assert_eq!(format!("{again:?}"), format!("{sregs:?}"), "it has no ==");
    let mut fpu = vp.get_fpu().unwrap();
    assert_eq!((fpu.fcw, fpu.mxcsr), (0x37f, 0x1f80));
    fpu.xmm[15] = [7; 16];
    fpu.fpr[0][0] = 9;
    fpu.mxcsr = 0x1fa0;
    vp.set_fpu(&fpu).unwrap();
    assert_eq!(vp.get_fpu().unwrap(), fpu);
    let debug = DebugRegisters { dr0: 0x1000, dr3: 0x3000, ..vp.get_debug_regs().unwrap() };
    vp.set_debug_regs(&debug).unwrap();
    assert_eq!(vp.get_debug_regs().unwrap(), debug);
    let xcrs = vp.get_xcrs().unwrap();
    assert_eq!(xcrs.xcr0 & 1, 1);
    vp.set_xcrs(&xcrs).unwrap();
    let events = vp.get_vcpu_events().unwrap();
    vp.set_vcpu_events(&events).unwrap();
    assert_eq!(vp.get_vcpu_events().unwrap(), events);
    assert_eq!(vp.get_suspend_regs().unwrap().explicit_register, 1);
    let misc = MiscRegs { hypercall: 0x55, int_vec: 0 };
    vp.set_misc_regs(&misc).unwrap();
    assert_eq!(vp.get_misc_regs().unwrap(), misc);
}

fn msrs() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    let entry = |index, data| msr_entry { index, data, ..Default::default() };
    let wanted = [
        entry(IA32_MSR_KERNEL_GS_BASE, 0x1000),
        entry(IA32_MSR_STAR, 0x0023_0010 << 32),
        entry(IA32_MSR_LSTAR, 0x2000),
        entry(IA32_MSR_SFMASK, 0x200),
        entry(IA32_MSR_SYSENTER_EIP, 0x3000),
        entry(IA32_MSR_PAT, 0x0007_0406_0007_0406),
        entry(IA32_MSR_EFER, 0x100),
        entry(IA32_MSR_MTRR_PHYSBASE7, 0x6),
    ];
    let set = Msrs::from_entries(&wanted).unwrap();
    vp.set_msrs(&set).unwrap();
    let mut get = Msrs::from_entries(&wanted.map(|msr| entry(msr.index, 0))).unwrap();
    vp.get_msrs(&mut get).unwrap();
    for (got, wanted) in get.as_slice().iter().zip(&wanted) {
        assert_eq!(got.data, wanted.data, "{:#x}", got.index);
    }
    let mut tsc = Msrs::from_entries(&[entry(IA32_MSR_TSC, 0)]).unwrap();
    vp.get_msrs(&mut tsc).unwrap();
    assert_ne!(tsc.as_slice()[0].data, 0);
}

fn status(result: Result<(), MshvError>) -> Option<HvError> {
    match result {
        Err(MshvError::Hypercall { status, .. }) => status,
        _ => None,
    }
}

fn unknown() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    let name = hv_register_name_HV_X64_REGISTER_RTIT_CTL;
    let mut wanted = [hv_register_assoc { name, ..Default::default() }];
    assert_eq!(status(vp.get_reg(&mut wanted)), Some(HvError::InvalidParameter));
    assert_eq!(status(vp.set_reg(&wanted)), Some(HvError::InvalidParameter));
}

fn bad_value() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    let mut sregs = vp.get_sregs().unwrap();
    sregs.cr4 = 1 << 63;
    assert_eq!(status(vp.set_sregs(&sregs)), Some(HvError::InvalidRegisterValue));
    assert_ne!(vp.get_sregs().unwrap().cr4, 1 << 63);
}

fn xsave() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    let mut fpu = vp.get_fpu().unwrap();
    fpu.xmm[3] = [0x5a; 16];
    vp.set_fpu(&fpu).unwrap();
    let mut area = vp.get_xsave().unwrap();
    // SDM volume 1, section 10.5.1: XMM0 is at 160 of the area.
    assert_eq!(area.buffer[160 + 3 * 16..][..16], [0x5a; 16]);
    area.buffer[160 + 3 * 16..][..16].fill(0xa5);
    vp.set_xsave(&area).unwrap();
    assert_eq!(vp.get_fpu().unwrap().xmm[3], [0xa5; 16]);
}

fn cpuid() {
    let vm = partition();
    let vp = vm.create_vcpu(0).unwrap();
    let [_, _, _, edx] = vp.get_cpuid_values(1, 0, 0, 0).unwrap();
    assert_eq!(edx >> 25 & 1, 1, "there should be SSE");
    let entry = hv_cpuid_entry { function: 0x4000_0001, eax: 7, ..Default::default() };
    vp.register_intercept_result_cpuid_entry(&entry, None, None).unwrap();
    assert_eq!(vp.get_cpuid_values(0x4000_0001, 0, 0, 0).unwrap(), [7, 0, 0, 0]);
    let guest = Guest::ring3(&[
        0xb8, 0, 0, 0, 0x41, // mov eax, 0x41000000
        0x0f, 0xa2, // cpuid
        0xe6, 1, // out 1, al
    ]);
    let entry = hv_cpuid_entry { function: 0x4100_0000, eax: 99, ..Default::default() };
    guest.vp.register_intercept_result_cpuid_entry(&entry, Some(1), None).unwrap();
    assert_eq!({ guest.run_to_port().rax }, 99);
}

fn translation() {
    let guest = Guest::ring3(&[0xe6, 1]);
    let (gpa, result) = guest.vp.translate_gva(NOWHERE + 5, 0).unwrap();
    // SAFETY: both fields of the union are the same 64 bits.
    let code = unsafe { result.as_uint64 };
    assert_eq!((gpa, code), (NOWHERE_GPA + 5, 0));
    let (_, result) = guest.vp.translate_gva(1 << 40, 0).unwrap();
    // SAFETY: as above.
    assert_ne!(unsafe { result.as_uint64 } & 0xff, 0);
}

fn seen() {
    let guest = Guest::ring3(&[
        0xbb, 5, 0, 0, 0, // mov ebx, 5
        0x66, 0x0f, 0x76, 0xc0, // pcmpeqd xmm0, xmm0
        0xe6, 1, // out 1, al
    ]);
    guest.run_to_port();
    assert_eq!(guest.vp.get_regs().unwrap().rbx, 5);
    assert_eq!(guest.vp.get_fpu().unwrap().xmm[0], [0xff; 16]);
    let suspended = guest.vp.get_suspend_regs().unwrap();
    assert_eq!((suspended.explicit_register, suspended.intercept_register), (0, 1));
}
