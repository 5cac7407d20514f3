//! Guests: a partition with some memory and one VP, in ring 3 or real mode.
//!
//! Ring 3 has no IDT: an exception is a triple fault. Its I/O bitmap opens the
//! ports 0 to 15.

use mshv_bindings::{
    SegmentRegister, SpecialRegisters, StandardRegisters, TableRegister, hv_message,
    hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT, hv_x64_io_port_intercept_message,
    mshv_create_partition_v2, mshv_user_mem_region,
};
use mshv_ioctls::{Mshv, VcpuFd, VmFd};

pub(crate) const PAGE: usize = 4096;
pub(crate) const CODE: usize = 0x1_0000;
pub(crate) const DATA: usize = 0x1_1000;
/// Guest virtual, with no memory behind it.
pub(crate) const NOWHERE: u64 = 0x20_0000;
/// What is behind it.
pub(crate) const NOWHERE_GPA: u64 = 1 << 30;
/// Guest virtual address of the read-only page, and guest physical.
pub(crate) const READ_ONLY: u64 = 0x20_1000;
pub(crate) const READ_ONLY_GPA: u64 = 0x20_0000;
const LEN: usize = 0x1_3000;

pub(crate) const WRITABLE: u8 = 1;
pub(crate) const EXECUTABLE: u8 = 2;

/// Memory of the process, which is left mapped.
pub(crate) fn pages(len: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
    // SAFETY: a new mapping takes nothing from anybody.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}

pub(crate) fn region(at: *mut u8, gpa: u64, len: usize, flags: u8) -> mshv_user_mem_region {
    mshv_user_mem_region {
        size: len as u64,
        guest_pfn: gpa / PAGE as u64,
        userspace_addr: at.expose_provenance() as u64,
        flags,
        ..Default::default()
    }
}

/// An initialised partition.
pub(crate) fn partition() -> VmFd {
    let device = Mshv::new().unwrap();
    let vm = device.create_vm_with_args(&mshv_create_partition_v2::default()).unwrap();
    vm.initialize().unwrap();
    vm
}

/// Fields are dropped in order: the VP before the partition.
pub(crate) struct Guest {
    pub(crate) vp: VcpuFd,
    pub(crate) vm: VmFd,
    memory: *mut u8,
}

impl Guest {
    fn new(code: &[u8]) -> Self {
        let vm = partition();
        let memory = pages(LEN);
        vm.map_user_memory(region(memory, 0, LEN, WRITABLE | EXECUTABLE)).unwrap();
        let sealed = pages(PAGE);
        vm.map_user_memory(region(sealed, READ_ONLY_GPA, PAGE, EXECUTABLE)).unwrap();
        let vp = vm.create_vcpu(0).unwrap();
        let mut guest = Self { vp, vm, memory };
        guest.put(CODE, code);
        guest
    }

    /// Real mode, ring 0, at `CODE`.
    pub(crate) fn real(code: &[u8]) -> Self {
        let guest = Self::new(code);
        let mut sregs = guest.vp.get_sregs().unwrap();
        (sregs.cs.base, sregs.cs.selector) = (CODE as u64, 0x1000);
        guest.vp.set_sregs(&sregs).unwrap();
        guest.start(0);
        guest
    }

    /// Long mode, ring 3, at `CODE`.
    pub(crate) fn ring3(code: &[u8]) -> Self {
        let mut guest = Self::new(code);
        guest.put_words(0, &[0, 0, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff]);
        guest.put(0x100 + 102, &[104, 0, 0, 0, 0xff]);
        let below = |at: u64| at | 7;
        guest.put_words(0x1000, &[below(0x2000)]);
        guest.put_words(0x2000, &[below(0x3000)]);
        guest.put_words(0x3000, &[below(0x4000), below(0x5000)]);
        let all: Vec<u64> = (0..512).map(|page| below(page * PAGE as u64)).collect();
        guest.put_words(0x4000, &all);
        guest.put_words(0x5000, &[below(NOWHERE_GPA), below(READ_ONLY_GPA)]);
        let plain = guest.vp.get_sregs().unwrap();
        // SMEP and SMAP, as what reads a guest's code must not be kept from it.
        let [_, ebx, _, _] = guest.vp.get_cpuid_values(7, 0, 0, 0).unwrap();
        let cr4 = u64::from(ebx >> 7 & 1) << 20 | u64::from(ebx >> 20 & 1) << 21;
        let sregs = long_mode(plain);
        guest.vp.set_sregs(&SpecialRegisters { cr4: sregs.cr4 | cr4, ..sregs }).unwrap();
        guest.start(CODE as u64);
        guest
    }

    fn start(&self, rip: u64) {
        let rsp = (DATA + 2 * PAGE) as u64;
        let regs = StandardRegisters { rip, rsp, rflags: 2, ..Default::default() };
        self.vp.set_regs(&regs).unwrap();
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= LEN);
        // SAFETY: in bounds (asserted); the guest does not run.
        let to = unsafe { self.memory.add(at) };
        // SAFETY: in bounds, and another piece of memory than `bytes`.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn put_words(&mut self, at: usize, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(at, &bytes);
    }

    pub(crate) fn rip(&self) -> u64 {
        self.vp.get_regs().unwrap().rip
    }

    /// Steps over an instruction, as a backend must.
    pub(crate) fn advance(&self, len: u8) {
        let mut regs = self.vp.get_regs().unwrap();
        regs.rip += u64::from(len);
        self.vp.set_regs(&regs).unwrap();
    }

    /// Runs to the next message.
    pub(crate) fn run(&self) -> hv_message {
        self.vp.run().unwrap()
    }

    /// Runs to the next message, which must be of a port.
    pub(crate) fn run_to_port(&self) -> hv_x64_io_port_intercept_message {
        let message = self.run();
        let kind = message.header.message_type;
        assert_eq!(kind, hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT, "{kind:#x}");
        message.to_ioport_info().unwrap()
    }
}

fn long_mode(plain: SpecialRegisters) -> SpecialRegisters {
    let data = SegmentRegister {
        base: 0,
        limit: u32::MAX,
        selector: 0x1b,
        type_: 3,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let code = SegmentRegister { selector: 0x23, type_: 0xb, l: 1, db: 0, ..data };
    let task = SegmentRegister {
        base: 0x100,
        limit: 106,
        selector: 0x28,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    SpecialRegisters {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        ldt: SegmentRegister { type_: 2, unusable: 1, ..Default::default() },
        gdt: TableRegister { base: 0, limit: 39 },
        idt: TableRegister::default(),
        // PE, MP, ET, NE, WP, PG; PAE, OSFXSR, OSXMMEXCPT; LME, LMA, NXE.
        cr0: 0x8001_0033,
        cr3: 0x1000,
        cr4: 0x620,
        efer: 0xd00,
        ..plain
    }
}
