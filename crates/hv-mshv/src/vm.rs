//! A VM and its memory: what is mapped, and what was written.
//!
//! The call that maps memory is a safe function, and takes the caller's word for
//! what is behind an address. So a [`Vm`] keeps the regions that it maps until
//! after the hypervisor's VM is gone, and maps nothing but whole pages of them.
//! The kernel pins all that is mapped: memory is taken when it is mapped, not
//! when it is touched.

use std::io;
use std::sync::Arc;

use cellule_hv::PageSet;
use cellule_mem::{PAGE_BYTES, Region};
use mshv_ioctls::{VcpuFd, VmFd};

use crate::dirty::{self, Account};
use crate::error;
use crate::layout::{self, Home, May, Piece};

/// A VM and its memory.
///
/// Fields are dropped in order: the VM before its memory.
#[derive(Debug)]
pub(crate) struct Vm {
    fd: VmFd,
    /// What partitions share: kept for as long as the VM can reach it.
    fixed: Arc<Region>,
    private: Arc<Region>,
    /// How much of the private region is mapped; all, once extended.
    mapped: usize,
    /// What was written, once that is tracked.
    account: Option<Account>,
    /// Calls into the hypervisor, after creation.
    pub(crate) calls: u64,
}

impl Vm {
    /// Maps what partitions share, and `early` bytes of the private memory.
    pub(crate) fn new(
        fd: VmFd,
        (fixed, pieces): (Arc<Region>, &[Piece]),
        (private, early): (Arc<Region>, usize),
    ) -> io::Result<Self> {
        let mut vm = Self { fd, fixed, private, mapped: 0, account: None, calls: 0 };
        let fixed = Arc::clone(&vm.fixed);
        for piece in pieces {
            vm.map(Home::Fixed, &fixed, piece)?;
        }
        vm.map_private(early)?;
        vm.calls = 0;
        Ok(vm)
    }

    /// Makes the VM's only vCPU.
    pub(crate) fn create_vcpu(&self) -> io::Result<VcpuFd> {
        error::persist(|| self.fd.create_vcpu(0))
    }

    /// Maps the rest of the private memory: a call. Whether there was any.
    pub(crate) fn extend(&mut self) -> io::Result<bool> {
        let is_late = self.mapped < self.private.len();
        if is_late {
            self.map_private(self.private.len())?;
        }
        Ok(is_late)
    }

    /// Keeps account from now on of what is written: two calls. Whether it did not
    /// before.
    pub(crate) fn track(&mut self) -> io::Result<bool> {
        if self.account.is_some() {
            return Ok(false);
        }
        error::persist(|| {
            self.calls += 1;
            self.fd.enable_dirty_page_tracking()
        })?;
        // What was written before does not count.
        dirty::collect(&self.fd, self.pages(), &mut Account::default(), &mut self.calls)?;
        self.account = Some(Account::default());
        Ok(true)
    }

    /// Adds what was written: a call for each 256 MiB. `None` if that is not tracked.
    pub(crate) fn dirty(&mut self, pages: &mut PageSet) -> io::Result<Option<()>> {
        Ok(self.collect()?.map(|account| account.add_to(pages)))
    }

    /// Takes pages out of the account, with what the guest wrote by now: as many
    /// calls. `None` if it is not kept.
    pub(crate) fn rearm(&mut self, pages: &PageSet) -> io::Result<Option<()>> {
        Ok(self.collect()?.map(|account| account.remove(pages)))
    }

    /// Brings the account up to date.
    fn collect(&mut self) -> io::Result<Option<&mut Account>> {
        let pages = self.pages();
        let Some(account) = &mut self.account else { return Ok(None) };
        dirty::collect(&self.fd, pages, account, &mut self.calls)?;
        Ok(Some(account))
    }

    /// How many pages of private memory are mapped.
    fn pages(&self) -> usize {
        self.mapped / PAGE_BYTES
    }

    /// Maps private memory up to `end`.
    fn map_private(&mut self, end: usize) -> io::Result<()> {
        let piece = Piece { range: self.mapped..end, may: May::Write };
        let private = Arc::clone(&self.private);
        self.map(Home::Private, &private, &piece)?;
        self.mapped = end;
        Ok(())
    }

    /// Maps a piece of a region, which must be one of the two that are kept.
    fn map(&mut self, home: Home, region: &Region, piece: &Piece) -> io::Result<()> {
        // A range beyond the region would let the guest reach memory of the host's.
        let request = layout::request(home, region, piece).ok_or(io::ErrorKind::InvalidInput)?;
        error::persist(|| {
            self.calls += 1;
            self.fd.map_user_memory(request)
        })
    }
}
