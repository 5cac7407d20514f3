//! What all partitions of one image and layout share.

use std::ops::Range;
use std::sync::Arc;

use cellule_hv::x86::{Control, PRIVATE_GPA, PRIVATE_RESERVED, SHARED_GPA};
use cellule_hv::{AddressSpace, CreateError, Partition, Plan, Registers, Template};
use cellule_mem::{MapError, PAGE_BYTES, Region, Sealed};
use kvm_bindings::{kvm_regs, kvm_sregs};

use crate::partition::KvmPartition;
use crate::{Device, registers};

/// Control pages, shared pages, and the registers to start with.
#[derive(Debug)]
pub(crate) struct KvmTemplate {
    pub(crate) device: Arc<Device>,
    pub(crate) space: Arc<AddressSpace>,
    /// Descriptors and shared pages: one slot, read-only.
    pub(crate) fixed: Arc<Region>,
    /// The offset of the shared pages in `fixed`.
    pub(crate) shared_start: usize,
    /// The page tables, right below [`PRIVATE_GPA`]: each partition maps them, copied
    /// when written, in front of its private memory and in one slot with it.
    pub(crate) page_tables: Vec<Sealed>,
    /// The length of the page tables.
    pub(crate) tables_len: usize,
    /// The length of a partition's private memory, the exception stack included.
    pub(crate) private_len: usize,
    /// How much of both is mapped from the start.
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
        let private = usize::try_from(plan.space.private_len()).unwrap_or(usize::MAX);
        let private_len = private.saturating_add(PRIVATE_RESERVED);
        let early = usize::try_from(plan.early_len).unwrap_or(usize::MAX);
        let early_len = early.saturating_add(PRIVATE_RESERVED).min(private_len);
        let tables = PRIVATE_GPA.saturating_sub(Control::tables_len(&plan.space, plan.early_len));
        for (len, limit) in
            [(plan.shared.len(), tables.saturating_sub(SHARED_GPA)), (private_len, PRIVATE_GPA)]
        {
            if len as u64 > limit {
                return Err(MapError::NotPages { len }.into());
            }
        }
        let control = Control::build(&plan.space, plan.early_len, tables);
        let descriptors = Sealed::new(&control.descriptors)?;
        let fixed = Region::read_only(&[&descriptors, &plan.shared])?;
        let tables_len = control.page_tables.len();
        Ok(Self {
            regs: registers::general(&Registers::start(plan.start)),
            sregs: registers::system(&control, &device.features),
            device,
            space: plan.space,
            fixed: Arc::new(fixed),
            shared_start: descriptors.len(),
            extended_root: control.extended_root,
            stubs: control.stubs.start.0..control.stubs.end.0,
            page_tables: sealed(&control.page_tables)?,
            tables_len,
            private_len,
            early_len: tables_len.saturating_add(early_len),
        })
    }
}

/// How many page tables are kept apart from the others. They are in the order in
/// which they were needed: an idle guest's walks want the first five or so, and the
/// kernel maps 16 pages around one that is read, but none of another part. Without
/// this an idle sandbox was said to take 108 KiB, of which 64 were tables that all
/// siblings share, most of them not in use.
const FIRST_TABLES: usize = 8;

fn sealed(page_tables: &[u8]) -> Result<Vec<Sealed>, MapError> {
    let middle = page_tables.len().min(FIRST_TABLES * PAGE_BYTES);
    let (first, others) = page_tables.split_at_checked(middle).unwrap_or((page_tables, &[]));
    let parts = [first, others].into_iter().filter(|part| !part.is_empty());
    parts.map(Sealed::new).collect()
}

impl Template for KvmTemplate {
    fn partition(&self) -> Result<Box<dyn Partition>, CreateError> {
        Ok(Box::new(KvmPartition::new(self)?))
    }
}
