//! A guest of one page that looks at what ring 3 really sees of the processor.
//!
//! Where a hypervisor runs ring 3 on the bare processor, what it says of the time
//! stamp counter and of XSAVE need not be so. So a backend has a guest look, once
//! in a process, before the first template is made or when somebody asks earlier.
//! It does so in a thread of its own, lest it uses up the signal of an alarm that
//! the asking thread has for another partition.

use std::io;
use std::sync::Arc;
use std::thread;

use cellule_mem::Sealed;

use crate::space::PAGE_BYTES;
use crate::{
    AddressSpace, Backing, CreateError, Exit, Gva, Mapping, Partition, Plan, Protection, RunError,
    Start,
};

/// What a guest saw, and the guest.
#[derive(Debug)]
pub struct Look<P> {
    /// What it read of its time stamp counter.
    pub tsc: Reading,
    /// What `xgetbv` shows of XCR0; `None` if there is no such instruction, or
    /// it is not switched on.
    pub xcr0: Option<u64>,
    /// The partition, which nobody runs again.
    pub partition: P,
}

/// A reading of the guest's time stamp counter between two of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The host's before the guest's.
    pub before: u64,
    /// The guest's.
    pub guest: u64,
    /// The host's after the guest's.
    pub after: u64,
}

impl Reading {
    /// Whether the guest's reading lies between the host's with an offset that
    /// the hypervisor believes in, or without; `None` if with neither.
    pub fn applies(&self, offset: i64) -> Option<bool> {
        let inside =
            |guest: u64| guest.wrapping_sub(self.before) <= self.after.wrapping_sub(self.before);
        let with_offset = self.guest.wrapping_sub(offset.cast_unsigned());
        // What a hypervisor believes is known with an error. Where it believes that
        // there is no offset, and there is none, it is better to say so.
        if inside(self.guest) { Some(false) } else { inside(with_offset).then_some(true) }
    }
}

/// `rdtsc; out 1, al`, and `xor ecx, ecx; xgetbv; out 1, al`.
const CODE: [u8; 11] = [0x0f, 0x31, 0xe6, 1, 0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xe6, 1];
const TEXT: u64 = 0x40_0000;
const SUPERVISOR: u64 = 0x41_0000;
/// The exception of an instruction that is not there, or not switched on
/// (CR4.OSXSAVE): SDM volume 2, XGETBV.
const UNDEFINED: u8 = 6;

/// Makes the guest and has it look. `counter` reads the host's time stamp counter.
///
/// # Errors
///
/// [`RunError`] if there can be no guest, or it does what none should.
///
/// # Cost
///
/// A thread and a VM.
pub fn look<P: Partition>(
    make: impl FnOnce(Plan) -> Result<P, CreateError> + Send,
    counter: fn() -> u64,
) -> Result<Look<P>, RunError> {
    let failed = |source| RunError { step: "start a thread for a guest that looks", source };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("cellule-probe".to_owned());
        let looking = thread.spawn_scoped(scope, || look_from_here(make, counter));
        let looked = looking.map_err(failed)?.join();
        looked.unwrap_or_else(|_| Err(failed(io::Error::other("the thread panicked"))))
    })
}

fn look_from_here<P: Partition>(
    make: impl FnOnce(Plan) -> Result<P, CreateError>,
    counter: fn() -> u64,
) -> Result<Look<P>, RunError> {
    let failed = |source| RunError { step: "make a guest that looks", source };
    let plan = plan().map_err(failed)?;
    let mut partition = make(plan).map_err(|error| failed(io::Error::other(error)))?;
    let before = counter();
    let guest = shown(&mut partition)?.ok_or_else(|| odd(io::ErrorKind::Unsupported.into()))?;
    let after = counter();
    let xcr0 = shown(&mut partition)?;
    Ok(Look { tsc: Reading { before, guest, after }, xcr0, partition })
}

/// What the guest has in EDX:EAX when it next rings; `None` if the instruction
/// that should have put it there is undefined.
fn shown(partition: &mut dyn Partition) -> Result<Option<u64>, RunError> {
    loop {
        match partition.run()? {
            Exit::Doorbell(_) => {
                let lost = || odd(io::Error::other("it rang while an exception was under way"));
                partition.position()?.ok_or_else(lost)?;
                let registers = partition.registers()?;
                return Ok(Some(registers.rdx << 32 | registers.rax));
            }
            Exit::Fault(fault) if fault.vector == UNDEFINED => return Ok(None),
            // A signal that somebody sent to this thread.
            Exit::Kicked => {}
            exit @ (Exit::Fault(_) | Exit::Unexpected(_)) => {
                return Err(odd(io::Error::other(format!("{exit:?}"))));
            }
        }
    }
}

fn odd(source: io::Error) -> RunError {
    RunError { step: "look at the processor in a guest", source }
}

/// A space with one page.
fn plan() -> io::Result<Plan> {
    let text = Mapping {
        name: "text",
        gva: Gva(TEXT),
        len: PAGE_BYTES,
        protection: Protection::ReadExecute,
        backing: Backing::Shared(0),
    };
    let space = AddressSpace::new(vec![text], Gva(SUPERVISOR)).map_err(io::Error::other)?;
    Ok(Plan {
        space: Arc::new(space),
        shared: Arc::new(Sealed::new(&CODE).map_err(io::Error::other)?),
        early_len: 0,
        start: Start { entry: Gva(TEXT), stack: Gva(TEXT), argument: Gva(0) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_applied_if_the_reading_fits_only_with_it() {
        const OFFSET: i64 = -1_000_000;
        let applies =
            |before, guest, after, offset| Reading { before, guest, after }.applies(offset);
        assert_eq!(applies(2_000_000, 2_000_500, 2_001_000, OFFSET), Some(false));
        assert_eq!(applies(2_000_000, 1_000_500, 2_001_000, OFFSET), Some(true));
        assert_eq!(applies(2_000_000, 1_500_000, 2_001_000, OFFSET), None);
        assert_eq!(applies(2_000_000, 2_000_500, 2_001_000, 400), Some(false), "both fit");
        assert_eq!(applies(500, 500_u64.wrapping_sub(1000), 700, -1000), Some(true), "wraps");
    }
}
