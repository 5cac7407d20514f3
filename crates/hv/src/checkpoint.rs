//! A guest as it stood once, and the way back there.
//!
//! A [`Checkpoint`] is a copy of all private memory that exists and of the
//! registers. Going back copies only the pages that were written since.

use std::collections::BTreeMap;

use crate::{PageSet, Partition, Registers, RunError};

const PAGE: usize = cellule_mem::PAGE_BYTES;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// A partition's memory and registers at one moment.
///
/// The x87, MXCSR and vector registers are not in it (see [`Registers`]), nor is
/// late memory that was extended later taken away again: it is zeroed.
pub struct Checkpoint {
    registers: Registers,
    /// The pages that are not zero, by number.
    pages: BTreeMap<usize, Box<[u8; PAGE]>>,
}

/// What going back took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// How many pages were copied.
    pub pages: usize,
}

impl Checkpoint {
    /// Takes a checkpoint of a guest that may be [diverted](Partition::divert),
    /// and [tracks](Partition::track) it from now on.
    ///
    /// # Errors
    ///
    /// [`RunError`] as [`Partition::registers`] and [`Partition::track`].
    ///
    /// # Cost
    ///
    /// Reads all of private memory if it was not tracked before.
    pub fn take(partition: &mut dyn Partition) -> Result<Self, RunError> {
        let registers = partition.registers()?;
        partition.track()?;
        let mut pages = BTreeMap::new();
        let mut page = 0;
        let mut bytes = Box::new(ZEROS);
        while partition.memory().private_page(page, &mut bytes) {
            if *bytes != ZEROS {
                pages.insert(page, std::mem::replace(&mut bytes, Box::new(ZEROS)));
            }
            page += 1;
        }
        let mut written = PageSet::default();
        partition.dirty(&mut written)?;
        partition.rearm(&written)?;
        Ok(Self { registers, pages })
    }

    /// Brings the guest back to the checkpoint. It must have faulted, or be where
    /// it may be [diverted](Partition::divert).
    ///
    /// # Errors
    ///
    /// [`RunError`] if the hypervisor refuses; the guest must then not be run.
    ///
    /// # Cost
    ///
    /// One copy of each page that was written since, which stay writable, and
    /// what [`Partition::dirty`] costs.
    pub fn restore(&self, partition: &mut dyn Partition) -> Result<Restored, RunError> {
        let mut dirty = PageSet::default();
        partition.dirty(&mut dirty)?;
        let mut pages = 0;
        for page in dirty.iter() {
            let from = self.pages.get(&page).map_or(&ZEROS, |page| page);
            pages += usize::from(partition.memory().set_private_page(page, from));
        }
        partition.restart(&self.registers)?;
        Ok(Restored { pages })
    }

    /// The registers at the checkpoint.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pages = self.pages.len();
        f.debug_struct("Checkpoint")
            .field("rip", &self.registers.rip)
            .field("pages", &pages)
            .finish()
    }
}
