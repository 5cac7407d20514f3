//! Which file descriptors are ours, and what they stand for.
//!
//! The descriptors are KVM's own. A bit for each says whether it may be one of
//! ours, so that all other files of the process pay one load for being here.

use std::collections::HashMap;
use std::ffi::{c_int, c_ulong};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use crate::device;
use crate::errno::Errno;
use crate::partition::Partition;
use crate::processor::Processor;
use crate::real;

/// What a file descriptor stands for.
#[derive(Debug, Clone)]
pub(crate) enum Handle {
    /// `/dev/mshv`.
    Device,
    /// A partition.
    Partition(Arc<Partition>),
    /// A virtual processor, which keeps its partition.
    Processor(Arc<Partition>, Arc<Processor>),
}

impl Handle {
    /// Does what an ioctl asks for.
    pub(crate) fn ioctl(
        &self,
        fd: c_int,
        request: c_ulong,
        argument: c_ulong,
    ) -> Result<c_int, Errno> {
        match self {
            Self::Device => device::ioctl(fd, request, argument),
            Self::Partition(partition) => partition.ioctl(request, argument),
            Self::Processor(partition, processor) => processor.ioctl(partition, request, argument),
        }
    }
}

static TABLE: LazyLock<RwLock<HashMap<c_int, Handle>>> = LazyLock::new(RwLock::default);

const WORDS: usize = 1024;
/// Bit n: descriptor n may be in the table. Those beyond are looked up there.
static MAYBE: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// The word of a descriptor, if it has one, and its bit.
fn place(fd: c_int) -> (Option<&'static AtomicU64>, u64) {
    let fd = usize::try_from(fd).unwrap_or(usize::MAX);
    (MAYBE.get(fd / 64), 1 << (fd % 64))
}

fn may_be_ours(fd: c_int) -> bool {
    let (word, bit) = place(fd);
    fd >= 0 && word.is_none_or(|word| word.load(Ordering::Acquire) & bit != 0)
}

/// What a descriptor stands for, if it is ours.
pub(crate) fn find(fd: c_int) -> Option<Handle> {
    if !may_be_ours(fd) {
        return None;
    }
    TABLE.read().unwrap_or_else(PoisonError::into_inner).get(&fd).cloned()
}

/// Makes a descriptor ours, before the program knows of it.
pub(crate) fn learn(fd: c_int, handle: Handle) {
    TABLE.write().unwrap_or_else(PoisonError::into_inner).insert(fd, handle);
    let (word, bit) = place(fd);
    if let Some(word) = word {
        word.fetch_or(bit, Ordering::Release);
    }
}

/// Gives a descriptor up, before it is closed.
pub(crate) fn forget(fd: c_int) {
    if !may_be_ours(fd) {
        return;
    }
    let handle = TABLE.write().unwrap_or_else(PoisonError::into_inner).remove(&fd);
    let (word, bit) = place(fd);
    if let Some(word) = word {
        word.fetch_and(!bit, Ordering::Release);
    }
    // Not while the table is locked: what it keeps may be unmapped here.
    if let Some(Handle::Processor(_, processor)) = handle {
        processor.retire();
    }
}

/// Closes a descriptor that nobody was told of.
pub(crate) fn discard(fd: c_int) {
    // SAFETY: the caller made it, and nobody else knows it.
    let _ = unsafe { real::close(fd) };
}
