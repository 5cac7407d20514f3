use cellule_hv::space::PAGE_BYTES as PAGE;
use cellule_hv::{Gva, Mapping};
use cellule_mem::Region;

use super::*;

/// Data with private pages 0 to 9 at page 0x400, a heap with 10 to 2009 at page 0x8000,
/// and constants that are page 2010.
fn space() -> AddressSpace {
    let mapping = |name, page: u64, pages, protection, first: u64| Mapping {
        name,
        gva: Gva(page * PAGE),
        len: pages * PAGE,
        protection,
        backing: Backing::Private(first * PAGE),
    };
    let mappings = vec![
        mapping("data", 0x400, 10, Protection::ReadWrite, 0),
        mapping("heap", 0x8000, 2000, Protection::ReadWrite, 10),
        mapping("constants", 0x2_0000, 1, Protection::Read, 2010),
    ];
    AddressSpace::new(mappings, Gva(0x10 * PAGE)).unwrap()
}

fn pages(words: &[u64]) -> Vec<usize> {
    let mut set = PageSet::default();
    words.iter().enumerate().for_each(|(index, word)| set.insert_word(index, *word));
    set.iter().collect()
}

fn region_with(written: &[usize]) -> Region {
    let region = Region::growing(2011 * PAGE_BYTES, 2011 * PAGE_BYTES).unwrap();
    written.iter().for_each(|page| region.write(page * PAGE_BYTES, &[1]).unwrap());
    region
}

#[test]
fn the_pages_of_a_file_that_exist_are_found() {
    let region = region_with(&[0, 1, 5, 2010]);
    let found = existing(region.file().unwrap(), 2011 * PAGE_BYTES).unwrap();
    assert_eq!(found, [0..2, 5..6, 2010..2011]);
    assert_eq!(merged(found), [0..6, 2010..2011]);
    assert!(existing(region_with(&[]).file().unwrap(), 2011 * PAGE_BYTES).unwrap().is_empty());
}

/// In place of a process's list of pages a file that has the marks where they would be.
#[test]
fn marks_are_found_wherever_a_page_is_mapped() {
    let list = Region::growing(0x3_0000 * 8, 0x3_0000 * 8).unwrap();
    let mark = |page: usize, entry: u64| list.write(8 * page, &entry.to_le_bytes()).unwrap();
    mark(0x400, MARK | 1 << 63);
    mark(0x401, 1 << 63);
    mark(0x409, MARK);
    mark(0x40a, MARK); // behind data: nobody's page
    mark(0x8000, MARK);
    mark(0x8000 + 1999, MARK);
    mark(0x2_0000, MARK); // cannot be written
    let list = File::from(list.file().unwrap().try_clone_to_owned().unwrap());
    let mut found = Vec::new();
    marked(&list, &space(), 0..2011, &mut found).unwrap();
    assert_eq!(pages(&found), [0, 9, 10, 2009]);
    let mut found = Vec::new();
    marked(&list, &space(), 5..10, &mut found).unwrap();
    assert_eq!(pages(&found), [9], "only what is asked for");
}

#[test]
fn without_marks_all_that_exists_is_told_again_and_again() {
    let (region, space) = (region_with(&[3, 70]), space());
    let sight = Sight { child: Pid(0), file: region.file().unwrap(), space: &space };
    let (mut account, _) = Account::open(Way::Existing, sight).unwrap();
    let mut told = PageSet::default();
    account.add_to(&mut told, sight).unwrap();
    assert_eq!(told.iter().collect::<Vec<_>>(), [3, 70]);
    account.rearm(&told, sight).unwrap();
    let mut again = PageSet::default();
    account.add_to(&mut again, sight).unwrap();
    assert_eq!(again, told);
}

#[test]
fn what_was_found_is_kept_until_it_is_rearmed() {
    let (region, space) = (region_with(&[]), space());
    let child = Pid(std::process::id().cast_signed());
    let sight = Sight { child, file: region.file().unwrap(), space: &space };
    let mut account = Account { way: Way::Marks, found: vec![0b1011], is_fresh: true };
    let mut one = PageSet::default();
    one.insert(1);
    account.rearm(&one, sight).unwrap();
    account.has_run();
    let mut told = PageSet::default();
    account.add_to(&mut told, sight).unwrap();
    assert_eq!(told.iter().collect::<Vec<_>>(), [0, 3]);
}
