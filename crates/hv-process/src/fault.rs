//! What a signal means: which exception, at which address, on which access.
//!
//! Linux makes signals of exceptions (`arch/x86/kernel/traps.c`, `arch/x86/mm/fault.c`)
//! and keeps the error code to itself; the rest is in the signal's code and the
//! registers. Nothing here asks the system: the tests are tables.

use cellule_hv::exit::PAGE_FAULT;
use cellule_hv::{Access, AddressSpace, Fault, Gva, Protection};

use crate::instruction::Instruction;
use crate::trace::{Registers, Signal};

/// What came of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The guest did what it may not.
    Fault(Fault),
    /// Somebody sent the signal: it does not concern the guest.
    Foreign,
    /// The machine failed, through no fault of the guest's.
    Machine,
}

// The exceptions' numbers: Intel SDM volume 3, section 7.3.1.
const DIVIDE: u8 = 0;
const DEBUG: u8 = 1;
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const UNDEFINED: u8 = 6;
const STACK: u8 = 12;
const PROTECTION: u8 = 13;
const X87: u8 = 16;
const ALIGNMENT: u8 = 17;
const SIMD: u8 = 19;
const CONTROL: u8 = 21;

// The bits of a page fault's error code: SDM volume 3, section 5.7.
const PRESENT: u32 = 1 << 0;
const WRITE: u32 = 1 << 1;
const USER: u32 = 1 << 2;
const FETCH: u32 = 1 << 4;

// What a signal's code says: sigaction(2), and the kernel's `siginfo.h`.
const SI_KERNEL: i32 = 0x80;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SEGV_CPERR: i32 = 10;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const FPE_INTDIV: i32 = 1;
const FPE_INTOVF: i32 = 2;
const TRAP_BRKPT: i32 = 1;
const TRAP_TRACE: i32 = 2;
const TRAP_HWBKPT: i32 = 4;

/// The page that the kernel shows to every program, to call three ancient system
/// calls: `Documentation/arch/x86/x86_64/mm.rst`.
const VSYSCALL: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;

/// Where a guest stood when it stopped, and what it was about to do.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) space: &'a AddressSpace,
    pub(crate) registers: &'a Registers,
    pub(crate) instruction: &'a Instruction,
}

impl Scene<'_> {
    /// Tells what a signal means.
    pub(crate) fn meaning(&self, signal: Signal) -> Meaning {
        if !signal.is_fault() {
            return Meaning::Foreign;
        }
        let fault = match (signal.number, signal.code) {
            // Linux runs on after a jump there, and what it then says is of its own.
            (libc::SIGSYS, _) => self.vsyscall(signal.address),
            (libc::SIGSEGV, SI_KERNEL) if VSYSCALL.contains(&self.registers.rip) => {
                self.page_fault(self.registers.rip, SEGV_MAPERR)
            }
            (libc::SIGSEGV, SEGV_MAPERR | SEGV_ACCERR) => {
                self.page_fault(signal.address, signal.code)
            }
            (libc::SIGSEGV, SEGV_CPERR) => self.fault(CONTROL),
            (libc::SIGSEGV, _) => {
                let error_code = self.instruction.interrupt().map_or(0, gate);
                Fault { error_code, ..self.fault(PROTECTION) }
            }
            (libc::SIGBUS, BUS_ADRALN) => self.fault(ALIGNMENT),
            // Late memory: a file that does not go so far yet.
            (libc::SIGBUS, BUS_ADRERR) => self.page_fault(signal.address, SEGV_MAPERR),
            (libc::SIGBUS, SI_KERNEL) => self.fault(STACK),
            (libc::SIGBUS, _) => return Meaning::Machine,
            (libc::SIGFPE, FPE_INTDIV) => self.fault(DIVIDE),
            (libc::SIGFPE, FPE_INTOVF) => self.fault(OVERFLOW),
            (libc::SIGFPE, _) => self.fault(if self.instruction.is_x87() { X87 } else { SIMD }),
            (libc::SIGTRAP, TRAP_BRKPT | TRAP_TRACE | TRAP_HWBKPT) => self.fault(DEBUG),
            (libc::SIGTRAP, _) => self.fault(BREAKPOINT),
            _ => self.fault(UNDEFINED),
        };
        Meaning::Fault(fault)
    }

    /// Tells what an attempt to call the system means, from the two bytes before
    /// where it would go on: `syscall` is undefined for a guest, and `int 0x80` leads
    /// to a gate that is not for it.
    pub(crate) fn system_call(&self, before: [u8; 2]) -> Fault {
        let rip = Gva(self.registers.rip.wrapping_sub(2));
        match before {
            [0x0f, 0x05] => Fault { rip, ..self.fault(UNDEFINED) },
            [0xcd, 0x80] => Fault { rip, error_code: gate(0x80), ..self.fault(PROTECTION) },
            // `sysenter` says not where it came from.
            _ => self.fault(PROTECTION),
        }
    }

    fn fault(&self, vector: u8) -> Fault {
        let Registers { rip, rsp, .. } = *self.registers;
        Fault { vector, error_code: 0, address: None, rip: Gva(rip), rsp: Gva(rsp) }
    }

    fn page_fault(&self, address: u64, code: i32) -> Fault {
        let present = if code == SEGV_ACCERR { PRESENT } else { 0 };
        let access = self.access(address, present != 0);
        let error_code = USER | present | access;
        Fault { error_code, address: Some(Gva(address)), ..self.fault(PAGE_FAULT) }
    }

    /// What was tried there.
    fn access(&self, address: u64, present: bool) -> u32 {
        let protection = self.space.find(Gva(address)).map(|mapping| mapping.protection);
        let executable = present && protection == Some(Protection::ReadExecute);
        let in_instruction = address.wrapping_sub(self.registers.rip) < 15;
        if in_instruction && !executable && self.instruction.is_cut_short() {
            return FETCH;
        }
        // What may be read, and is there, was not refused to a reader.
        let readable = protection.is_some_and(|protection| protection.allows(Access::Read));
        let write = present && readable || self.instruction.writes(address, self.registers);
        if write { WRITE } else { 0 }
    }

    /// The kernel has gone on as if the call had returned; the address is that of the
    /// call.
    fn vsyscall(&self, address: u64) -> Fault {
        let rsp = Gva(self.registers.rsp.wrapping_sub(8));
        let (rip, error_code) = (Gva(address), USER | FETCH);
        Fault { rip, rsp, error_code, address: Some(rip), ..self.fault(PAGE_FAULT) }
    }
}

/// The error code that names a gate: SDM volume 3, section 7.13. Bit 1 is the IDT.
fn gate(interrupt: u8) -> u32 {
    u32::from(interrupt) << 3 | 0b10
}

#[cfg(test)]
mod tests;
