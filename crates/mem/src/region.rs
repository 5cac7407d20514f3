//! `Region`: memory that a guest runs in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::map::{self, MapError, Mapping, Sealed};
use crate::{PAGE_BYTES, copy};

/// Memory that a guest runs in, mapped in this process for as long as the
/// region lives.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let region = cellule_mem::Region::demand_zero(256 << 20)?;
/// region.write(4096, b"hello")?;
/// assert_eq!(region.read_vec(4094, 7)?, b"\0\0hello");
/// assert!(region.read_vec(region.len() - 1, 2).is_err());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
    writable: bool,
    growing: Option<Growing>,
}

/// The file behind a region that is not all there yet.
#[derive(Debug)]
struct Growing {
    file: File,
    /// How long the file is at least: beyond its end, an access is SIGBUS.
    now: AtomicUsize,
}

/// Where a region is mapped, for the backend that tells the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPtr(pub u64);

/// A range that is not within its region, or not writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset:#x} are outside of a region of {limit} bytes")]
pub struct OutOfBounds {
    /// Where the range starts, in bytes from the start of the region.
    pub offset: usize,
    /// The length of the range in bytes.
    pub len: usize,
    /// How many bytes of the region may be accessed so.
    pub limit: usize,
}

impl Region {
    /// Maps `len` bytes of zeros, which take memory once they are touched.
    ///
    /// # Errors
    ///
    /// [`MapError`] if `len` is not a positive number of pages or the system refuses.
    ///
    /// # Cost
    ///
    /// Two system calls, whatever the length.
    pub fn demand_zero(len: usize) -> Result<Self, MapError> {
        Ok(Self { mapping: Mapping::demand_zero(len)?, writable: true, growing: None })
    }

    /// Maps sealed pages one part after another; writes are refused.
    ///
    /// # Errors
    ///
    /// [`MapError`] if there is no part or the system refuses.
    pub fn read_only(parts: &[&Sealed]) -> Result<Self, MapError> {
        Ok(Self { mapping: Mapping::stitched(parts)?, writable: false, growing: None })
    }

    /// Maps sealed parts one after another and `zero_len` bytes of zeros behind them,
    /// all writable. A page of a part is shared with whoever else maps it until it
    /// is written: then this region has one of its own, and nobody else sees that.
    ///
    /// # Errors
    ///
    /// [`MapError`] if `zero_len` is not a number of pages or the system refuses.
    ///
    /// # Cost
    ///
    /// Two system calls and one for each part, whatever the lengths. The kernel maps
    /// up to 16 pages of a part when one of them is read, and counts them all as
    /// resident memory of this process, though they are the same for everybody.
    pub fn copy_on_write(parts: &[&Sealed], zero_len: usize) -> Result<Self, MapError> {
        let mapping = Mapping::copy_on_write(parts, zero_len)?;
        Ok(Self { mapping, writable: true, growing: None })
    }

    /// Maps `len` bytes of zeros that another process can map, too: those of a
    /// [`file`](Self::file) in memory. Of these only the first `now` are there,
    /// until the region is [grown](Self::grow): any other is out of bounds here,
    /// and SIGBUS to the other process.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let region = cellule_mem::Region::growing(256 << 20, 4096)?;
    /// region.write(4090, b"hello!")?;
    /// assert!(region.write(4090, b"hello, world").is_err());
    /// region.grow()?;
    /// region.write(4090, b"hello, world")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`MapError`] if `len` is not a positive number of pages, `now` is more or
    /// not a number of pages, or the system refuses.
    ///
    /// # Cost
    ///
    /// Six system calls, whatever the length, and a descriptor.
    pub fn growing(len: usize, now: usize) -> Result<Self, MapError> {
        if now > len || !now.is_multiple_of(PAGE_BYTES) {
            return Err(MapError::NotPages { len: now });
        }
        let file = map::growing_file(now)?;
        let mapping = Mapping::of_file(&file, len)?;
        let growing = Some(Growing { file, now: AtomicUsize::new(now) });
        Ok(Self { mapping, writable: true, growing })
    }

    /// Makes all of the region be there. The second time, or if it was from the
    /// start, this does nothing.
    ///
    /// # Errors
    ///
    /// What the system said: the region is as it was.
    ///
    /// # Cost
    ///
    /// One system call at most.
    pub fn grow(&self) -> io::Result<()> {
        let Some(growing) = &self.growing else { return Ok(()) };
        if growing.now.load(Ordering::Acquire) < self.len() {
            growing.file.set_len(self.len() as u64)?;
            growing.now.store(self.len(), Ordering::Release);
        }
        Ok(())
    }

    /// The file of a [growing](Self::growing) region. It cannot be made shorter,
    /// by nobody.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.growing.as_ref().map(|growing| growing.file.as_fd())
    }

    /// The length in bytes: whole pages.
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Never: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.mapping.len == 0
    }

    /// Whether the host, and so the guest, may write to it.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where the hypervisor finds it. The address is valid while the region lives.
    pub fn host_ptr(&self) -> HostPtr {
        HostPtr(self.mapping.start.as_ptr() as u64)
    }

    /// Makes the pages of a range be there, as if they had been written to.
    /// Only advice: where the system cannot, they appear when touched.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if the range is not within a writable region.
    ///
    /// # Cost
    ///
    /// One system call, and a page of memory for each page that was not there.
    pub fn populate(&self, offset: usize, len: usize) -> Result<(), OutOfBounds> {
        self.checked(offset, len, self.writable_len())?;
        self.mapping.populate(offset, len);
        Ok(())
    }

    /// Fills `to` with a copy of the bytes from `offset`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`], and nothing was copied.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.checked(offset, to.len(), self.limit())?;
        // SAFETY: `checked` found the range within the mapping; `to` is a
        // buffer of the host's, which no guest region overlaps.
        unsafe { copy::bytes(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Returns a copy of `len` bytes from `offset`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`], before anything is allocated.
    ///
    /// # Cost
    ///
    /// One allocation and one copy; the buffer is not zeroed first.
    pub fn read_vec(&self, offset: usize, len: usize) -> Result<Vec<u8>, OutOfBounds> {
        let from = self.checked(offset, len, self.limit())?;
        let mut bytes = Vec::with_capacity(len);
        // SAFETY: `checked` found the range within the mapping; the vector has
        // room for `len` bytes and is new, so nothing overlaps it.
        unsafe { copy::bytes(from, bytes.as_mut_ptr(), len) };
        // SAFETY: `len` is within the capacity, and so many bytes were written.
        unsafe { bytes.set_len(len) };
        Ok(bytes)
    }

    /// Copies `from` to `offset`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if the range is not within a writable region.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.checked(offset, from.len(), self.writable_len())?;
        // SAFETY: `checked` found the range within the mapping, which is
        // writable; `from` is memory of the host's, which no region overlaps.
        unsafe { copy::bytes(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Reads the aligned word at `offset`, with acquire ordering.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if it is not aligned or not within the region.
    pub fn load_u32(&self, offset: usize) -> Result<u32, OutOfBounds> {
        let at = self.word(offset, self.limit())?;
        // SAFETY: `word` checked bounds and alignment.
        Ok(unsafe { copy::load_u32(at) })
    }

    /// Writes the aligned word at `offset`, with release ordering.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if it is not aligned or not within a writable region.
    pub fn store_u32(&self, offset: usize, value: u32) -> Result<(), OutOfBounds> {
        let at = self.word(offset, self.writable_len())?;
        // SAFETY: `word` checked bounds and alignment, and writability by the limit.
        unsafe { copy::store_u32(at, value) };
        Ok(())
    }

    /// How many bytes are there.
    fn limit(&self) -> usize {
        let now = |growing: &Growing| growing.now.load(Ordering::Acquire);
        self.growing.as_ref().map_or(self.mapping.len, now)
    }

    fn writable_len(&self) -> usize {
        if self.writable { self.limit() } else { 0 }
    }

    fn checked(&self, offset: usize, len: usize, limit: usize) -> Result<*mut u8, OutOfBounds> {
        match offset.checked_add(len) {
            // SAFETY: offset is at most the limit, which is at most the length
            // of the mapping: one past the end at the furthest.
            Some(end) if end <= limit => Ok(unsafe { self.mapping.start.as_ptr().add(offset) }),
            _ => Err(OutOfBounds { offset, len, limit }),
        }
    }

    fn word(&self, offset: usize, limit: usize) -> Result<*mut u32, OutOfBounds> {
        if !offset.is_multiple_of(align_of::<u32>()) {
            return Err(OutOfBounds { offset, len: size_of::<u32>(), limit });
        }
        self.checked(offset, size_of::<u32>(), limit).map(<*mut u8>::cast)
    }
}

const _: () = assert!(PAGE_BYTES.is_multiple_of(align_of::<u32>()), "regions are word-aligned");

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn no_range_beyond_the_end_is_accessible() {
        let region = Region::demand_zero(PAGE_BYTES).unwrap();
        let bad = [(PAGE_BYTES, 1), (PAGE_BYTES - 1, 2), (usize::MAX, 1), (1, usize::MAX)];
        for (offset, len) in bad {
            let expected = OutOfBounds { offset, len, limit: PAGE_BYTES };
            assert_eq!(region.read_vec(offset, len), Err(expected));
        }
        assert!(region.read(PAGE_BYTES, &mut []).is_ok(), "nothing at the very end is in range");
        assert!(region.write(PAGE_BYTES - 1, &[1, 2]).is_err());
        assert!(region.load_u32(PAGE_BYTES).is_err());
        assert!(region.load_u32(2).is_err(), "a word that is not aligned is no word");
    }

    #[test]
    fn sealed_pages_are_read_back_and_refuse_writes() {
        let first = Sealed::new(b"first").unwrap();
        let second = Sealed::new(&vec![7; PAGE_BYTES + 1]).unwrap();
        let region = Region::read_only(&[&first, &second]).unwrap();
        assert_eq!(region.len(), 3 * PAGE_BYTES);
        assert_eq!(region.read_vec(0, 6).unwrap(), b"first\0");
        assert_eq!(region.read_vec(2 * PAGE_BYTES, 2).unwrap(), [7, 0]);
        assert_eq!(region.write(0, &[1]).unwrap_err().limit, 0);
        assert!(region.store_u32(0, 1).is_err());
    }

    #[test]
    fn what_is_written_to_a_copy_on_write_region_is_nowhere_else() {
        let front = Sealed::new(&[7; PAGE_BYTES + 1]).unwrap();
        let make = || Region::copy_on_write(&[&front], 3 * PAGE_BYTES).unwrap();
        let regions = [make(), make()];
        assert_eq!(regions[0].len(), 5 * PAGE_BYTES);
        assert_eq!(regions[0].read_vec(PAGE_BYTES, 3).unwrap(), [7, 0, 0]);
        // The second page of the front, and the zeros right behind it.
        regions[0].write(2 * PAGE_BYTES - 1, b"ab").unwrap();
        regions[0].populate(0, 1).unwrap();
        assert_eq!(regions[0].read_vec(0, 2).unwrap(), [7, 7]);
        assert_eq!(regions[0].read_vec(2 * PAGE_BYTES - 1, 3).unwrap(), b"ab\0");
        for other in [&regions[1], &make(), &Region::read_only(&[&front]).unwrap()] {
            assert_eq!(other.read_vec(PAGE_BYTES, 2).unwrap(), [7, 0]);
            assert_eq!(other.read_vec(2 * PAGE_BYTES - 1, 1).unwrap(), [0]);
        }
        let mut file = vec![0; front.len()];
        let descriptor = front.file().try_clone_to_owned().unwrap();
        File::from(descriptor).read_exact_at(&mut file, 0).unwrap();
        assert_eq!(file.iter().filter(|byte| **byte == 7).count(), PAGE_BYTES + 1);
        assert_eq!(file.iter().filter(|byte| **byte == 0).count(), PAGE_BYTES - 1);
    }

    #[test]
    fn the_parts_of_a_copy_on_write_region_are_in_order_and_zeros_follow() {
        let parts = [Sealed::new(b"first").unwrap(), Sealed::new(&[7; PAGE_BYTES]).unwrap()];
        let region = Region::copy_on_write(&[&parts[0], &parts[1]], PAGE_BYTES).unwrap();
        assert_eq!(region.read_vec(0, 6).unwrap(), b"first\0");
        assert_eq!(region.read_vec(PAGE_BYTES - 1, 2).unwrap(), [0, 7]);
        assert_eq!(region.read_vec(2 * PAGE_BYTES - 1, 2).unwrap(), [7, 0]);
    }

    #[test]
    fn a_growing_region_is_out_of_bounds_beyond_what_is_there() {
        let region = Region::growing(3 * PAGE_BYTES, PAGE_BYTES).unwrap();
        let limit = |result: Result<(), OutOfBounds>| result.unwrap_err().limit;
        assert_eq!(region.len(), 3 * PAGE_BYTES);
        assert_eq!(limit(region.write(PAGE_BYTES - 1, &[1, 2])), PAGE_BYTES);
        assert_eq!(limit(region.read(PAGE_BYTES, &mut [0])), PAGE_BYTES);
        assert_eq!(limit(region.store_u32(PAGE_BYTES, 1)), PAGE_BYTES);
        assert_eq!(limit(region.load_u32(PAGE_BYTES).map(drop)), PAGE_BYTES);
        assert_eq!(limit(region.populate(0, PAGE_BYTES + 1)), PAGE_BYTES);
        region.write(PAGE_BYTES - 1, &[7]).unwrap();
        region.grow().unwrap();
        region.grow().unwrap();
        assert_eq!(region.read_vec(PAGE_BYTES - 1, 2).unwrap(), [7, 0]);
        assert_eq!(limit(region.write(3 * PAGE_BYTES, &[1])), 3 * PAGE_BYTES);
    }

    #[test]
    fn a_growing_region_cannot_be_made_shorter_by_who_has_its_file() {
        let region = Region::growing(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
        let file = File::from(region.file().unwrap().try_clone_to_owned().unwrap());
        assert!(file.set_len(0).is_err());
        region.grow().unwrap();
        assert!(file.set_len(PAGE_BYTES as u64).is_err());
    }

    #[test]
    fn a_growing_region_and_its_file_are_the_same_bytes() {
        let region = Region::growing(PAGE_BYTES, PAGE_BYTES).unwrap();
        let file = File::from(region.file().unwrap().try_clone_to_owned().unwrap());
        region.write(100, b"hello").unwrap();
        let mut bytes = [0; 5];
        file.read_exact_at(&mut bytes, 100).unwrap();
        assert_eq!(&bytes, b"hello");
        assert!(Region::demand_zero(PAGE_BYTES).unwrap().file().is_none());
    }

    #[test]
    fn lengths_that_are_not_pages_are_refused() {
        for (len, now) in [(0, 0), (1, 0), (PAGE_BYTES, 1), (PAGE_BYTES, 2 * PAGE_BYTES)] {
            assert!(matches!(Region::growing(len, now), Err(MapError::NotPages { .. })));
        }
        for len in [0, 1, PAGE_BYTES + 1] {
            assert!(matches!(Region::demand_zero(len), Err(MapError::NotPages { .. })));
        }
        let front = Sealed::new(&[1]).unwrap();
        for len in [1, usize::MAX] {
            let region = Region::copy_on_write(&[&front], len);
            assert!(matches!(region, Err(MapError::NotPages { .. })));
        }
        assert!(matches!(Sealed::new(&[]), Err(MapError::NotPages { len: 0 })));
    }

    #[test]
    fn a_copy_under_a_concurrent_writer_ends_and_keeps_its_length() {
        let region = Region::demand_zero(PAGE_BYTES).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..=255).for_each(|n| region.write(0, &[n; 64]).unwrap()));
            for _ in 0..1000 {
                assert_eq!(region.read_vec(0, 64).unwrap().len(), 64);
            }
        });
    }
}
