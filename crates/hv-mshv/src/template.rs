//! What all partitions of one image and layout share.
//!
//! Its pages are ordinary memory of this process, written once. Sealed pages
//! would not do, though no guest may write them: the kernel pins whatever is
//! mapped as if it were to be written, and so refuses what this process cannot
//! write (`FOLL_WRITE` in Linux, drivers/hv/mshv_root_main.c). All partitions
//! map the same pages; those of another template are its own.

use std::ops::Range;
use std::sync::Arc;

use cellule_hv::x86::{Control, PRIVATE_GPA, PRIVATE_RESERVED, SHARED_GPA};
use cellule_hv::{AddressSpace, CreateError, Partition, Plan, Position, Registers, Template};
use cellule_mem::{MapError, Region};
use mshv_bindings::hv_register_assoc;

use crate::layout::{self, Piece};
use crate::partition::MshvPartition;
use crate::{Device, registers};

/// Control pages, shared pages, and the registers to start with.
pub(crate) struct MshvTemplate {
    pub(crate) device: Arc<Device>,
    pub(crate) space: Arc<AddressSpace>,
    /// Descriptors, shared pages, page tables.
    pub(crate) fixed: Arc<Region>,
    /// What a guest may do with which part of `fixed`.
    pub(crate) pieces: Vec<Piece>,
    /// The offset of the shared pages in `fixed`.
    pub(crate) shared_start: usize,
    /// The length of a partition's private memory, the exception stack included.
    pub(crate) private_len: usize,
    /// How much of that is mapped from the start.
    pub(crate) early_len: usize,
    /// What a new vCPU is told.
    pub(crate) first: Vec<hv_register_assoc>,
    /// Where it then stands.
    pub(crate) start: Position,
    /// The root of the page tables with late memory.
    pub(crate) extended_root: u64,
    /// Guest virtual addresses of the exception stubs.
    pub(crate) stubs: Range<u64>,
}

impl MshvTemplate {
    pub(crate) fn new(device: Arc<Device>, plan: Plan) -> Result<Self, CreateError> {
        let shared_len = plan.shared.len();
        let tables = SHARED_GPA.saturating_add(shared_len as u64);
        let control = Control::build(&plan.space, plan.early_len, tables);
        let private = usize::try_from(plan.space.private_len()).unwrap_or(usize::MAX);
        let private_len = private.saturating_add(PRIVATE_RESERVED);
        let early = usize::try_from(plan.early_len).unwrap_or(usize::MAX);
        let fixed = fixed(&control, &plan)?;
        for len in [fixed.len(), private_len] {
            if len as u64 > PRIVATE_GPA {
                return Err(MapError::NotPages { len }.into());
            }
        }
        Ok(Self {
            pieces: layout::fixed(&plan.space, &control, shared_len),
            first: registers::first(&control, &device.features, &Registers::start(plan.start)),
            start: Position { rip: plan.start.entry, rsp: plan.start.stack },
            device,
            space: plan.space,
            fixed: Arc::new(fixed),
            shared_start: control.descriptors.len(),
            private_len,
            early_len: early.saturating_add(PRIVATE_RESERVED).min(private_len),
            extended_root: control.extended_root,
            stubs: control.stubs.start.0..control.stubs.end.0,
        })
    }
}

/// Copies descriptors, shared pages and page tables behind each other.
fn fixed(control: &Control, plan: &Plan) -> Result<Region, CreateError> {
    let refused = |error| CreateError::Refused {
        step: "copy shared pages",
        source: std::io::Error::other(error),
    };
    let sealed = Region::read_only(&[&plan.shared])?;
    let shared = sealed.read_vec(0, sealed.len()).map_err(refused)?;
    let parts = [&control.descriptors, &shared, &control.page_tables];
    let region = Region::demand_zero(parts.iter().map(|part| part.len()).sum())?;
    let mut offset = 0;
    for part in parts {
        region.write(offset, part).map_err(refused)?;
        offset += part.len();
    }
    Ok(region)
}

impl Template for MshvTemplate {
    fn partition(&self) -> Result<Box<dyn Partition>, CreateError> {
        Ok(Box::new(MshvPartition::new(self)?))
    }
}

/// Without the registers, which the bindings cannot show.
impl std::fmt::Debug for MshvTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MshvTemplate")
            .field("space", &self.space)
            .field("pieces", &self.pieces)
            .field("private_len", &self.private_len)
            .field("early_len", &self.early_len)
            .finish_non_exhaustive()
    }
}
