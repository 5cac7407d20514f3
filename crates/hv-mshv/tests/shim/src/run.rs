//! One run of a processor, and what it came to: MSHV_RUN_VP.
//!
//! KVM's emulator carries out what it tells of; MSHV's intercepts come before.
//! So whatever KVM has yet to finish is finished here, with nothing for an
//! answer, and then the registers are put back to what they were.

use kvm_bindings::{
    KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO,
    KVM_EXIT_SHUTDOWN, kvm_regs,
};

use crate::errno::{Errno, say};
use crate::instruction::{self, Instruction, LONGEST};
use crate::message::{self, Access, Message, Place, StringAccess};
use crate::paging;
use crate::partition::Partition;
use crate::processor::State;
use crate::run_page::PortAccess;

const FAILED: Errno = Errno(libc::EIO);
/// An access to memory comes in parts of eight bytes, the longest of 64.
const PARTS: u32 = 8;
const DIRECTION_FLAG: u64 = 1 << 10;

/// A message that comes again until something is changed.
#[derive(Debug)]
pub(crate) struct Standing {
    message: Message,
    rip: u64,
    memory_changes: u64,
}

impl State {
    /// Runs the guest until there is a message, or a signal.
    pub(crate) fn run(&mut self, partition: &Partition) -> Result<Message, Errno> {
        if let Some(message) = self.standing(partition) {
            return Ok(message);
        }
        self.registers.explicit_suspend = false;
        self.registers.intercept_suspend = false;
        let result = self.registers.run(&mut self.page, false);
        if result.is_err() && !self.is_memory_fault(result) {
            self.registers.explicit_suspend = true;
            return Err(result.err().unwrap_or(FAILED));
        }
        let message = match self.page.reason() {
            KVM_EXIT_IO => self.port(partition),
            KVM_EXIT_MMIO => self.memory(partition),
            KVM_EXIT_MEMORY_FAULT => {
                let gpa = self.page.fault_address();
                self.place(0, |place| message::memory(place, Access::Write, gpa, true))
            }
            KVM_EXIT_HLT => self.place(0, message::halt),
            KVM_EXIT_SHUTDOWN => self.place(0, message::unrecoverable),
            reason => self.other(partition, reason),
        }?;
        self.registers.intercept_suspend = true;
        Ok(message)
    }

    fn is_memory_fault(&self, result: Result<(), Errno>) -> bool {
        result == Err(Errno(libc::EFAULT)) && self.page.reason() == KVM_EXIT_MEMORY_FAULT
    }

    /// The last message, if nothing was done about it.
    fn standing(&mut self, partition: &Partition) -> Option<Message> {
        let standing = self.standing.take()?;
        let rip = self.registers.general().ok()?.rip;
        if (rip, partition.memory_changes()) != (standing.rip, standing.memory_changes) {
            return None;
        }
        let message = standing.message;
        self.standing = Some(standing);
        Some(message)
    }

    /// Says where the processor stands, to what makes a message of it.
    fn place(
        &mut self,
        len: u8,
        make: impl FnOnce(&Place<'_>) -> Message,
    ) -> Result<Message, Errno> {
        let general = *self.registers.general().map_err(|_| FAILED)?;
        let system = *self.registers.system().map_err(|_| FAILED)?;
        let events = *self.registers.events().map_err(|_| FAILED)?;
        let (general, system, events) = (&general, &system, &events);
        Ok(make(&Place { index: self.index, general, system, events, len }))
    }

    fn general(&mut self) -> Result<kvm_regs, Errno> {
        self.registers.general().copied().map_err(|_| FAILED)
    }

    /// Lets KVM finish, and returns where RIP is then.
    fn finish(&mut self) -> Result<u64, Errno> {
        for _ in 0..PARTS {
            match self.registers.run(&mut self.page, true) {
                Err(Errno(libc::EINTR)) => return Ok(self.general()?.rip),
                Ok(()) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(FAILED)
    }

    fn port(&mut self, partition: &Partition) -> Result<Message, Errno> {
        let access = self.page.port_access();
        let at = self.general()?;
        let behind = self.finish()?;
        let found = self.instruction(partition, access, at.rip, behind)?;
        let (start, instruction) = found.unwrap_or_else(|| {
            say("the instruction was not recognised that used port", u64::from(access.port));
            let string = StringAccess::default();
            (at.rip, Instruction { len: 0, string })
        });
        *self.registers.change_general().map_err(|_| FAILED)? =
            before(kvm_regs { rip: start, ..at }, access, instruction.string);
        self.place(instruction.len, |place| message::port(place, access, instruction.string))
    }

    /// The instruction that used a port, and where it is. RIP was `at` when KVM
    /// stopped, and is `behind` now that it has finished.
    fn instruction(
        &mut self,
        partition: &Partition,
        access: PortAccess,
        at: u64,
        behind: u64,
    ) -> Result<Option<(u64, Instruction)>, Errno> {
        let mut code = [0; LONGEST];
        let len = behind.wrapping_sub(at);
        // An `in`, and where the processor helps with an `out`, too.
        if let (1..=15, Ok(len)) = (len, u8::try_from(len)) {
            let count = self.code(partition, at, &mut code);
            let begun = code.get(..count).and_then(|code| instruction::begins(code, access));
            let string = begun.map_or_else(StringAccess::default, |begun| begun.string);
            return Ok(Some((at, Instruction { len, string })));
        }
        let system = self.registers.system().map_err(|_| FAILED)?;
        let is_16 = system.cs.l == 0 && system.cs.db == 0;
        // Where the page before is not there, the instruction is shorter.
        for count in (1..=LONGEST).rev() {
            let Some(code) = code.get_mut(..count) else { continue };
            let start = at.wrapping_sub(u64::try_from(count).unwrap_or(0));
            if self.code(partition, start, code) == count {
                if let Some(found) = instruction::ends(code, access, is_16) {
                    return Ok(Some((at.wrapping_sub(u64::from(found.len)), found)));
                }
                break;
            }
        }
        // A repeated one that has more to do is not stepped over.
        let count = self.code(partition, at, &mut code);
        let begun = code.get(..count).and_then(|code| instruction::begins(code, access));
        Ok(begun.filter(|begun| begun.string.is_repeated).map(|begun| (at, begun)))
    }

    /// Copies code from behind RIP; returns how much there is.
    fn code(&mut self, partition: &Partition, rip: u64, bytes: &mut [u8]) -> usize {
        let base = self.registers.system().map_or(0, |system| system.cs.base);
        let mut count = 0;
        let mut page = None;
        for (byte, offset) in bytes.iter_mut().zip(0..) {
            let linear = base.wrapping_add(rip).wrapping_add(offset);
            if page.is_none_or(|(number, _)| number != linear / 4096) {
                page = self.translate(partition, linear).map(|gpa| (linear / 4096, gpa & !4095));
            }
            let Some((_, gpa)) = page else { break };
            if partition.read(gpa | linear & 4095, std::slice::from_mut(byte)).is_none() {
                break;
            }
            count += 1;
        }
        count
    }

    /// The guest physical address of a linear one.
    pub(crate) fn translate(&mut self, partition: &Partition, linear: u64) -> Option<u64> {
        let system = self.registers.system().ok()?;
        paging::translate(self.vcpu, system, partition, linear)
    }

    fn memory(&mut self, partition: &Partition) -> Result<Message, Errno> {
        let (gpa, is_write) = self.page.memory_access();
        let is_mapped = partition.is_mapped(gpa);
        let at = self.general()?;
        let vector = *self.registers.vector().map_err(|_| FAILED)?;
        let behind = self.finish()?;
        if is_write {
            // It is done, and nobody knows where it began.
            let make = |place: &Place<'_>| message::memory(place, Access::Write, gpa, is_mapped);
            let message = self.place(0, make)?;
            let memory_changes = partition.memory_changes();
            self.standing = Some(Standing { message, rip: behind, memory_changes });
            return Ok(message);
        }
        *self.registers.change_general().map_err(|_| FAILED)? = at;
        *self.registers.change_vector().map_err(|_| FAILED)? = vector;
        self.registers.flush(&[]).map_err(|_| FAILED)?;
        let len = u8::try_from(behind.wrapping_sub(at.rip)).unwrap_or(0);
        let len = if len <= 15 { len } else { 0 };
        self.place(len, |place| message::memory(place, Access::Read, gpa, is_mapped))
    }

    /// Where no code is, KVM's emulator fails; MSHV says that no memory is.
    fn other(&mut self, partition: &Partition, reason: u32) -> Result<Message, Errno> {
        let base = self.registers.system().map_err(|_| FAILED)?.cs.base;
        let linear = base.wrapping_add(self.general()?.rip);
        let gpa = self.translate(partition, linear).filter(|gpa| !partition.is_mapped(*gpa));
        match gpa {
            Some(gpa) if reason == KVM_EXIT_INTERNAL_ERROR => {
                self.place(0, |place| message::memory(place, Access::Execute, gpa, false))
            }
            _ => {
                say("KVM stopped for what MSHV has no message for, reason", u64::from(reason));
                say("and its first detail was", u64::from(self.page.detail()));
                self.place(0, message::unrecoverable)
            }
        }
    }
}

/// The registers before one step of a string instruction that wrote: KVM has
/// moved on by then. One that reads has yet to.
fn before(regs: kvm_regs, access: PortAccess, string: StringAccess) -> kvm_regs {
    if !string.is_string || !access.is_out {
        return regs;
    }
    let count = u64::from(access.count);
    let moved = u64::from(access.size) * count;
    let rsi = if regs.rflags & DIRECTION_FLAG != 0 {
        regs.rsi.wrapping_add(moved)
    } else {
        regs.rsi.wrapping_sub(moved)
    };
    let rcx = if string.is_repeated { regs.rcx.wrapping_add(count) } else { regs.rcx };
    kvm_regs { rsi, rcx, ..regs }
}
