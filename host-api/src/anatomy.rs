//! What an image is made of, and where it would lie in a sandbox: to read only.

use cellule_hv::space::SUPERVISOR_PAGES;
use cellule_hv::{CreateError, Gva, Protection};
use cellule_image::{Protection as InFile, Segment};

use crate::builder::SandboxBuilder;
use crate::error::BuildError;
use crate::image::Image;
use crate::layout::{Layout, Shared};

/// Pages of an image with one protection.
///
/// ```
/// # let image = cellule::Image::from_bytes(cellule_test_guests::basics())?;
/// use cellule::Protection;
/// let text = image.segments().find(|segment| segment.protection() == Protection::ReadExecute);
/// let text = text.ok_or("no code")?;
/// assert!(text.gva() <= image.entry() && text.content_bytes() <= text.bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SegmentInfo<'a>(&'a Segment);

impl SegmentInfo<'_> {
    /// The address of the first byte, once it is mapped.
    pub fn gva(&self) -> Gva {
        Gva(self.0.gva())
    }

    /// The length in memory in bytes: whole pages.
    pub fn bytes(&self) -> u64 {
        self.0.mem_bytes()
    }

    /// How many of them are in the file; what follows is zero at the start.
    pub fn content_bytes(&self) -> u64 {
        self.0.bytes().len() as u64
    }

    /// What the guest may do with them.
    pub fn protection(&self) -> Protection {
        match self.0.protection() {
            InFile::Read => Protection::Read,
            InFile::ReadExecute => Protection::ReadExecute,
            InFile::ReadWrite => Protection::ReadWrite,
        }
    }
}

/// A range of a sandbox's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// What it is: `text`, `stack`.
    pub name: &'static str,
    /// The first address.
    pub gva: Gva,
    /// The length in bytes.
    pub bytes: u64,
    /// What the guest may do with it; `None` if it is out of its reach.
    pub protection: Option<Protection>,
}

impl Image {
    /// The image's segments, by address.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = SegmentInfo<'_>> {
        self.program().segments().iter().map(SegmentInfo)
    }

    /// The address of the first instruction.
    pub fn entry(&self) -> Gva {
        Gva(self.program().entry())
    }

    /// The version of the SDK that the guest was built with, as its note says: for
    /// messages.
    pub fn sdk_version(&self) -> String {
        self.program().sdk_version().to_string()
    }

    /// The address space of a sandbox of default sizes, by address. What is not in it
    /// is not mapped.
    ///
    /// ```
    /// # let image = cellule::Image::from_bytes(cellule_test_guests::basics())?;
    /// let map = image.memory_map()?;
    /// assert!(map.is_sorted_by_key(|region| region.gva));
    /// let heap = map.iter().find(|region| region.name == "heap").ok_or("no heap")?;
    /// assert_eq!(heap.bytes, cellule::DEFAULT_HEAP_BYTES);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the image leaves no room for the rest.
    pub fn memory_map(&self) -> Result<Vec<Region>, BuildError> {
        let sizes = SandboxBuilder::new(self.clone()).sizes()?;
        let shared = Shared::of(self.program());
        let space = Layout::new(self.program(), &shared, sizes).map_err(CreateError::from)?.space;
        let supervisor = Region {
            name: "supervisor pages",
            gva: space.supervisor(),
            bytes: SUPERVISOR_PAGES * cellule_abi::PAGE_BYTES as u64,
            protection: None,
        };
        let mapped = space.mappings().iter().map(|mapping| Region {
            name: mapping.name,
            gva: mapping.gva,
            bytes: mapping.len,
            protection: Some(mapping.protection),
        });
        let mut regions: Vec<_> = mapped.chain([supervisor]).collect();
        regions.sort_by_key(|region| region.gva);
        Ok(regions)
    }
}
