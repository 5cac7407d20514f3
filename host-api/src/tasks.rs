//! What a guest's task block says, and what the host writes there.
//!
//! The block is copied out once at each stop that needs it, and the copy is used.
//! A guest that lies in it hurts only itself.

use std::mem::offset_of;

use cellule_abi::page::TASKS_GVA_OFFSET;
use cellule_abi::tasks::{NEVER, RED_ZONE_BYTES, TaskBlock};
use cellule_hv::exit::PAGE_FAULT;
use cellule_hv::{Access, Fault, GuestSlice, Gva, Memory, Position};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::{CallError, GuestFault};
use crate::exchange::page_lost;
use crate::page::ChannelPage;

/// What an upcall leaves below the stack pointer and takes for the return address.
const UPCALL_BYTES: u64 = RED_ZONE_BYTES + 8;
/// The first address that no guest can have, and far below the first that the
/// processor does not take for one.
const LIMIT: Gva = Gva(cellule_hv::space::LIMIT);
const BLOCK_BYTES: u64 = size_of::<TaskBlock>() as u64;

/// A copy of a guest's task block, from memory that the guest may write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuestTasks {
    gva: Gva,
    block: TaskBlock,
}

/// What a guest's deadlines come to at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Whether one has passed.
    pub(crate) passed: bool,
    /// The earliest that has not; [`NEVER`] if there is none.
    pub(crate) next_ns: u64,
}

impl GuestTasks {
    /// Copies the block out, if the guest has published one.
    pub(crate) fn read(page: ChannelPage<'_>) -> Result<Option<Self>, CallError> {
        let gva = Gva(page.load_u64(TASKS_GVA_OFFSET).map_err(page_lost)?);
        if gva.0 == 0 {
            return Ok(None);
        }
        let bad = || GuestFault::BadTaskBlock { gva };
        let slice = GuestSlice { gva, len: BLOCK_BYTES };
        let own = page.memory.space().resolve(slice, Access::Write).is_some();
        if !own || !gva.0.is_multiple_of(64) {
            return Err(bad().into());
        }
        let mut block = TaskBlock::new_zeroed();
        page.memory.copy_into(gva, block.as_mut_bytes()).map_err(|_| bad())?;
        Ok(Some(Self { gva, block }))
    }

    pub(crate) fn block(&self) -> &TaskBlock {
        &self.block
    }

    /// Whether the guest may be diverted now.
    pub(crate) fn is_masked(&self) -> bool {
        self.block.mask != 0
    }

    /// Whether it was left word that it has not looked at.
    pub(crate) fn is_pending(&self) -> bool {
        self.block.pending != 0
    }

    /// Whether it wants to be told of anything at a time.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.block.deadline_ns.min(self.block.following_ns) != NEVER
    }

    pub(crate) fn deadlines(&self, now_ns: u64) -> Deadlines {
        let both = [self.block.deadline_ns, self.block.following_ns];
        Deadlines {
            passed: both.iter().any(|deadline| *deadline <= now_ns),
            next_ns: both.into_iter().filter(|at| *at > now_ns).min().unwrap_or(NEVER),
        }
    }

    /// Writes which deadline is armed, if the guest does not know.
    pub(crate) fn tell_armed(&self, memory: &Memory, ns: u64) -> Result<(), GuestFault> {
        match self.block.armed_ns == ns {
            true => Ok(()),
            false => self.write(memory, offset_of!(TaskBlock, armed_ns), &ns.to_le_bytes()),
        }
    }

    /// Leaves word that the guest would have been diverted.
    pub(crate) fn tell_pending(&self, memory: &Memory) -> Result<(), GuestFault> {
        self.write(memory, offset_of!(TaskBlock, pending), &1_u32.to_le_bytes())
    }

    /// Sets the mask, as the guest is about to be diverted.
    pub(crate) fn set_mask(&self, memory: &Memory) -> Result<(), GuestFault> {
        self.write(memory, offset_of!(TaskBlock, mask), &1_u32.to_le_bytes())
    }

    /// Tells the guest what a task did.
    pub(crate) fn tell_fault(&self, memory: &Memory, fault: &Fault) -> Result<(), GuestFault> {
        let told = TaskBlock {
            fault_vector: u32::from(fault.vector),
            fault_code: fault.error_code,
            fault_address: fault.address.map_or(0, |Gva(address)| address),
            fault_rip: fault.rip.0,
            ..self.block
        };
        let words = offset_of!(TaskBlock, fault_vector)..offset_of!(TaskBlock, task);
        let bytes = told.as_bytes().get(words.clone()).unwrap_or_default();
        self.write(memory, words.start, bytes)
    }

    /// Where an upcall begins; `None` if the guest wants none.
    pub(crate) fn upcall_entry(&self) -> Result<Option<Gva>, GuestFault> {
        match self.block.upcall_entry {
            0 => Ok(None),
            entry => below_limit("upcall entry", entry).map(Some),
        }
    }

    /// Entry and stack for a task's fault; `None` if the guest cannot handle one now.
    pub(crate) fn fault_entry(&self) -> Result<Option<(Gva, Gva)>, GuestFault> {
        if self.is_masked() || self.block.fault_entry == 0 {
            return Ok(None);
        }
        let entry = below_limit("fault entry", self.block.fault_entry)?;
        let stack = below_limit("top of the fault stack", self.block.fault_stack)?;
        Ok(Some((entry, stack)))
    }

    fn write(&self, memory: &Memory, offset: usize, bytes: &[u8]) -> Result<(), GuestFault> {
        let bad = |_| GuestFault::BadTaskBlock { gva: self.gva };
        memory.copy_in(Gva(self.gva.0 + offset as u64), bytes).map_err(bad)
    }
}

fn below_limit(field: &'static str, gva: u64) -> Result<Gva, GuestFault> {
    match Gva(gva) {
        gva if gva < LIMIT => Ok(gva),
        gva => Err(GuestFault::BadTarget { field, gva, limit: LIMIT }),
    }
}

/// Writes where an upcall is to return to, and returns the stack pointer for it:
/// what the processor would do at a call, below the red zone.
///
/// # Errors
///
/// The fault that the guest would have caused.
pub(crate) fn push_return(memory: &Memory, at: Position) -> Result<Gva, Fault> {
    /// A write, by ring 3, of a page that is not there: SDM volume 3, section 5.7.
    const WRITE_OF_NOTHING: u32 = 0b110;
    let to = Gva(at.rsp.0.wrapping_sub(UPCALL_BYTES));
    memory.copy_in(to, &at.rip.0.to_le_bytes()).map_err(|_| Fault {
        vector: PAGE_FAULT,
        error_code: WRITE_OF_NOTHING,
        address: Some(to),
        rip: at.rip,
        rsp: at.rsp,
    })?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(deadline_ns: u64, following_ns: u64) -> GuestTasks {
        let block = TaskBlock { deadline_ns, following_ns, ..TaskBlock::NEW };
        GuestTasks { gva: Gva(0x1000), block }
    }

    #[test]
    fn the_earliest_deadline_that_has_not_passed_is_next() {
        let cases = [
            ((100, 200), 50, (false, 100)),
            ((100, 200), 100, (true, 200)),
            ((100, 200), 300, (true, NEVER)),
            // Deadlines need not be in order.
            ((200, 100), 50, (false, 100)),
            ((200, 100), 150, (true, 200)),
            ((0, 0), 0, (true, NEVER)),
            ((NEVER, NEVER), u64::MAX - 1, (false, NEVER)),
        ];
        for ((deadline, following), now, (passed, next_ns)) in cases {
            let found = tasks(deadline, following).deadlines(now);
            assert_eq!(found, Deadlines { passed, next_ns }, "{deadline}, {following} at {now}");
        }
    }

    #[test]
    fn a_target_that_no_guest_has_is_refused_by_name() {
        let mut tasks = tasks(NEVER, NEVER);
        tasks.block.mask = 0;
        for entry in [1 << 36, 1 << 47, u64::MAX] {
            tasks.block.upcall_entry = entry;
            let text = tasks.upcall_entry().unwrap_err().to_string();
            assert!(text.starts_with("wants to go on at the upcall entry 0x"), "{text}");
            tasks.block.fault_entry = entry;
            assert!(tasks.fault_entry().unwrap_err().to_string().contains("fault entry"));
        }
        tasks.block.mask = 7;
        assert_eq!(tasks.fault_entry(), Ok(None), "masked");
    }
}
