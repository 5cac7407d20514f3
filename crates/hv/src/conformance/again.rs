//! Cases: what a guest wrote is known, and can be undone.

use super::{DATA, STACK, TEXT, Test, faults, is_equal, is_refused, partition, rings, text};
use crate::checkpoint::Checkpoint;
use crate::space::PAGE_BYTES;
use crate::{Gva, Hypervisor, PageSet, Partition, Registers, USER_FLAGS};

/// The cases.
pub(super) const TESTS: &[(&str, Test)] = &[
    ("registers_are_read_and_loaded_as_they_were", registers),
    ("no_flag_of_the_supervisor_can_be_loaded", flags),
    ("pages_that_a_guest_writes_are_known", written_by_the_guest),
    ("pages_that_the_host_writes_are_known", written_by_the_host),
    ("pages_are_in_the_account_until_rearmed_and_again_when_written", rearmed),
    ("late_pages_that_a_guest_writes_are_known", late),
    ("a_restored_guest_finds_memory_and_registers_as_they_were", restored),
    ("a_guest_that_faulted_can_be_restored", restored_after_a_fault),
    ("pages_are_told_only_of_a_guest_that_is_tracked", untracked),
];

/// The pages of private memory where data, stack and late memory are.
const DATA_PAGE: usize = 0;
const STACK_PAGE: usize = 1;
const LATE_PAGE: usize = 2;

/// `out 1, al`, then adds one to the byte at [`DATA`] and rings it, again and again.
const COUNT: &[u8] = &[
    0xe6, 1, // out 1, al
    0xfe, 0x04, 0x25, 0, 0x20, 0x40, 0, // inc byte [DATA]
    0x8a, 0x04, 0x25, 0, 0x20, 0x40, 0, // mov al, [DATA]
    0xe6, 1, // out 1, al
    0xeb, 0xee, // jmp to the inc
];

fn registers(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = partition(hypervisor, COUNT)?;
    rings(&mut *partition, 0)?;
    stands(&mut *partition)?;
    let values = |n: u64| 0x1111_1111_1111_1111 * n;
    let all = Registers {
        rax: values(1) & !0xff | 9,
        rbx: values(2),
        rcx: values(3),
        rdx: values(4),
        rsi: values(5),
        rdi: values(6),
        rbp: values(7),
        rsp: STACK + PAGE_BYTES,
        r8: values(8),
        r9: values(9),
        r10: values(10),
        r11: values(11),
        r12: values(12),
        r13: values(13),
        r14: values(14),
        r15: values(15),
        rip: TEXT,
        // Carry, sign, direction and the bit that is always set.
        rflags: 0b100_1000_0011,
        fs_base: DATA,
        gs_base: STACK,
    };
    partition.restart(&all).map_err(text)?;
    is_equal("the registers that were loaded", all, partition.registers().map_err(text)?)?;
    rings(&mut *partition, 9)?;
    stands(&mut *partition)?;
    let behind = Registers { rip: TEXT + 2, ..all };
    is_equal("the registers behind the out", behind, partition.registers().map_err(text)?)
}

/// A guest whose flags are all set, the trap flag aside, can still be stopped by
/// nothing but itself, and has no right that it had not.
fn flags(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    const TRAP: u64 = 1 << 8;
    // out 1, al; cli
    let mut partition = partition(hypervisor, &[0xe6, 1, 0xfa])?;
    rings(&mut *partition, 0)?;
    stands(&mut *partition)?;
    let registers = partition.registers().map_err(text)?;
    let registers = Registers { rip: TEXT, rflags: !TRAP, ..registers };
    partition.restart(&registers).map_err(text)?;
    rings(&mut *partition, 0)?;
    stands(&mut *partition)?;
    let seen = partition.registers().map_err(text)?.rflags;
    is_equal("flags of the supervisor's", 0, seen & !(USER_FLAGS | 0b10))?;
    is_equal("the exception of cli", 13, faults(&mut *partition)?.vector)
}

fn written_by_the_guest(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let exact = hypervisor.capabilities().exact_dirty_pages;
    let mut partition = counting(hypervisor)?;
    is_equal("a clean page in the account", false, exact && !dirty(&mut *partition)?.is_empty())?;
    rings(&mut *partition, 1)?;
    let pages = dirty(&mut *partition)?;
    is_equal("whether data is in the account", true, pages.contains(DATA_PAGE))?;
    is_equal("a clean page in the account", false, exact && pages.contains(STACK_PAGE))
}

fn written_by_the_host(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = counting(hypervisor)?;
    partition.memory().copy_in(Gva(STACK), &[1]).map_err(text)?;
    is_equal("whether the stack is", true, dirty(&mut *partition)?.contains(STACK_PAGE))?;
    partition.memory().store_u32(Gva(DATA), 7).map_err(text)?;
    is_equal("whether data is", true, dirty(&mut *partition)?.contains(DATA_PAGE))
}

fn rearmed(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let exact = hypervisor.capabilities().exact_dirty_pages;
    let mut partition = counting(hypervisor)?;
    for count in 1..=100 {
        rings(&mut *partition, count)?;
        for _ in 0..2 {
            let pages = dirty(&mut *partition)?;
            is_equal("whether data is in the account", true, pages.contains(DATA_PAGE))?;
        }
        let mut data = PageSet::default();
        data.insert(DATA_PAGE);
        partition.rearm(&data).map_err(text)?;
        let still = exact && dirty(&mut *partition)?.contains(DATA_PAGE);
        is_equal("whether data is, rearmed,", false, still)?;
    }
    Ok(())
}

fn late(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // out 1, al; inc byte [LATE]; out 1, al
    let code = [0xe6, 1, 0xfe, 0x04, 0x25, 0, 0xa0, 0x40, 0, 0xe6, 1];
    let mut partition = partition(hypervisor, &code)?;
    rings(&mut *partition, 0)?;
    partition.track().map_err(text)?;
    partition.extend().map_err(text)?;
    rings(&mut *partition, 0)?;
    is_equal("whether late memory is", true, dirty(&mut *partition)?.contains(LATE_PAGE))
}

/// Again and again: after the first time nothing is protected any more.
fn restored(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = counting(hypervisor)?;
    rings(&mut *partition, 1)?;
    stands(&mut *partition)?;
    let checkpoint = Checkpoint::take(&mut *partition).map_err(text)?;
    for _ in 0..100 {
        rings(&mut *partition, 2)?;
        rings(&mut *partition, 3)?;
        stands(&mut *partition)?;
        let restored = checkpoint.restore(&mut *partition).map_err(text)?;
        is_equal("whether a page was copied", true, restored.pages > 0)?;
        let registers = partition.registers().map_err(text)?;
        is_equal("the registers", *checkpoint.registers(), registers)?;
    }
    rings(&mut *partition, 2)
}

fn restored_after_a_fault(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    // out 1, al; push rax; mov byte [DATA], 1; add al, [rsp + 8] beyond the stack
    let code = [0xe6, 1, 0x50, 0xc6, 0x04, 0x25, 0, 0x20, 0x40, 0, 1, 0x02, 0x44, 0x24, 8];
    let mut partition = partition(hypervisor, &code)?;
    stands(&mut *partition)?;
    let checkpoint = Checkpoint::take(&mut *partition).map_err(text)?;
    for _ in 0..10 {
        rings(&mut *partition, 0)?;
        let fault = faults(&mut *partition)?;
        is_equal("the address", Some(Gva(STACK + PAGE_BYTES)), fault.address)?;
        is_equal("data", 1, partition.memory().load_u32(Gva(DATA)).map_err(text)?)?;
        checkpoint.restore(&mut *partition).map_err(text)?;
        is_equal("data, restored,", 0, partition.memory().load_u32(Gva(DATA)).map_err(text)?)?;
    }
    rings(&mut *partition, 0)
}

fn untracked(hypervisor: &dyn Hypervisor) -> Result<(), String> {
    let mut partition = partition(hypervisor, COUNT)?;
    is_refused("dirty", partition.dirty(&mut PageSet::default()))?;
    is_refused("rearm", partition.rearm(&PageSet::default()))
}

/// A guest that has rung, is tracked, and has no page in the account.
fn counting(hypervisor: &dyn Hypervisor) -> Result<Box<dyn Partition>, String> {
    let mut partition = partition(hypervisor, COUNT)?;
    rings(&mut *partition, 0)?;
    for _ in 0..2 {
        partition.track().map_err(text)?;
    }
    let pages = dirty(&mut *partition)?;
    partition.rearm(&pages).map_err(text)?;
    Ok(partition)
}

fn dirty(partition: &mut dyn Partition) -> Result<PageSet, String> {
    let mut pages = PageSet::default();
    partition.dirty(&mut pages).map_err(text)?;
    Ok(pages)
}

/// Makes sure that the guest stands in ring 3, where registers can be read.
fn stands(partition: &mut dyn Partition) -> Result<(), String> {
    let position = partition.position().map_err(text)?;
    position.map(drop).ok_or_else(|| "it should stand in ring 3".to_owned())
}
