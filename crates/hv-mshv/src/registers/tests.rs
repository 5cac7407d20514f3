//! The lists against the structures of the bindings, field by field.

use cellule_hv::Gva;
use mshv_bindings::{
    SegmentRegister, hv_x64_pending_exception_event, hv_x64_pending_interruption_register,
};

use super::*;

fn control() -> Control {
    Control {
        descriptors: Vec::new(),
        page_tables: Vec::new(),
        root: 0x5000,
        extended_root: 0x9000,
        gdt: Gva(0x40_6000),
        gdt_limit: 55,
        idt: Gva(0x40_6200),
        idt_limit: 511,
        tss: Gva(0x40_6100),
        tss_limit: 105,
        stubs: Gva(0x40_7000)..Gva(0x40_8000),
    }
}

fn find(list: &[hv_register_assoc], name: hv_register_name) -> hv_register_value {
    let all: Vec<_> = list.iter().filter(|assoc| assoc.name == name).collect();
    assert_eq!(all.len(), 1, "register {name:#x} should be there once");
    all[0].value
}

/// A segment as the bindings take it apart.
fn shown(value: hv_register_value) -> SegmentRegister {
    // SAFETY: any bits are a segment register.
    SegmentRegister::from(unsafe { value.segment })
}

fn low(value: hv_register_value) -> u64 {
    // SAFETY: any bits are a number.
    unsafe { value.reg64 }
}

#[test]
fn segments_are_flat_and_of_ring_3() {
    let registers = Registers { fs_base: 0x1234, gs_base: 0x5678, ..Registers::default() };
    let list = general(&registers);
    let code = shown(find(&list, hv_register_name_HV_X64_REGISTER_CS));
    assert_eq!((code.selector, code.base, code.limit), (USER_CODE, 0, u32::MAX));
    assert_eq!((code.type_, code.s, code.dpl, code.present), (0b1011, 1, 3, 1));
    assert_eq!((code.l, code.db, code.g, code.avl), (1, 0, 1, 0));
    let names = [
        (hv_register_name_HV_X64_REGISTER_SS, 0),
        (hv_register_name_HV_X64_REGISTER_DS, 0),
        (hv_register_name_HV_X64_REGISTER_ES, 0),
        (hv_register_name_HV_X64_REGISTER_FS, 0x1234),
        (hv_register_name_HV_X64_REGISTER_GS, 0x5678),
    ];
    for (name, base) in names {
        let data = shown(find(&list, name));
        assert_eq!((data.selector, data.base, data.limit), (USER_DATA, base, u32::MAX));
        assert_eq!((data.type_, data.s, data.dpl, data.present), (0b0011, 1, 3, 1));
        assert_eq!((data.l, data.db, data.g, data.avl), (0, 1, 1, 0));
    }
}

#[test]
fn a_new_vcpu_finds_its_tables_and_its_task() {
    let features = Features { xcr0: 0b111, cr4: 0x620 };
    let list = first(&control(), &features, &Registers::default());
    let task = shown(find(&list, hv_register_name_HV_X64_REGISTER_TR));
    assert_eq!((task.selector, task.base, task.limit), (TASK, 0x40_6100, 105));
    assert_eq!((task.type_, task.s, task.dpl, task.present), (0b1011, 0, 0, 1));
    let local = shown(find(&list, hv_register_name_HV_X64_REGISTER_LDTR));
    assert_eq!((local.selector, local.present, local.limit), (0, 0, 0));
    for (name, base, limit) in [
        (hv_register_name_HV_X64_REGISTER_GDTR, 0x40_6000, 55),
        (hv_register_name_HV_X64_REGISTER_IDTR, 0x40_6200, 511),
    ] {
        // SAFETY: any bits are a table register.
        let table = unsafe { find(&list, name).table };
        assert_eq!(({ table.base }, { table.limit }, { table.pad }), (base, limit, [0; 3]));
    }
}

#[test]
fn a_new_vcpu_is_in_long_mode_with_what_the_processor_has() {
    let features = Features { xcr0: 0xe7, cr4: 0x620 };
    let list = first(&control(), &features, &Registers::default());
    for (name, due) in [
        (hv_register_name_HV_X64_REGISTER_CR0, 0x8001_0033),
        (hv_register_name_HV_X64_REGISTER_CR3, 0x5000),
        (hv_register_name_HV_X64_REGISTER_CR4, 0x620),
        (hv_register_name_HV_X64_REGISTER_EFER, 0xd00),
        (hv_register_name_HV_X64_REGISTER_XFEM, 0xe7),
        (hv_register_name_HV_X64_REGISTER_RFLAGS, 2),
    ] {
        assert_eq!(low(find(&list, name)), due, "register {name:#x}");
    }
    let x87 = find(&list, hv_register_name_HV_X64_REGISTER_FP_CONTROL_STATUS);
    // SAFETY: any bits are these registers.
    let x87 = unsafe { x87.fp_control_status };
    // SAFETY: the union's readings are all numbers.
    let x87 = unsafe { x87.__bindgen_anon_1 };
    assert_eq!(({ x87.fp_control }, { x87.fp_status }, x87.fp_tag), (0x37f, 0, 0));
    let sse = find(&list, hv_register_name_HV_X64_REGISTER_XMM_CONTROL_STATUS);
    // SAFETY: any bits are these registers.
    let sse = unsafe { sse.xmm_control_status };
    // SAFETY: the union's readings are all numbers.
    let sse = unsafe { sse.__bindgen_anon_1 };
    assert_eq!({ sse.xmm_status_control }, 0x1f80);
    let none = first(&control(), &Features { xcr0: 0, cr4: 0x620 }, &Registers::default());
    let xfem = |assoc: &&hv_register_assoc| assoc.name == hv_register_name_HV_X64_REGISTER_XFEM;
    assert_eq!(none.iter().find(xfem).map(|assoc| assoc.name), None, "there is no XSAVE");
}

#[test]
fn what_is_set_is_what_is_read() {
    let registers = Registers {
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rbp: 7,
        rsp: 8,
        r8: 9,
        r9: 10,
        r10: 11,
        r11: 12,
        r12: 13,
        r13: 14,
        r14: 15,
        r15: 16,
        rip: 17,
        rflags: 0x8d5 | RESERVED_FLAG,
        fs_base: 18,
        gs_base: 19,
    };
    let list = general(&registers);
    let words = GENERAL.map(|name| low(find(&list, name)));
    assert_eq!(read(&words), registers);
    let supervisor = Registers { rflags: u64::MAX, ..registers };
    let flags = low(find(&general(&supervisor), hv_register_name_HV_X64_REGISTER_RFLAGS));
    assert_eq!(flags, USER_FLAGS | RESERVED_FLAG, "no flag of the supervisor's is taken");
}

#[test]
fn an_exception_is_under_way_if_either_register_says_so() {
    let mut interruption = hv_x64_pending_interruption_register { as_uint64: 0 };
    // SAFETY: this bit-field view is of the union's number.
    unsafe { interruption.__bindgen_anon_1.set_interruption_vector(14) };
    // SAFETY: any bits are a number.
    assert!(!is_delivering(unsafe { interruption.as_uint64 }, 0), "a vector is left over");
    // SAFETY: this bit-field view is of the union's number.
    unsafe { interruption.__bindgen_anon_1.set_interruption_pending(1) };
    // SAFETY: any bits are a number.
    assert!(is_delivering(unsafe { interruption.as_uint64 }, 0));
    let mut event = hv_x64_pending_exception_event { as_uint64: [0; 2] };
    // SAFETY: this bit-field view is of the union's numbers.
    unsafe { event.__bindgen_anon_1.set_event_pending(1) };
    // SAFETY: any bits are numbers.
    let [event, _] = unsafe { event.as_uint64 };
    assert!(is_delivering(0, event));
}
