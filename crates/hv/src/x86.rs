//! The supervisor pages of an x86-64 partition, as bytes.
//!
//! Page tables, GDT, IDT, TSS and exception stubs are computed here, before
//! the first instruction, and never change: the accessed and dirty bits are
//! set already, so the processor has no reason to write to them. Many VMs can
//! share the physical pages.
//!
//! ```text
//!  guest virtual                     guest physical
//!  supervisor + 0 tables  R--  <---  CONTROL_GPA + 0    GDT, TSS, IDT
//!  supervisor + 1 stubs   R-X  <---  CONTROL_GPA + 1    32 exception stubs
//!  Backing::Shared(n)          <---  SHARED_GPA + n
//!  (not mapped)                      where the backend says: page tables, twice
//!  supervisor + 2 stack   RW-  <---  PRIVATE_GPA + 0    exception frames
//!  Backing::Private(n)         <---  PRIVATE_GPA + 1 page + n
//! ```
//!
//! There are two sets of page tables: at first, late memory is not mapped, so
//! that touching it is a page fault like any other and never reaches the
//! hypervisor's instruction emulator; once it is there, the other root is used.
//!
//! All but the page tables may lie in memory that is read-only to the VM. Page
//! tables must not, though nobody writes them and no address leads to them: a
//! processor that walks them counts as a writer in the second level of translation,
//! as it may have to set accessed and dirty bits. So it is always with AMD's nested
//! paging (AMD64 manual, volume 2, section 15.25.5), and with Intel's if the
//! hypervisor has such bits of its own, which is KVM's default (SDM volume 3,
//! section 30.3.3.2; Linux, "kvm: nVMX: support EPT accessed/dirty bits"). If KVM
//! finds them in a read-only slot it emulates an instruction for every such walk, or
//! has the processor try again for ever (`PFERR_NESTED_GUEST_PAGE`). Only where KVM
//! walks them itself, for shadow page tables, do they work there: so the first design
//! had it. What keeps one VM's tables from another is the backend's business: it can
//! give each a mapping that is copied when written, right below [`PRIVATE_GPA`].
//!
//! All of the numbers are from the Intel SDM, volume 3: chapters 3 (segments),
//! 5 (paging), 7 (exceptions), 9.7 (TSS), and volume 1, 20.5 (I/O bitmap).

mod tables;

use std::ops::Range;

use cellule_abi::doorbell::DOORBELL_PORT;

use crate::exit::{Fault, PAGE_FAULT, has_error_code};
use crate::space::{AddressSpace, Gva, PAGE_BYTES};
use tables::PageTables;

/// Where the control pages are, in guest physical memory: first the descriptors,
/// then the shared pages, without a gap.
pub const CONTROL_GPA: u64 = 0;
/// Where the shared pages are: behind the descriptors.
pub const SHARED_GPA: u64 = CONTROL_GPA + DESCRIPTOR_PAGES * PAGE_BYTES;
/// Where the private memory is: beyond all that may be shared.
///
/// Below it is room for page tables: 65 MiB above 4 GiB, four times what a heap of
/// 4 GiB takes. Below 4 GiB, KVM keeps a page for itself on Intel processors without
/// "unrestricted guest" (`VMX_EPT_IDENTITY_PAGETABLE_ADDR`, 0xfffbc000), and others
/// expect interrupt controllers. The odd MiB is so that a last-level table of the
/// hypervisor's (2 MiB) has a small guest's page tables and its first private pages.
pub const PRIVATE_GPA: u64 = (4 << 30) + (65 << 20);
/// Exception stub `n` writes a byte to this port plus `n`. Ring 3 cannot.
pub const FAULT_PORT: u16 = 0x20;
/// The number of exceptions.
pub const VECTORS: u8 = 32;
/// The offset in the private memory of what [`exception_frame`] reads.
pub const FRAME_OFFSET: usize = PAGE - FRAME_BYTES;
/// The length of what [`exception_frame`] reads: error code, RIP, CS, RFLAGS, RSP, SS.
pub const FRAME_BYTES: usize = 48;
/// The private memory's own page: the exception stack.
pub const PRIVATE_RESERVED: usize = PAGE;

/// Selectors of ring 3, with their requested privilege level.
pub const USER_DATA: u16 = 3 << 3 | 3;
/// See [`USER_DATA`].
pub const USER_CODE: u16 = 4 << 3 | 3;
/// The selector of the task state segment.
pub const TASK: u16 = 5 << 3;
const KERNEL_CODE: u16 = 1 << 3;

const PAGE: usize = cellule_abi::PAGE_BYTES;
const DESCRIPTOR_PAGES: u64 = 2;
const TABLES: u64 = 0;
const STUBS: u64 = PAGE_BYTES;
const EXCEPTION_STACK: u64 = 2 * PAGE_BYTES;
const TSS_OFFSET: usize = 0x100;
const IDT_OFFSET: usize = 0x200;
/// The task state segment up to and including its I/O bitmap: 104 bytes, then
/// one byte for ports 0 to 7, then the terminating byte of ones.
const TSS_BYTES: u16 = 104 + 2;
const STUB_BYTES: usize = 16;

/// Control pages, and where the processor must be told to look for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The first pages, with tables and stubs, at [`CONTROL_GPA`].
    pub descriptors: Vec<u8>,
    /// The page tables, which belong where [`Control::build`] was told.
    pub page_tables: Vec<u8>,
    /// Guest physical address of the root page table, for CR3, without late memory.
    pub root: u64,
    /// The same with all memory.
    pub extended_root: u64,
    /// Guest virtual address of the GDT.
    pub gdt: Gva,
    /// The GDT's limit.
    pub gdt_limit: u16,
    /// Guest virtual address of the IDT.
    pub idt: Gva,
    /// The IDT's limit.
    pub idt_limit: u16,
    /// Guest virtual address of the TSS.
    pub tss: Gva,
    /// The TSS's limit.
    pub tss_limit: u16,
    /// Guest virtual addresses of the exception stubs: all that ring 0 runs.
    pub stubs: Range<Gva>,
}

impl Control {
    /// How long the page tables are, in bytes, that [`build`](Self::build) makes.
    pub fn tables_len(space: &AddressSpace, early_len: u64) -> u64 {
        let early = PageTables::count(space, early_len);
        (early + PageTables::count(space, u64::MAX)) * PAGE_BYTES
    }

    /// Builds the control pages of an address space whose private memory from
    /// `early_len` on is late, and whose page tables lie at the guest physical
    /// address `tables`.
    ///
    /// # Cost
    ///
    /// Eight bytes for every page that is mapped, and again for every early one,
    /// plus some pages.
    pub fn build(space: &AddressSpace, early_len: u64, tables: u64) -> Self {
        let supervisor = space.supervisor();
        let mut builder = Builder::new();
        builder.tables_page(supervisor);
        builder.stubs_page();
        let early = PageTables::new(space, tables, early_len);
        let extended_root = tables + early.pages.len() as u64 * PAGE_BYTES;
        let all = PageTables::new(space, extended_root, u64::MAX);
        let entries = [early.pages, all.pages].into_iter().flatten().flatten();
        Self {
            descriptors: builder.bytes,
            page_tables: entries.flat_map(u64::to_le_bytes).collect(),
            root: tables,
            extended_root,
            gdt: Gva(supervisor.0 + TABLES),
            gdt_limit: 7 * 8 - 1,
            idt: Gva(supervisor.0 + TABLES + IDT_OFFSET as u64),
            idt_limit: u16::from(VECTORS) * 16 - 1,
            tss: Gva(supervisor.0 + TABLES + TSS_OFFSET as u64),
            tss_limit: TSS_BYTES - 1,
            stubs: Gva(supervisor.0 + STUBS)..Gva(supervisor.0 + STUBS + PAGE_BYTES),
        }
    }
}

/// Reads what the processor pushed when ring 3 faulted. `bytes` are a copy of
/// [`FRAME_BYTES`] at [`FRAME_OFFSET`]; ring 3 cannot write there.
pub fn exception_frame(vector: u8, bytes: &[u8; FRAME_BYTES], cr2: u64) -> Fault {
    let words: &[[u8; 8]] = bytes.as_chunks().0;
    let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
    let code = if has_error_code(vector) { word(0) } else { 0 };
    Fault {
        vector,
        error_code: u32::try_from(code & 0xffff_ffff).unwrap_or(0),
        address: (vector == PAGE_FAULT).then_some(Gva(cr2)),
        rip: Gva(word(1)),
        rsp: Gva(word(4)),
    }
}

/// The state components that a guest may use, if the processor shows these in
/// XCR0: x87, SSE, AVX and AVX-512, of which the last is all three or none. Others
/// (AMX's tiles, protection keys) nobody here saves.
///
/// Source: Intel SDM volume 1, section 13.1.
pub fn usable_states(xcr0: u64) -> u64 {
    const KNOWN: u64 = 0b1110_0111;
    const AVX512: u64 = 0b1110_0000;
    let states = xcr0 & KNOWN;
    if states & AVX512 == AVX512 { states } else { states & !AVX512 }
}

/// Writes the first two pages.
struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self { bytes: Vec::with_capacity(16 * PAGE) }
    }

    /// Pads to an offset, and writes there.
    fn at(&mut self, offset: usize, bytes: &[u8]) {
        debug_assert!(self.bytes.len() <= offset, "the parts are in order");
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(bytes);
    }

    fn tables_page(&mut self, supervisor: Gva) {
        let tss = supervisor.0 + TABLES + TSS_OFFSET as u64;
        for descriptor in gdt(tss) {
            self.bytes.extend_from_slice(&descriptor.to_le_bytes());
        }
        let stack_top = supervisor.0 + EXCEPTION_STACK + PAGE_BYTES;
        self.at(TSS_OFFSET, &task_state(stack_top));
        self.at(IDT_OFFSET, &[]);
        for vector in 0..VECTORS {
            let stub = supervisor.0 + STUBS + u64::from(vector) * STUB_BYTES as u64;
            self.bytes.extend_from_slice(&interrupt_gate(stub).to_le_bytes());
        }
        self.at(PAGE, &[]);
    }

    fn stubs_page(&mut self) {
        for port in (FAULT_PORT..).take(usize::from(VECTORS)) {
            let [port, _] = port.to_le_bytes();
            // out port, al; hlt; jmp to the hlt. Three instructions, as ring 0
            // is interpreted on some machines; only the first ever runs.
            self.bytes.extend_from_slice(&[0xe6, port, 0xf4, 0xeb, 0xfd]);
            self.bytes.resize(self.bytes.len() + STUB_BYTES - 5, 0xcc);
        }
        self.at(2 * PAGE, &[]);
    }
}

/// SDM 3.4.5 and 9.2.3. Accessed (and the TSS's busy) bits are set beforehand.
fn gdt(tss: u64) -> [u64; 7] {
    const KERNEL_CODE_64: u64 = 0x00af_9b00_0000_ffff;
    const KERNEL_DATA: u64 = 0x00cf_9300_0000_ffff;
    const USER_DATA_FLAT: u64 = 0x00cf_f300_0000_ffff;
    const USER_CODE_64: u64 = 0x00af_fb00_0000_ffff;
    const BUSY_TSS: u64 = 0x8b << 40;
    let limit = u64::from(TSS_BYTES - 1);
    let low = limit | (tss & 0xff_ffff) << 16 | BUSY_TSS | (tss >> 24 & 0xff) << 56;
    [0, KERNEL_CODE_64, KERNEL_DATA, USER_DATA_FLAT, USER_CODE_64, low, tss >> 32]
}

/// SDM 9.7: RSP0 at 4, the I/O map base at 102; a clear bit opens a port.
fn task_state(stack_top: u64) -> [u8; TSS_BYTES as usize] {
    const { assert!(DOORBELL_PORT < 8, "the bitmap has one byte") };
    let mut tss = [0; TSS_BYTES as usize];
    let fields: [(usize, &[u8]); 3] = [
        (4, &stack_top.to_le_bytes()),
        (102, &104_u16.to_le_bytes()),
        (104, &[!(1 << DOORBELL_PORT), 0xff]),
    ];
    for (offset, bytes) in fields {
        tss.iter_mut().skip(offset).zip(bytes).for_each(|(to, from)| *to = *from);
    }
    tss
}

/// SDM 7.14.1: a present 64-bit interrupt gate of privilege level 0.
fn interrupt_gate(stub: u64) -> u128 {
    let low =
        stub & 0xffff | u64::from(KERNEL_CODE) << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
    u128::from(low) | u128::from(stub >> 32) << 64
}

#[cfg(test)]
mod tests {
    use super::tables::{ACCESSED, ADDRESS, DIRTY, NO_EXECUTE, PRESENT, USER, WRITABLE};
    use super::*;
    use crate::space::{Backing, Mapping, Protection};

    /// Where the tables are here: nowhere in particular.
    const ROOT: u64 = 7 << 30;

    fn space() -> AddressSpace {
        let mapping = |name, gva, pages, protection, backing| Mapping {
            name,
            gva: Gva(gva),
            len: pages * PAGE_BYTES,
            protection,
            backing,
        };
        let mappings = vec![
            mapping("text", 0x40_0000, 2, Protection::ReadExecute, Backing::Shared(0)),
            mapping("data", 0x40_2000, 1, Protection::ReadWrite, Backing::Private(0)),
            mapping("heap", 0x8000_0000, 65536, Protection::ReadWrite, Backing::Private(4096)),
        ];
        AddressSpace::new(mappings, Gva(0x40_4000)).unwrap()
    }

    /// The space with its first two private pages early.
    fn build() -> Control {
        Control::build(&space(), 2 * PAGE_BYTES, ROOT)
    }

    /// Walks the tables as the processor does.
    fn walk(control: &Control, gva: u64) -> Option<u64> {
        walk_from(control, control.extended_root, gva)
    }

    fn walk_from(control: &Control, root: u64, gva: u64) -> Option<u64> {
        let mut table = root;
        let mut entry = 0;
        for level in [3, 2, 1, 0] {
            let index = gva >> (12 + 9 * level) & 511;
            let at = usize::try_from(table + index * 8 - ROOT).unwrap();
            entry = u64::from_le_bytes(control.page_tables[at..at + 8].try_into().unwrap());
            if entry & PRESENT == 0 {
                return None;
            }
            table = entry & ADDRESS;
        }
        Some(entry)
    }

    #[test]
    fn every_page_has_the_protection_that_was_asked_for() {
        let control = build();
        let bits = |gva| walk(&control, gva).map(|entry| entry & (WRITABLE | USER | NO_EXECUTE));
        assert_eq!(bits(0x40_0000), Some(USER));
        assert_eq!(bits(0x40_2000), Some(USER | WRITABLE | NO_EXECUTE));
        assert_eq!(bits(0x8000_0000 + 65535 * PAGE_BYTES), Some(USER | WRITABLE | NO_EXECUTE));
        assert_eq!(bits(0x40_4000), Some(NO_EXECUTE), "tables are the supervisor's, read-only");
        assert_eq!(bits(0x40_5000), Some(0), "stubs are the supervisor's, executable");
        assert_eq!(bits(0x40_6000), Some(WRITABLE | NO_EXECUTE));
    }

    #[test]
    fn what_is_not_listed_is_not_mapped() {
        let control = build();
        for gva in [0, 0x1000, 0x3f_f000, 0x40_3000, 0x40_7000, 0x7fff_f000, 0x9000_0000] {
            assert_eq!(walk(&control, gva), None, "{gva:#x} should NOT be mapped");
        }
    }

    #[test]
    fn shared_pages_lie_behind_the_descriptors_and_private_ones_behind_the_stack() {
        let control = build();
        let shared = walk(&control, 0x40_1000).unwrap() & ADDRESS;
        assert_eq!(shared, CONTROL_GPA + control.descriptors.len() as u64 + PAGE_BYTES);
        let data = walk(&control, 0x40_2000).unwrap() & ADDRESS;
        assert_eq!(data, PRIVATE_GPA + PAGE_BYTES);
    }

    #[test]
    fn the_page_tables_are_where_and_as_long_as_was_said_and_no_address_leads_there() {
        let control = build();
        let len = Control::tables_len(&space(), 2 * PAGE_BYTES);
        assert_eq!((control.root, control.page_tables.len() as u64), (ROOT, len));
        let own = ROOT..ROOT + len;
        assert!(own.contains(&control.extended_root));
        let mapped = (0..0x9001_0000).step_by(4096).filter_map(|gva| walk(&control, gva));
        let gpas: Vec<u64> = mapped.map(|entry| entry & ADDRESS).collect();
        assert_eq!(gpas.len(), 2 + 1 + 65536 + 3, "every page should have been looked at");
        assert!(!gpas.iter().any(|gpa| own.contains(gpa)));
    }

    #[test]
    fn late_memory_is_mapped_in_the_extended_tables_alone() {
        let control = build();
        // The second of the two early pages is the heap's first.
        for gva in [0x40_0000, 0x40_2000, 0x40_4000, 0x8000_0000] {
            let early = walk_from(&control, control.root, gva);
            assert_eq!(early, walk(&control, gva), "{gva:#x} should be the same in both");
        }
        assert_eq!(walk_from(&control, control.root, 0x8000_1000), None);
        assert!(walk(&control, 0x8000_1000).is_some());
    }

    #[test]
    fn no_page_is_both_writable_and_executable_and_none_needs_its_bits_set() {
        let control = build();
        for gva in (0..0x100_0000).chain(0x8000_0000..0x8010_0000).step_by(4096) {
            let Some(entry) = walk(&control, gva) else { continue };
            assert!(entry & WRITABLE == 0 || entry & NO_EXECUTE != 0, "{gva:#x} should NOT be W+X");
            assert_eq!(entry & (ACCESSED | DIRTY), ACCESSED | DIRTY);
        }
    }

    #[test]
    fn the_io_bitmap_opens_one_port() {
        let control = build();
        let bitmap = &control.descriptors[TSS_OFFSET + 104..][..2];
        assert_eq!(bitmap, [0b1111_1101, 0xff]);
        assert_eq!(usize::from(control.tss_limit), 105, "ports above 15 are beyond the limit");
    }

    #[test]
    fn a_frame_is_read_as_the_processor_writes_it() {
        let mut bytes = [0; FRAME_BYTES];
        for (index, value) in [0x6_u64, 0x40_1234, 0x23, 0x202, 0x50_0ff8, 0x1b].iter().enumerate()
        {
            bytes[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        let fault = exception_frame(14, &bytes, 0xdead_b000);
        assert_eq!((fault.rip, fault.rsp), (Gva(0x40_1234), Gva(0x50_0ff8)));
        assert_eq!((fault.error_code, fault.address), (6, Some(Gva(0xdead_b000))));
        assert_eq!(fault.attempt(), "write");
        let fault = exception_frame(6, &bytes, 0xdead_b000);
        assert_eq!((fault.error_code, fault.address), (0, None), "#UD has neither");
    }
}
