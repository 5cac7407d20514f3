//! A partition: a VM, its memory, its processors.

use std::collections::HashMap;
use std::ffi::{c_int, c_ulong};
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mshv_bindings::{
    HV_STATUS_INVALID_VP_INDEX, HV_STATUS_OPERATION_FAILED, mshv_create_vp,
    mshv_gpap_access_bitmap, mshv_root_hvcall, mshv_user_mem_region,
};

use crate::caller;
use crate::dirty::{self, Account};
use crate::errno::{Errno, missing};
use crate::handles::{self, Handle};
use crate::host::Host;
use crate::hypercall::{self, Origin, Status};
use crate::kvm::{self, Plain};
use crate::memory::Memory;
use crate::processor::{Processor, State};
use crate::property::Banks;
use crate::request::{Copied, request};

const INITIALIZE: c_ulong = request(Copied::No, 0x00, 0);
const CREATE_VP: c_ulong = request(Copied::In, 0x01, size_of::<mshv_create_vp>());
const SET_GUEST_MEMORY: c_ulong = request(Copied::In, 0x02, size_of::<mshv_user_mem_region>());
const GET_GPAP_ACCESS_BITMAP: c_ulong =
    request(Copied::Both, 0x06, size_of::<mshv_gpap_access_bitmap>());
const ROOT_HVCALL: c_ulong = request(Copied::Both, 0x07, size_of::<mshv_root_hvcall>());

/// As many as there are in the driver (MSHV_MAX_VPS).
const MAX_PROCESSORS: u32 = 256;
/// What the driver makes of HV_STATUS_INVALID_PARTITION_STATE.
const NOT_INITIALISED: Errno = Errno(libc::EIO);

/// A partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) host: &'static Host,
    /// Only used for ioctls on this very descriptor, so it is open.
    vm: c_int,
    made: Instant,
    pub(crate) banks: Banks,
    state: Mutex<PartitionState>,
}

#[derive(Debug, Default)]
struct PartitionState {
    is_initialised: bool,
    synthetic_features: u64,
    memory: Memory,
    account: Account,
    processors: HashMap<u32, Arc<Processor>>,
}

impl Partition {
    pub(crate) fn new(host: &'static Host, vm: c_int, banks: Banks) -> Self {
        Self { host, vm, made: Instant::now(), banks, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, PartitionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what an ioctl on the partition's descriptor asks for.
    pub(crate) fn ioctl(
        self: &Arc<Self>,
        request: c_ulong,
        argument: c_ulong,
    ) -> Result<c_int, Errno> {
        match request {
            INITIALIZE => self.state().is_initialised = true,
            CREATE_VP => return self.create_processor(argument),
            SET_GUEST_MEMORY => {
                let mut state = self.state();
                if !state.is_initialised {
                    return Err(NOT_INITIALISED);
                }
                state.memory.set(self.vm, argument)?;
            }
            GET_GPAP_ACCESS_BITMAP => {
                let mut state = self.state();
                let PartitionState { memory, account, .. } = &mut *state;
                account.query(self.vm, memory, argument)?;
            }
            ROOT_HVCALL => hypercall::answer(Origin::Partition(self), argument)?,
            request => return Err(missing("no ioctl of a partition", request)),
        }
        Ok(0)
    }

    /// Its index stays taken after its descriptor is closed, as with the driver.
    fn create_processor(self: &Arc<Self>, argument: c_ulong) -> Result<c_int, Errno> {
        let index = u32::from_le_bytes(caller::read_struct(argument)?);
        let mut state = self.state();
        if index >= MAX_PROCESSORS {
            return Err(Errno(libc::EINVAL));
        }
        if state.processors.contains_key(&index) {
            return Err(Errno(libc::EEXIST));
        }
        if !state.is_initialised {
            return Err(NOT_INITIALISED);
        }
        let vcpu = kvm::plain(self.vm, Plain::CreateVcpu, c_ulong::from(index))?;
        let processor = match Processor::new(self.host, vcpu, index, self.made) {
            Ok(processor) => Arc::new(processor),
            Err(errno) => {
                handles::discard(vcpu);
                return Err(errno);
            }
        };
        state.processors.insert(index, Arc::clone(&processor));
        handles::learn(vcpu, Handle::Processor(Arc::clone(self), processor));
        Ok(vcpu)
    }

    /// Uses one of its processors.
    pub(crate) fn with_processor<T>(
        &self,
        index: u32,
        work: impl FnOnce(&mut State) -> T,
    ) -> Result<Result<T, Errno>, Status> {
        let processor = self.state().processors.get(&index).cloned();
        let processor = processor.ok_or(Status(HV_STATUS_INVALID_VP_INDEX))?;
        Ok(processor.with(|state| Ok(work(state))))
    }

    /// The frequency of the time stamp counter.
    pub(crate) fn tsc_hz(&self) -> Option<u64> {
        let khz = kvm::plain(self.vm, Plain::TscKhz, 0).ok()?;
        Some(u64::try_from(khz).ok()? * 1000)
    }

    pub(crate) fn is_initialised(&self) -> bool {
        self.state().is_initialised
    }

    pub(crate) fn synthetic_features(&self) -> u64 {
        self.state().synthetic_features
    }

    /// Sets them, unless it is too late.
    pub(crate) fn set_synthetic_features(&self, value: u64) -> Result<(), ()> {
        let mut state = self.state();
        if state.is_initialised {
            return Err(());
        }
        state.synthetic_features = value;
        Ok(())
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.state().memory.is_tracked
    }

    /// Switches tracking of writes on, or off if all pages are marked.
    pub(crate) fn track(&self, is_tracked: bool) -> Result<(), Status> {
        const FAILED: Status = Status(HV_STATUS_OPERATION_FAILED);
        let mut state = self.state();
        let PartitionState { memory, account, .. } = &mut *state;
        if memory.is_tracked == is_tracked {
            return Ok(());
        }
        if is_tracked {
            dirty::prepare(self.vm).map_err(|_| FAILED)?;
        } else if !account.is_full(self.vm, memory).map_err(|_| FAILED)? {
            return Err(FAILED);
        }
        account.reset();
        memory.track(self.vm, is_tracked).map_err(|_| FAILED)
    }

    /// How often its memory was changed.
    pub(crate) fn memory_changes(&self) -> u64 {
        self.state().memory.changes()
    }

    /// Whether there is any memory at an address.
    pub(crate) fn is_mapped(&self, gpa: u64) -> bool {
        self.state().memory.is_mapped(gpa)
    }

    /// Copies from its memory, within a page.
    pub(crate) fn read(&self, gpa: u64, bytes: &mut [u8]) -> Option<()> {
        self.state().memory.read(gpa, bytes)
    }
}
