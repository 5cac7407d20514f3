//! What ring 3 really sees of the processor, where KVM's word is not enough.
//!
//! Where KVM runs ring 3 on the bare processor (`kvm_pvm`), what it says of the
//! time stamp counter and of XSAVE need not be so: `clock.rs` and
//! `registers.rs` say what was found. So a guest of one page looks, once for
//! each opened device: before the first template is made, or when somebody asks
//! earlier. It does so in a thread of its own, lest it uses up the signal of an
//! alarm that the asking thread has for another partition.

use std::io;
use std::sync::Arc;
use std::thread;

use cellule_hv::space::PAGE_BYTES;
use cellule_hv::{
    AddressSpace, Backing, Exit, Gva, Mapping, Partition, Plan, Protection, RunError, Start,
};
use cellule_mem::Sealed;

use crate::Device;
use crate::clock::{self, Tsc};
use crate::partition::KvmPartition;
use crate::template::KvmTemplate;

/// What all guests of a device see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// `None` if nobody can tell what the time stamp counter shows.
    pub(crate) tsc: Option<Tsc>,
    /// What `xgetbv` shows of XCR0; `None` if there is no such instruction.
    pub(crate) xcr0: Option<u64>,
}

/// `rdtsc; out 1, al`, and `xor ecx, ecx; xgetbv; out 1, al`.
const CODE: [u8; 11] = [0x0f, 0x31, 0xe6, 1, 0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xe6, 1];
const TEXT: u64 = 0x40_0000;
const SUPERVISOR: u64 = 0x41_0000;
/// The exception of an instruction that is not there, or not switched on
/// (CR4.OSXSAVE): SDM volume 2, XGETBV.
const UNDEFINED: u8 = 6;

/// Makes the guest and has it look.
///
/// # Errors
///
/// [`RunError`] if there can be no guest, or it does what none should.
///
/// # Cost
///
/// A thread and a VM: 1.8 ms on the build machines.
pub(crate) fn look(device: &Arc<Device>) -> Result<Sight, RunError> {
    let failed = |source| RunError { step: "start a thread for a guest that looks", source };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("cellule-probe".to_owned());
        let looking = thread.spawn_scoped(scope, || look_from_here(device)).map_err(failed)?;
        looking.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread panicked"))))
    })
}

fn look_from_here(device: &Arc<Device>) -> Result<Sight, RunError> {
    let mut partition = observer(device)?;
    let before = clock::host_tsc();
    let guest = shown(&mut partition)?.ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
    let after = clock::host_tsc();
    let tsc = recognise(&mut partition, (before, guest, after)).ok().flatten();
    Ok(Sight { tsc, xcr0: shown(&mut partition)? })
}

/// Tells what the counter shows, from readings of the host's before the guest's
/// and after it.
fn recognise(
    partition: &mut KvmPartition,
    (before, guest, after): (u64, u64, u64),
) -> Result<Option<Tsc>, RunError> {
    let offset = partition.believed_tsc_offset()?;
    let khz = partition.tsc_khz()?;
    let applies_offset = clock::classify(before, guest, after, offset);
    Ok(applies_offset.map(|applies_offset| Tsc { khz, applies_offset }))
}

/// What the guest has in EDX:EAX when it next rings; `None` if the instruction
/// that should have put it there is undefined.
fn shown(partition: &mut KvmPartition) -> Result<Option<u64>, RunError> {
    loop {
        match partition.run()? {
            Exit::Doorbell(_) => {
                let registers = partition.general();
                return Ok(Some(registers.rdx << 32 | registers.rax));
            }
            Exit::Fault(fault) if fault.vector == UNDEFINED => return Ok(None),
            // A signal that somebody sent to this thread.
            Exit::Kicked => {}
            exit @ (Exit::Fault(_) | Exit::Unexpected(_)) => {
                return Err(failed(io::Error::other(format!("{exit:?}"))));
            }
        }
    }
}

fn failed(source: io::Error) -> RunError {
    RunError { step: "look at the processor in a guest", source }
}

/// A partition with one page.
fn observer(device: &Arc<Device>) -> Result<KvmPartition, RunError> {
    let failed = |source: io::Error| RunError { step: "make a guest that looks", source };
    let text = Mapping {
        name: "text",
        gva: Gva(TEXT),
        len: PAGE_BYTES,
        protection: Protection::ReadExecute,
        backing: Backing::Shared(0),
    };
    let space = AddressSpace::new(vec![text], Gva(SUPERVISOR)).map_err(io::Error::other);
    let shared = Sealed::new(&CODE).map_err(io::Error::other).map_err(failed)?;
    let plan = Plan {
        space: Arc::new(space.map_err(failed)?),
        shared: Arc::new(shared),
        early_len: 0,
        start: Start { entry: Gva(TEXT), stack: Gva(TEXT), argument: Gva(0) },
    };
    let template = KvmTemplate::new(Arc::clone(device), plan);
    let template = template.map_err(io::Error::other).map_err(failed)?;
    KvmPartition::new(&template).map_err(io::Error::other).map_err(failed)
}
