//! Which guest addresses exist, and where their bytes are.

use std::fmt;

/// The size of a page in bytes.
pub const PAGE_BYTES: u64 = cellule_abi::PAGE_BYTES as u64;

/// A guest virtual address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gva(pub u64);

impl fmt::Debug for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A range of memory as the guest names it: a claim, until it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestSlice {
    /// The first address.
    pub gva: Gva,
    /// The length in bytes.
    pub len: u64,
}

impl fmt::Display for GuestSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.len, self.gva)
    }
}

/// What ring 3 may do with a mapping. There is no "write and execute".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// R--
    Read,
    /// R-X
    ReadExecute,
    /// RW-
    ReadWrite,
}

/// What an access needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To be readable.
    Read,
    /// To be writable.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "readable",
            Self::Write => "writable",
        })
    }
}

impl Protection {
    /// Whether this allows the access.
    pub const fn allows(self, need: Access) -> bool {
        match (self, need) {
            (_, Access::Read) => true,
            (Self::ReadWrite, Access::Write) => true,
            (Self::Read | Self::ReadExecute, Access::Write) => false,
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "r--",
            Self::ReadExecute => "r-x",
            Self::ReadWrite => "rw-",
        })
    }
}

/// Where the bytes of a mapping are: an offset in bytes, a whole number of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backing {
    /// In the pages that all partitions of the image share. Never writable.
    Shared(u64),
    /// In the partition's own memory.
    Private(u64),
}

/// A range of guest addresses that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// What it is, for messages: `text`, `stack`.
    pub name: &'static str,
    /// The first address, page aligned.
    pub gva: Gva,
    /// The length in bytes, a whole number of pages.
    pub len: u64,
    /// What ring 3 may do there.
    pub protection: Protection,
    /// Where the bytes are.
    pub backing: Backing,
}

impl Mapping {
    /// The first address behind the mapping.
    pub const fn end(&self) -> u64 {
        self.gva.0 + self.len
    }
}

/// The mappings of a partition: sorted, disjoint, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressSpace {
    mappings: Vec<Mapping>,
    supervisor: u64,
    private_len: u64,
}

/// A set of mappings that cannot be an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// A mapping or the supervisor range is not whole pages below the limit.
    #[error("{name}: {len} bytes at {gva:#x} are not pages between {FIRST:#x} and {LIMIT:#x}")]
    NotPages {
        /// The mapping's name.
        name: &'static str,
        /// Its first address.
        gva: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// Two mappings overlap.
    #[error("{first} and {second} overlap at {gva:#x}")]
    Overlap {
        /// The lower mapping's name.
        first: &'static str,
        /// The higher one's.
        second: &'static str,
        /// Where the higher one starts.
        gva: u64,
    },
    /// Shared pages would be writable.
    #[error("{name}: shared pages cannot be writable")]
    SharedWritable {
        /// The mapping's name.
        name: &'static str,
    },
}

/// The lowest address that may be mapped: a null pointer, also one with an
/// offset, must fault.
pub const FIRST: u64 = 0x1_0000;
/// The first address that may not be: 64 GiB, far within the lower half.
pub const LIMIT: u64 = 1 << 36;

/// How many pages of addresses a backend gets for its own supervisor pages.
pub const SUPERVISOR_PAGES: u64 = 3;

impl AddressSpace {
    /// Checks and sorts the mappings. At `supervisor` a backend may map
    /// [`SUPERVISOR_PAGES`] pages of its own, out of ring 3's reach.
    ///
    /// # Errors
    ///
    /// [`SpaceError`] names the first thing that is wrong.
    pub fn new(mut mappings: Vec<Mapping>, supervisor: Gva) -> Result<Self, SpaceError> {
        mappings.sort_by_key(|mapping| mapping.gva);
        let reserved = Mapping {
            name: "supervisor pages",
            gva: supervisor,
            len: SUPERVISOR_PAGES * PAGE_BYTES,
            protection: Protection::Read,
            backing: Backing::Private(0),
        };
        let mut all = mappings.clone();
        all.push(reserved);
        all.sort_by_key(|mapping| mapping.gva);
        for mapping in &all {
            check(mapping)?;
        }
        for (lower, higher) in all.iter().zip(all.iter().skip(1)) {
            if higher.gva.0 < lower.end() {
                let (first, second, gva) = (lower.name, higher.name, higher.gva.0);
                return Err(SpaceError::Overlap { first, second, gva });
            }
        }
        let private_len = mappings.iter().filter_map(private_end).max().unwrap_or(0);
        Ok(Self { mappings, supervisor: supervisor.0, private_len })
    }

    /// The mappings, by address.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Where a backend may map its own pages.
    pub fn supervisor(&self) -> Gva {
        Gva(self.supervisor)
    }

    /// How many bytes of private memory the mappings use.
    pub fn private_len(&self) -> u64 {
        self.private_len
    }

    /// The mapping that an address is in.
    pub fn find(&self, gva: Gva) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.gva <= gva);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        (gva.0 < mapping.end()).then_some(mapping)
    }

    /// The one place where a claim becomes a fact: returns where the bytes are,
    /// if all of them are in one mapping that allows the access.
    pub fn resolve(&self, slice: GuestSlice, need: Access) -> Option<(Backing, usize)> {
        let mapping = self.find(slice.gva)?;
        let inside = slice.gva.0 - mapping.gva.0;
        if slice.len > mapping.len - inside || !mapping.protection.allows(need) {
            return None;
        }
        let backing = match mapping.backing {
            Backing::Shared(offset) => Backing::Shared(offset + inside),
            Backing::Private(offset) => Backing::Private(offset + inside),
        };
        Some((backing, usize::try_from(slice.len).ok()?))
    }

    /// What is at an address that is no mapping's, for messages.
    pub fn describe(&self, gva: Gva) -> String {
        if let Some(mapping) = self.find(gva) {
            return format!("{} ({})", mapping.name, mapping.protection);
        }
        if gva.0 < FIRST {
            return "the null pages (unmapped)".to_owned();
        }
        let supervisor = self.supervisor..self.supervisor + SUPERVISOR_PAGES * PAGE_BYTES;
        if supervisor.contains(&gva.0) {
            return "the supervisor pages".to_owned();
        }
        let above = self.mappings.iter().find(|mapping| mapping.gva > gva);
        match above.filter(|mapping| mapping.gva.0 - gva.0 <= PAGE_BYTES) {
            Some(mapping) => format!("the guard page below the {} (unmapped)", mapping.name),
            None => "nothing (unmapped)".to_owned(),
        }
    }
}

fn check(mapping: &Mapping) -> Result<(), SpaceError> {
    let Mapping { name, gva: Gva(gva), len, .. } = *mapping;
    let end = gva.checked_add(len).filter(|end| *end <= LIMIT);
    let pages = gva.is_multiple_of(PAGE_BYTES) && len.is_multiple_of(PAGE_BYTES);
    if end.is_none() || !pages || len == 0 || gva < FIRST {
        return Err(SpaceError::NotPages { name, gva, len });
    }
    if matches!(mapping.backing, Backing::Shared(_)) && mapping.protection.allows(Access::Write) {
        return Err(SpaceError::SharedWritable { name });
    }
    Ok(())
}

fn private_end(mapping: &Mapping) -> Option<u64> {
    match mapping.backing {
        Backing::Shared(_) => None,
        Backing::Private(offset) => Some(offset + mapping.len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPERVISOR: Gva = Gva(0x90_0000);

    fn map(name: &'static str, gva: u64, pages: u64, protection: Protection) -> Mapping {
        let backing = match protection {
            Protection::ReadWrite => Backing::Private(0),
            Protection::Read | Protection::ReadExecute => Backing::Shared(0),
        };
        Mapping { name, gva: Gva(gva), len: pages * PAGE_BYTES, protection, backing }
    }

    fn space() -> AddressSpace {
        let text = map("text", 0x40_0000, 2, Protection::ReadExecute);
        let data = map("data", 0x40_2000, 1, Protection::ReadWrite);
        let stack = map("stack", 0x50_0000, 4, Protection::ReadWrite);
        AddressSpace::new(vec![stack, data, text], SUPERVISOR).unwrap()
    }

    fn resolves(gva: u64, len: u64, need: Access) -> bool {
        space().resolve(GuestSlice { gva: Gva(gva), len }, need).is_some()
    }

    #[test]
    fn a_claim_holds_only_within_one_mapping() {
        assert!(resolves(0x40_0000, 0x2000, Access::Read));
        assert!(!resolves(0x40_0000, 0x2001, Access::Read), "text and data are two mappings");
        assert!(!resolves(0x3f_ffff, 2, Access::Read));
        assert!(!resolves(0x40_2fff, 2, Access::Read));
        assert!(!resolves(0x40_2000, u64::MAX, Access::Read));
        assert!(!resolves(u64::MAX, 1, Access::Read));
        assert!(!resolves(0, 0, Access::Read));
        assert!(!resolves(SUPERVISOR.0, 1, Access::Read));
    }

    #[test]
    fn only_writable_mappings_can_be_written() {
        assert!(!resolves(0x40_0000, 1, Access::Write));
        assert!(resolves(0x40_2000, 1, Access::Write));
    }

    #[test]
    fn bad_sets_of_mappings_are_refused_by_name() {
        let error = |mappings| AddressSpace::new(mappings, SUPERVISOR).unwrap_err().to_string();
        let text = map("text", 0x40_0000, 2, Protection::ReadExecute);
        let data = map("data", 0x40_1000, 1, Protection::ReadWrite);
        assert_eq!(error(vec![data, text]), "text and data overlap at 0x401000");
        let odd = map("odd", 0x40_0001, 1, Protection::Read);
        assert!(error(vec![odd]).contains("odd: 4096 bytes at 0x400001"));
        assert!(error(vec![map("null", 0, 1, Protection::Read)]).starts_with("null"));
        assert!(error(vec![map("far", LIMIT, 1, Protection::Read)]).starts_with("far"));
        let over = map("over", SUPERVISOR.0 + PAGE_BYTES, 1, Protection::Read);
        assert!(error(vec![over]).contains("supervisor pages and over overlap"));
        let shared = Mapping { backing: Backing::Shared(0), ..data };
        assert_eq!(error(vec![shared]), "data: shared pages cannot be writable");
    }

    #[test]
    fn an_address_is_described_by_what_is_there() {
        assert_eq!(space().describe(Gva(0x40_0123)), "text (r-x)");
        assert_eq!(space().describe(Gva(8)), "the null pages (unmapped)");
        assert_eq!(space().describe(Gva(0x4f_fff8)), "the guard page below the stack (unmapped)");
        assert_eq!(space().describe(Gva(0x60_0000)), "nothing (unmapped)");
        assert_eq!(space().describe(SUPERVISOR), "the supervisor pages");
    }
}
