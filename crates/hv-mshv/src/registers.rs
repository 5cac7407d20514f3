//! Registers as the hypervisor names them: lists of names and values.
//!
//! A call sets or reads any number of them. So there are lists for what travels
//! together: all that a new vCPU needs, what a restarted guest needs, and the two
//! that tell where it stands.

use cellule_hv::x86::{Control, TASK, USER_CODE, USER_DATA};
use cellule_hv::{RESERVED_FLAG, Registers, USER_FLAGS};
use mshv_bindings::{
    hv_register_assoc, hv_register_name, hv_register_name_HV_REGISTER_PENDING_EVENT0,
    hv_register_name_HV_REGISTER_PENDING_INTERRUPTION, hv_register_name_HV_X64_REGISTER_CR0,
    hv_register_name_HV_X64_REGISTER_CR3, hv_register_name_HV_X64_REGISTER_CR4,
    hv_register_name_HV_X64_REGISTER_CS, hv_register_name_HV_X64_REGISTER_DS,
    hv_register_name_HV_X64_REGISTER_EFER, hv_register_name_HV_X64_REGISTER_ES,
    hv_register_name_HV_X64_REGISTER_FP_CONTROL_STATUS, hv_register_name_HV_X64_REGISTER_FS,
    hv_register_name_HV_X64_REGISTER_GDTR, hv_register_name_HV_X64_REGISTER_GS,
    hv_register_name_HV_X64_REGISTER_IDTR, hv_register_name_HV_X64_REGISTER_LDTR,
    hv_register_name_HV_X64_REGISTER_R8, hv_register_name_HV_X64_REGISTER_R9,
    hv_register_name_HV_X64_REGISTER_R10, hv_register_name_HV_X64_REGISTER_R11,
    hv_register_name_HV_X64_REGISTER_R12, hv_register_name_HV_X64_REGISTER_R13,
    hv_register_name_HV_X64_REGISTER_R14, hv_register_name_HV_X64_REGISTER_R15,
    hv_register_name_HV_X64_REGISTER_RAX, hv_register_name_HV_X64_REGISTER_RBP,
    hv_register_name_HV_X64_REGISTER_RBX, hv_register_name_HV_X64_REGISTER_RCX,
    hv_register_name_HV_X64_REGISTER_RDI, hv_register_name_HV_X64_REGISTER_RDX,
    hv_register_name_HV_X64_REGISTER_RFLAGS, hv_register_name_HV_X64_REGISTER_RIP,
    hv_register_name_HV_X64_REGISTER_RSI, hv_register_name_HV_X64_REGISTER_RSP,
    hv_register_name_HV_X64_REGISTER_SS, hv_register_name_HV_X64_REGISTER_TR,
    hv_register_name_HV_X64_REGISTER_XFEM, hv_register_name_HV_X64_REGISTER_XMM_CONTROL_STATUS,
    hv_register_value, hv_u128,
};

use crate::features::Features;

/// The names that the rest of the crate uses.
pub(crate) use mshv_bindings::{
    hv_register_name_HV_X64_REGISTER_CR2 as CR2, hv_register_name_HV_X64_REGISTER_TSC as TSC,
};

/// What [`read`] reads, in its order.
pub(crate) const GENERAL: [hv_register_name; 20] = [
    hv_register_name_HV_X64_REGISTER_RAX,
    hv_register_name_HV_X64_REGISTER_RBX,
    hv_register_name_HV_X64_REGISTER_RCX,
    hv_register_name_HV_X64_REGISTER_RDX,
    hv_register_name_HV_X64_REGISTER_RSI,
    hv_register_name_HV_X64_REGISTER_RDI,
    hv_register_name_HV_X64_REGISTER_RBP,
    hv_register_name_HV_X64_REGISTER_RSP,
    hv_register_name_HV_X64_REGISTER_R8,
    hv_register_name_HV_X64_REGISTER_R9,
    hv_register_name_HV_X64_REGISTER_R10,
    hv_register_name_HV_X64_REGISTER_R11,
    hv_register_name_HV_X64_REGISTER_R12,
    hv_register_name_HV_X64_REGISTER_R13,
    hv_register_name_HV_X64_REGISTER_R14,
    hv_register_name_HV_X64_REGISTER_R15,
    hv_register_name_HV_X64_REGISTER_RIP,
    hv_register_name_HV_X64_REGISTER_RFLAGS,
    hv_register_name_HV_X64_REGISTER_FS,
    hv_register_name_HV_X64_REGISTER_GS,
];
/// What tells where a guest stands that was interrupted: see [`is_delivering`].
pub(crate) const STAND: [hv_register_name; 4] = [
    hv_register_name_HV_X64_REGISTER_RIP,
    hv_register_name_HV_X64_REGISTER_RSP,
    hv_register_name_HV_REGISTER_PENDING_INTERRUPTION,
    hv_register_name_HV_REGISTER_PENDING_EVENT0,
];

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
/// Long mode enabled and active, no-execute; not SCE: `syscall` is undefined.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// The x87 control word and MXCSR at a program's start: System V ABI, x86-64,
/// figure 3.4. A processor that was reset has another x87 control word.
const X87_CONTROL: u64 = 0x37f;
const MXCSR: u64 = 0x1f80;

// Attributes of a segment, `hv_x64_segment_register`: as bits 8 to 23 of a
// descriptor (SDM volume 3, section 3.4.5), those of the limit being zero.
const PRESENT: u16 = 1 << 7;
const RING_3: u16 = 3 << 5;
const NO_SYSTEM: u16 = 1 << 4;
const LONG: u16 = 1 << 13;
const WIDE: u16 = 1 << 14;
const PAGES: u16 = 1 << 15;
const CODE: u16 = 0b1011 | PRESENT | RING_3 | NO_SYSTEM | LONG | PAGES;
const DATA: u16 = 0b0011 | PRESENT | RING_3 | NO_SYSTEM | WIDE | PAGES;
const BUSY_TASK: u16 = 0b1011 | PRESENT;

/// All that a new vCPU must be told. What is not here has the value that it has
/// after a reset, which none of our guests can tell.
pub(crate) fn first(
    control: &Control,
    features: &Features,
    start: &Registers,
) -> Vec<hv_register_assoc> {
    let task = segment(TASK, BUSY_TASK, control.tss.0, u32::from(control.tss_limit));
    let mut list = general(start);
    list.extend([
        assoc(hv_register_name_HV_X64_REGISTER_TR, task),
        // Not present: ring 3 can load nothing from it.
        assoc(hv_register_name_HV_X64_REGISTER_LDTR, segment(0, 0, 0, 0)),
        assoc(hv_register_name_HV_X64_REGISTER_GDTR, table(control.gdt.0, control.gdt_limit)),
        assoc(hv_register_name_HV_X64_REGISTER_IDTR, table(control.idt.0, control.idt_limit)),
        word(hv_register_name_HV_X64_REGISTER_CR0, CR0),
        word(hv_register_name_HV_X64_REGISTER_CR3, control.root),
        word(hv_register_name_HV_X64_REGISTER_CR4, features.cr4),
        word(hv_register_name_HV_X64_REGISTER_EFER, EFER),
        word(hv_register_name_HV_X64_REGISTER_FP_CONTROL_STATUS, X87_CONTROL),
        assoc(hv_register_name_HV_X64_REGISTER_XMM_CONTROL_STATUS, value(0, MXCSR)),
    ]);
    if features.xcr0 != 0 {
        list.push(word(hv_register_name_HV_X64_REGISTER_XFEM, features.xcr0));
    }
    list
}

/// What ring 3, or an exception of its, can have changed: the general registers
/// and the segments.
pub(crate) fn general(registers: &Registers) -> Vec<hv_register_assoc> {
    let words = [
        (hv_register_name_HV_X64_REGISTER_RAX, registers.rax),
        (hv_register_name_HV_X64_REGISTER_RBX, registers.rbx),
        (hv_register_name_HV_X64_REGISTER_RCX, registers.rcx),
        (hv_register_name_HV_X64_REGISTER_RDX, registers.rdx),
        (hv_register_name_HV_X64_REGISTER_RSI, registers.rsi),
        (hv_register_name_HV_X64_REGISTER_RDI, registers.rdi),
        (hv_register_name_HV_X64_REGISTER_RBP, registers.rbp),
        (hv_register_name_HV_X64_REGISTER_R8, registers.r8),
        (hv_register_name_HV_X64_REGISTER_R9, registers.r9),
        (hv_register_name_HV_X64_REGISTER_R10, registers.r10),
        (hv_register_name_HV_X64_REGISTER_R11, registers.r11),
        (hv_register_name_HV_X64_REGISTER_R12, registers.r12),
        (hv_register_name_HV_X64_REGISTER_R13, registers.r13),
        (hv_register_name_HV_X64_REGISTER_R14, registers.r14),
        (hv_register_name_HV_X64_REGISTER_R15, registers.r15),
        (hv_register_name_HV_X64_REGISTER_RSP, registers.rsp),
        (hv_register_name_HV_X64_REGISTER_RIP, registers.rip),
        // Interrupts off, I/O privilege level 0.
        (hv_register_name_HV_X64_REGISTER_RFLAGS, registers.flags()),
    ];
    let data = |base| segment(USER_DATA, DATA, base, u32::MAX);
    let segments = [
        (hv_register_name_HV_X64_REGISTER_CS, segment(USER_CODE, CODE, 0, u32::MAX)),
        (hv_register_name_HV_X64_REGISTER_SS, data(0)),
        (hv_register_name_HV_X64_REGISTER_DS, data(0)),
        (hv_register_name_HV_X64_REGISTER_ES, data(0)),
        (hv_register_name_HV_X64_REGISTER_FS, data(registers.fs_base)),
        (hv_register_name_HV_X64_REGISTER_GS, data(registers.gs_base)),
    ];
    let words = words.into_iter().map(|(name, low)| word(name, low));
    words.chain(segments.into_iter().map(|(name, value)| assoc(name, value))).collect()
}

/// The instruction pointer.
pub(crate) fn rip(rip: u64) -> hv_register_assoc {
    word(hv_register_name_HV_X64_REGISTER_RIP, rip)
}

/// The stack pointer.
pub(crate) fn rsp(rsp: u64) -> hv_register_assoc {
    word(hv_register_name_HV_X64_REGISTER_RSP, rsp)
}

/// The root of the page tables.
pub(crate) fn root(root: u64) -> hv_register_assoc {
    word(hv_register_name_HV_X64_REGISTER_CR3, root)
}

/// What is in the lower halves of [`GENERAL`]; a segment's is its base.
pub(crate) fn read(words: &[u64; GENERAL.len()]) -> Registers {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, ..] = *words;
    let [.., rip, rflags, fs_base, gs_base] = *words;
    Registers {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags: rflags & USER_FLAGS | RESERVED_FLAG,
        fs_base,
        gs_base,
    }
}

/// Whether the processor is yet to deliver an exception that it has accepted,
/// from the lower halves of the last two of [`STAND`]: "pending" is the lowest
/// bit of each.
pub(crate) fn is_delivering(interruption: u64, event: u64) -> bool {
    (interruption | event) & 1 != 0
}

/// `hv_x64_segment_register`.
fn segment(selector: u16, attributes: u16, base: u64, limit: u32) -> hv_register_value {
    let high = u64::from(limit) | u64::from(selector) << 32 | u64::from(attributes) << 48;
    value(base, high)
}

/// `hv_x64_table_register`: the limit is in the upper two bytes of the lower half.
fn table(base: u64, limit: u16) -> hv_register_value {
    value(u64::from(limit) << 48, base)
}

fn value(low_part: u64, high_part: u64) -> hv_register_value {
    hv_register_value { reg128: hv_u128 { low_part, high_part } }
}

fn word(name: hv_register_name, low: u64) -> hv_register_assoc {
    assoc(name, value(low, 0))
}

fn assoc(name: hv_register_name, value: hv_register_value) -> hv_register_assoc {
    hv_register_assoc { name, value, ..Default::default() }
}

#[cfg(test)]
mod tests;
