//! The memory of this process as the kernel sees it: a bad address is EFAULT.
//!
//! What a caller of an ioctl points at, and what a guest's memory is made of, is
//! read by the kernel and not through pointers, so that nothing needs to be
//! believed of it.

use std::mem::offset_of;

use libc::{c_void, iovec};

use crate::errno::Errno;

const FAULT: Errno = Errno(libc::EFAULT);

/// Copies from an address of this process.
pub(crate) fn read(address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    let local = iovec { iov_base: bytes.as_mut_ptr().cast::<c_void>(), iov_len: bytes.len() };
    let remote = remote(address, bytes.len())?;
    // SAFETY: `local` is a slice that may be written; the kernel checks `remote`.
    let count = unsafe { libc::process_vm_readv(process(), &local, 1, &remote, 1, 0) };
    is_whole(count, bytes.len())
}

/// Copies to an address of this process, which its caller gave us to write to.
pub(crate) fn write(address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let local =
        iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() };
    let remote = remote(address, bytes.len())?;
    // SAFETY: `local` is a slice that is only read; the kernel checks `remote`,
    // which the caller of the ioctl gave us to write to.
    let count = unsafe { libc::process_vm_writev(process(), &local, 1, &remote, 1, 0) };
    is_whole(count, bytes.len())
}

/// This process: no process has the number that it would be replaced by.
fn process() -> libc::pid_t {
    libc::pid_t::try_from(std::process::id()).unwrap_or(-1)
}

fn remote(address: u64, len: usize) -> Result<iovec, Errno> {
    let address = usize::try_from(address).map_err(|_| FAULT)?;
    Ok(iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: len })
}

fn is_whole(count: isize, len: usize) -> Result<(), Errno> {
    if usize::try_from(count) == Ok(len) { Ok(()) } else { Err(FAULT) }
}

/// A struct of the caller's, as bytes: fields are read at their offsets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(self, offset: usize) -> [u8; N] {
        let part = self.0.get(offset..).and_then(|rest| rest.first_chunk::<N>());
        part.copied().unwrap_or([0; N])
    }

    /// Zero beyond the end, as the fields that follow are.
    pub(crate) fn u8(self, offset: usize) -> u8 {
        u8::from_le_bytes(self.bytes(offset))
    }

    pub(crate) fn u16(self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    pub(crate) fn u32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    pub(crate) fn u64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset))
    }

    pub(crate) fn u128(self, offset: usize) -> u128 {
        u128::from_le_bytes(self.bytes(offset))
    }

    /// Whether all bytes of a reserved field are zero.
    pub(crate) fn is_zero(self, offset: usize, len: usize) -> bool {
        self.0.iter().skip(offset).take(len).all(|byte| *byte == 0)
    }
}

/// Copies a struct of `N` bytes from an address of the caller's.
pub(crate) fn read_struct<const N: usize>(address: u64) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    read(address, &mut bytes)?;
    Ok(bytes)
}

const _: () = assert!(
    offset_of!(mshv_bindings::mshv_root_hvcall, out_ptr) == 24,
    "fields are read at offsets as mshv-bindings has them: is this another version?"
);
