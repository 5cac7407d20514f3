//! The registers of ring 3, in the processor's words rather than a backend's.

use crate::{Gva, Start};

/// The general registers of a guest between two instructions, with what else of
/// the processor compiled code depends on.
///
/// The x87, MXCSR and vector registers are not here: a guest saves them itself
/// ([`Caps::vector_state`](crate::Caps::vector_state) says which there are).
/// Segment selectors are always those of a new guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "they are the processor's names: SDM volume 1, section 3.4")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    /// Of these only [`USER_FLAGS`] are the guest's.
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// The flags that ring 3 can change: CF, PF, AF, ZF, SF, TF, DF, OF, NT, AC and
/// ID (SDM volume 1, section 3.4.3).
pub const USER_FLAGS: u64 = 0x24_4dd5;
/// The flag that is always set.
pub const RESERVED_FLAG: u64 = 1 << 1;

impl Registers {
    /// Those of a new guest: all but `start`'s are zero, the flags clear.
    pub fn start(start: Start) -> Self {
        let Start { entry: Gva(rip), stack: Gva(rsp), argument: Gva(rdi) } = start;
        Self { rip, rsp, rdi, rflags: RESERVED_FLAG, ..Self::default() }
    }

    /// The flags as a backend may load them: the guest's, and the one that is always set.
    pub fn flags(&self) -> u64 {
        self.rflags & USER_FLAGS | RESERVED_FLAG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_of_the_supervisor_s_comes_from_registers() {
        const IF: u64 = 1 << 9;
        const IOPL: u64 = 3 << 12;
        const VM: u64 = 1 << 17;
        let registers = Registers { rflags: u64::MAX, ..Registers::default() };
        assert_eq!(registers.flags() & (IF | IOPL | VM), 0);
        assert_eq!(Registers::default().flags(), RESERVED_FLAG);
    }
}
