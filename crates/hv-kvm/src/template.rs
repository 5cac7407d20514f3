//! What all partitions of one image and layout share.

use std::ops::Range;
use std::sync::Arc;

use cellule_hv::x86::{Control, PRIVATE_GPA, PRIVATE_RESERVED};
use cellule_hv::{AddressSpace, CreateError, Partition, Plan, Registers, Template};
use cellule_mem::{MapError, Region, Sealed};
use kvm_bindings::{kvm_regs, kvm_sregs};

use crate::partition::KvmPartition;
use crate::{Device, registers};

/// Control pages, shared pages, and the registers to start with.
#[derive(Debug)]
pub(crate) struct KvmTemplate {
    pub(crate) device: Arc<Device>,
    pub(crate) space: Arc<AddressSpace>,
    /// Descriptors, shared pages, page tables: one slot.
    pub(crate) fixed: Arc<Region>,
    /// The offset of the shared pages in `fixed`.
    pub(crate) shared_start: usize,
    /// The length of a partition's private memory, the exception stack included.
    pub(crate) private_len: usize,
    /// How much of that is mapped from the start.
    pub(crate) early_len: usize,
    pub(crate) regs: kvm_regs,
    pub(crate) sregs: kvm_sregs,
    /// The root of the page tables with late memory.
    pub(crate) extended_root: u64,
    /// Guest virtual addresses of the exception stubs.
    pub(crate) stubs: Range<u64>,
}

impl KvmTemplate {
    pub(crate) fn new(device: Arc<Device>, plan: Plan) -> Result<Self, CreateError> {
        let control = Control::build(&plan.space, plan.early_len, plan.shared.len() as u64);
        let descriptors = Sealed::new(&control.descriptors)?;
        let page_tables = Sealed::new(&control.page_tables)?;
        let fixed = Region::read_only(&[&descriptors, &plan.shared, &page_tables])?;
        let private = usize::try_from(plan.space.private_len()).unwrap_or(usize::MAX);
        let private_len = private.saturating_add(PRIVATE_RESERVED);
        let early = usize::try_from(plan.early_len).unwrap_or(usize::MAX);
        let early_len = early.saturating_add(PRIVATE_RESERVED).min(private_len);
        for len in [fixed.len(), private_len] {
            if len as u64 > PRIVATE_GPA {
                return Err(MapError::NotPages { len }.into());
            }
        }
        Ok(Self {
            regs: registers::general(&Registers::start(plan.start)),
            sregs: registers::system(&control, &device.features),
            device,
            space: plan.space,
            fixed: Arc::new(fixed),
            shared_start: descriptors.len(),
            extended_root: control.extended_root,
            stubs: control.stubs.start.0..control.stubs.end.0,
            private_len,
            early_len,
        })
    }
}

impl Template for KvmTemplate {
    fn partition(&self) -> Result<Box<dyn Partition>, CreateError> {
        Ok(Box::new(KvmPartition::new(self)?))
    }
}
