//! Four-level page tables, as entries.

use super::{CONTROL_GPA, EXCEPTION_STACK, PRIVATE_GPA, PRIVATE_RESERVED, SHARED_GPA};
use super::{STUBS, TABLES};
use crate::space::{AddressSpace, Backing, Gva, Mapping, PAGE_BYTES, Protection};

// SDM 5.5.4, the bits of an entry.
pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page tables, in the order in which they were needed.
pub(super) struct PageTables {
    /// The tables, of which the first is the root.
    pub(super) pages: Vec<[u64; 512]>,
    /// The guest physical address of the first.
    base: u64,
}

impl PageTables {
    /// Makes the tables that lie at `base` and map a space's shared pages and the
    /// first `limit` bytes of its private memory.
    pub(super) fn new(space: &AddressSpace, base: u64, limit: u64) -> Self {
        let mut tables = Self { pages: vec![[0; 512]], base };
        for stretch in stretches(space, limit) {
            for offset in (0..stretch.len).step_by(cellule_abi::PAGE_BYTES) {
                tables.entry(stretch.gva + offset, stretch.gpa + offset, stretch.bits);
            }
        }
        tables
    }

    /// How many tables [`new`](Self::new) makes.
    pub(super) fn count(space: &AddressSpace, limit: u64) -> u64 {
        let all = stretches(space, limit).filter(|stretch| stretch.len > 0);
        let mut all: Vec<Stretch> = all.collect();
        all.sort_unstable_by_key(|stretch| stretch.gva);
        // Below an entry of each of the upper three levels there is a table.
        let below = [12 + 9, 12 + 18, 12 + 27].map(|shift| indices(&all, shift));
        1 + below.iter().sum::<u64>()
    }

    /// Maps one page, making the tables above it where they are missing.
    fn entry(&mut self, gva: u64, gpa: u64, bits: u64) {
        let index = |level: u32| usize::try_from(gva >> (12 + 9 * level) & 511).unwrap_or(0);
        let mut table = 0;
        for level in [3, 2, 1] {
            table = self.below(table, index(level));
        }
        self.set(table, index(0), gpa | bits | PRESENT | ACCESSED | DIRTY);
    }

    /// The table that an entry leads to. Its own bits forbid nothing.
    fn below(&mut self, table: usize, index: usize) -> usize {
        let entry = self.pages.get(table).and_then(|page| page.get(index)).copied().unwrap_or(0);
        if entry & PRESENT != 0 {
            let page = ((entry & ADDRESS) - self.base) / PAGE_BYTES;
            return usize::try_from(page).unwrap_or(0);
        }
        let new = self.pages.len();
        self.pages.push([0; 512]);
        let gpa = self.base + new as u64 * PAGE_BYTES;
        self.set(table, index, gpa | PRESENT | WRITABLE | USER | ACCESSED);
        new
    }

    fn set(&mut self, table: usize, index: usize, entry: u64) {
        if let Some(slot) = self.pages.get_mut(table).and_then(|page| page.get_mut(index)) {
            *slot = entry;
        }
    }
}

/// Pages next to each other that are mapped alike.
struct Stretch {
    gva: u64,
    gpa: u64,
    /// In bytes: whole pages, or none.
    len: u64,
    /// [`WRITABLE`], [`USER`], [`NO_EXECUTE`].
    bits: u64,
}

/// What the tables map, the supervisor's pages last.
fn stretches(space: &AddressSpace, limit: u64) -> impl Iterator<Item = Stretch> + '_ {
    let Gva(supervisor) = space.supervisor();
    let own = [
        (TABLES, CONTROL_GPA, NO_EXECUTE),
        (STUBS, CONTROL_GPA + PAGE_BYTES, 0),
        (EXCEPTION_STACK, PRIVATE_GPA, WRITABLE | NO_EXECUTE),
    ];
    let own = own.into_iter().map(move |(offset, gpa, bits)| {
        let gva = supervisor + offset;
        Stretch { gva, gpa, len: PAGE_BYTES, bits }
    });
    space.mappings().iter().map(move |mapping| stretch(mapping, limit)).chain(own)
}

/// What is mapped of a mapping if there are `limit` bytes of private memory.
fn stretch(mapping: &Mapping, limit: u64) -> Stretch {
    let (gpa, len) = match mapping.backing {
        Backing::Shared(offset) => (SHARED_GPA + offset, mapping.len),
        Backing::Private(offset) => {
            let len = limit.saturating_sub(offset).min(mapping.len);
            (PRIVATE_GPA + PRIVATE_RESERVED as u64 + offset, len / PAGE_BYTES * PAGE_BYTES)
        }
    };
    let bits = match mapping.protection {
        Protection::Read => NO_EXECUTE,
        Protection::ReadExecute => 0,
        Protection::ReadWrite => WRITABLE | NO_EXECUTE,
    };
    Stretch { gva: mapping.gva.0, gpa, len, bits: bits | USER }
}

/// How many values `gva >> shift` has, over all addresses of stretches that are
/// in order, disjoint, and not empty.
fn indices(stretches: &[Stretch], shift: u32) -> u64 {
    let (mut count, mut next) = (0, 0);
    for stretch in stretches {
        let end = ((stretch.gva + stretch.len - 1) >> shift) + 1;
        count += end - (stretch.gva >> shift).max(next);
        next = end;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// A page of text, then private memory: ranges of addresses, one behind the
    /// other in memory.
    fn space(supervisor: u64, ranges: &[(u64, u64)]) -> AddressSpace {
        let text = Mapping {
            name: "text",
            gva: Gva(0x40_0000),
            len: PAGE_BYTES,
            protection: Protection::ReadExecute,
            backing: Backing::Shared(0),
        };
        let mut end = 0;
        let private = ranges.iter().map(|&(gva, len)| {
            let backing = Backing::Private(end);
            end += len;
            let protection = Protection::ReadWrite;
            Mapping { name: "private", gva: Gva(gva), len, protection, backing }
        });
        let mappings = std::iter::once(text).chain(private).collect();
        AddressSpace::new(mappings, Gva(supervisor)).unwrap()
    }

    #[test]
    fn as_many_tables_are_counted_as_are_made() {
        let spaces = [
            space(0x41_0000, &[]),
            space(0x41_0000, &[(0x42_0000, 64 * KIB)]),
            // Before the text, and in a table of its own with none of the others.
            space(0x1_0000, &[(0x42_0000, 64 * KIB)]),
            space(3 * GIB, &[(0x42_0000, 64 * KIB), (GIB, 256 * MIB)]),
            // Over the borders of tables, by one page; the supervisor's pages, too.
            space(8 * MIB - 2 * PAGE_BYTES, &[(GIB - PAGE_BYTES, 2 * PAGE_BYTES)]),
            space(GIB - PAGE_BYTES, &[(2 * GIB - PAGE_BYTES, 2 * MIB + 2 * PAGE_BYTES)]),
            space(0x41_0000, &[(8 * GIB, 4 * GIB), (0x80_0000, 8 * PAGE_BYTES)]),
        ];
        for space in &spaces {
            let end = space.private_len();
            for limit in [0, PAGE_BYTES, 64 * KIB, 100 * MIB + PAGE_BYTES, end, u64::MAX] {
                let made = PageTables::new(space, PRIVATE_GPA, limit).pages.len();
                let counted = PageTables::count(space, limit);
                assert_eq!(counted, made as u64, "{limit:#x} bytes of {space:#?}");
            }
        }
    }

    #[test]
    fn a_heap_of_4_gib_takes_2048_tables_and_those_above() {
        let space = space(0x41_0000, &[(8 * GIB, 4 * GIB)]);
        // The root, one of the third level, five of the second (a GiB each: text,
        // heap), and the text's.
        assert_eq!(PageTables::count(&space, u64::MAX), 2048 + 1 + 1 + 5 + 1);
        assert_eq!(PageTables::count(&space, 0), 4);
    }
}
