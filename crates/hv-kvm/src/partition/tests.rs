use cellule_hv::{AddressSpace, Backing, Mapping, PageSet, Plan, Protection, Start};
use cellule_mem::Sealed;

use super::*;
use crate::Kvm;

/// `inc byte [0x402000]; inc byte [0x500000]; out 1, al`, and a jump back to all.
const CODE: [u8; 18] =
    [0xfe, 0x04, 0x25, 0, 0x20, 0x40, 0, 0xfe, 0x04, 0x25, 0, 0, 0x50, 0, 0xe6, 1, 0xeb, 0xee];
const TEXT: Gva = Gva(0x40_0000);
const DATA: Gva = Gva(0x40_2000);
/// Not there until the partition is extended.
const LATE: Gva = Gva(0x50_0000);
const PAGE: u64 = PAGE_BYTES as u64;

fn plan() -> Plan {
    let mapping =
        |gva, protection, backing| Mapping { name: "test", gva, len: PAGE, protection, backing };
    let mappings = vec![
        mapping(TEXT, Protection::ReadExecute, Backing::Shared(0)),
        mapping(DATA, Protection::ReadWrite, Backing::Private(0)),
        mapping(LATE, Protection::ReadWrite, Backing::Private(PAGE)),
    ];
    Plan {
        space: Arc::new(AddressSpace::new(mappings, Gva(0x41_0000)).unwrap()),
        shared: Arc::new(Sealed::new(&CODE).unwrap()),
        early_len: PAGE,
        start: Start { entry: TEXT, stack: TEXT, argument: Gva(0) },
    }
}

fn run(partition: &mut KvmPartition) -> Exit {
    loop {
        match partition.run().unwrap() {
            Exit::Kicked => {}
            exit => return exit,
        }
    }
}

/// Runs it to the page fault at [`LATE`], extends it, and has it ring.
fn extended(partition: &mut KvmPartition) {
    assert!(matches!(run(partition), Exit::Fault(fault) if fault.address == Some(LATE)));
    partition.extend().unwrap();
    partition.restart(&Registers::start(plan().start)).unwrap();
    assert!(matches!(run(partition), Exit::Doorbell(_)));
}

/// A processor that walks page tables as a writer has KVM write to the pages that
/// it walks: so they are written here, by the host, and then again all wrong.
#[test]
fn what_becomes_of_a_partition_s_page_tables_is_nothing_to_its_siblings() {
    let Ok(kvm) = Kvm::open() else { return println!("backends: none") };
    let template = KvmTemplate::new(Arc::clone(&kvm.0), plan()).unwrap();
    let make = || KvmPartition::new(&template).unwrap();
    let (mut first, mut second) = (make(), make());
    extended(&mut first);
    first.private.populate(0, first.tables_len).unwrap();
    assert!(matches!(run(&mut first), Exit::Doorbell(_)), "the copies should do as well");
    first.track().unwrap();
    assert!(matches!(run(&mut first), Exit::Doorbell(_)));
    let mut dirty = PageSet::default();
    first.dirty(&mut dirty).unwrap();
    assert_eq!(dirty.iter().collect::<Vec<_>>(), [0, 1], "and no table");
    let mut third = make();
    third.private.populate(0, third.tables_len).unwrap();
    extended(&mut third);
    let tables = first.private.read_vec(0, first.tables_len).unwrap();
    first.private.write(0, &vec![0xff; tables.len()]).unwrap();
    extended(&mut second);
    let fourth = make();
    assert!(fourth.private.read_vec(0, tables.len()).unwrap() == tables);
}

#[test]
fn page_tables_end_where_the_exception_stack_begins() {
    let Ok(kvm) = Kvm::open() else { return println!("backends: none") };
    let template = KvmTemplate::new(Arc::clone(&kvm.0), plan()).unwrap();
    let partition = KvmPartition::new(&template).unwrap();
    assert_eq!(template.sregs.cr3 + template.tables_len as u64, PRIVATE_GPA);
    assert!((template.sregs.cr3..PRIVATE_GPA).contains(&template.extended_root));
    let lens = template.page_tables.iter().map(Sealed::len);
    assert_eq!(lens.sum::<usize>(), template.tables_len, "the parts should be all of them");
    partition.memory.copy_in(DATA, b"data").unwrap();
    let behind = template.tables_len + PRIVATE_RESERVED;
    assert_eq!(partition.private.read_vec(behind, 4).unwrap(), b"data");
}
