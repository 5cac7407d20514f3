//! A guest's registers as ptrace has them.

use cellule_hv::{RESERVED_FLAG, Registers, USER_FLAGS};

use crate::trace;

/// The selectors of a 64-bit program: the kernel's `segment.h`.
const USER_CODE: u64 = 0x33;
const USER_DATA: u64 = 0x2b;
/// Interrupts, which ptrace does not let anybody switch off.
const INTERRUPTS: u64 = 1 << 9;
/// The child is in no system call: else the kernel would take some values of RAX for
/// its own, and do the call again.
const NO_SYSTEM_CALL: u64 = u64::MAX;

/// All registers of a guest that starts, or starts anew.
pub(crate) fn of(registers: &Registers) -> trace::Registers {
    trace::Registers {
        rax: registers.rax,
        rbx: registers.rbx,
        rcx: registers.rcx,
        rdx: registers.rdx,
        rsi: registers.rsi,
        rdi: registers.rdi,
        rbp: registers.rbp,
        rsp: registers.rsp,
        r8: registers.r8,
        r9: registers.r9,
        r10: registers.r10,
        r11: registers.r11,
        r12: registers.r12,
        r13: registers.r13,
        r14: registers.r14,
        r15: registers.r15,
        rip: registers.rip,
        eflags: registers.flags() | INTERRUPTS,
        orig_rax: NO_SYSTEM_CALL,
        cs: USER_CODE,
        ss: USER_DATA,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
        fs_base: registers.fs_base,
        gs_base: registers.gs_base,
    }
}

/// The opposite.
pub(crate) fn read(registers: &trace::Registers) -> Registers {
    Registers {
        rax: registers.rax,
        rbx: registers.rbx,
        rcx: registers.rcx,
        rdx: registers.rdx,
        rsi: registers.rsi,
        rdi: registers.rdi,
        rbp: registers.rbp,
        rsp: registers.rsp,
        r8: registers.r8,
        r9: registers.r9,
        r10: registers.r10,
        r11: registers.r11,
        r12: registers.r12,
        r13: registers.r13,
        r14: registers.r14,
        r15: registers.r15,
        rip: registers.rip,
        rflags: registers.eflags & USER_FLAGS | RESERVED_FLAG,
        fs_base: registers.fs_base,
        gs_base: registers.gs_base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        let registers =
            Registers { rax: 1, r15: 2, rip: 3, fs_base: 4, rflags: 0x12, ..Registers::default() };
        assert_eq!(read(&of(&registers)), registers);
    }
}
