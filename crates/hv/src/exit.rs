//! Why a partition stopped.

use std::fmt;

use crate::space::Gva;

/// Why [`crate::Partition::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest wrote this byte to the doorbell; it goes on behind the `out`.
    Doorbell(u8),
    /// The guest did what ring 3 may not; it cannot go on.
    Fault(Fault),
    /// A kick or an alarm stopped the guest between two instructions.
    Kicked,
    /// The vCPU stopped in a way that no guest of ours should reach.
    Unexpected(Unexpected),
}

/// A processor exception in ring 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The exception's number: Intel SDM volume 3, section 7.3.1.
    pub vector: u8,
    /// The error code, zero for exceptions that have none.
    pub error_code: u32,
    /// For a page fault: the address that was accessed.
    pub address: Option<Gva>,
    /// The instruction.
    pub rip: Gva,
    /// The stack pointer.
    pub rsp: Gva,
}

/// A stop that is neither a doorbell nor an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected {
    /// What the backend saw, in plain words.
    pub what: &'static str,
    /// A number that goes with it (a port, an address, a reason), or zero.
    pub detail: u64,
}

/// The page-fault exception.
pub const PAGE_FAULT: u8 = 14;

impl Fault {
    /// The exception's short name: `#PF`.
    pub fn mnemonic(&self) -> &'static str {
        match self.vector {
            0 => "#DE",
            1 => "#DB",
            2 => "NMI",
            3 => "#BP",
            4 => "#OF",
            5 => "#BR",
            6 => "#UD",
            7 => "#NM",
            8 => "#DF",
            10 => "#TS",
            11 => "#NP",
            12 => "#SS",
            13 => "#GP",
            PAGE_FAULT => "#PF",
            16 => "#MF",
            17 => "#AC",
            18 => "#MC",
            19 => "#XM",
            20 => "#VE",
            21 => "#CP",
            _ => "exception",
        }
    }

    /// What the guest was doing, for a page fault: the error code in words.
    pub fn attempt(&self) -> &'static str {
        // SDM volume 3, section 5.7: bit 1 is a write, bit 4 an instruction fetch.
        match (self.vector, self.error_code & 0b10 != 0, self.error_code & 0b1_0000 != 0) {
            (PAGE_FAULT, _, true) => "execute",
            (PAGE_FAULT, true, false) => "write",
            (PAGE_FAULT, false, false) => "read",
            _ => "run",
        }
    }
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.what, self.detail)
    }
}

/// Whether the processor pushes an error code for this exception.
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}
