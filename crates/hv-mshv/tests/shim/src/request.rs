//! Numbers of MSHV's ioctls: include/uapi/asm-generic/ioctl.h.

use std::ffi::c_ulong;

use mshv_bindings::MSHV_IOCTL;

/// Which way an ioctl's argument is copied.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Copied {
    No = 0,
    In = 1,
    Out = 2,
    Both = 3,
}

/// The number of an ioctl whose argument has so many bytes.
#[allow(clippy::as_conversions, reason = "a constant; sizes are below 2^14")]
pub(crate) const fn request(copied: Copied, number: u8, size: usize) -> c_ulong {
    (copied as c_ulong) << 30
        | (size as c_ulong) << 16
        | (MSHV_IOCTL as c_ulong) << 8
        | number as c_ulong
}

const _: () = assert!(request(Copied::Out, 0, 256) == 0x8100_b800, "MSHV_RUN_VP");
