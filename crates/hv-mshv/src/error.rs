//! What Microsoft's hypervisor says when it refuses, in the system's words.
//!
//! A call fails in the kernel, with an errno, or in the hypervisor, with a
//! status. Both become [`io::Error`]s; that of a status still says which call it
//! was and which status, and has a kind where there is one that fits.
//!
//! One status is no failure: the hypervisor takes the memory that it needs for a
//! partition from whoever made it, and asks for more with "insufficient memory".
//! The kernel gives it a page, and leaves it to the caller to try again
//! (`mshv_ioctl_passthru_hvcall` in Linux, drivers/hv/mshv_root_main.c).

use std::io;

use mshv_bindings::HvError;
use mshv_ioctls::MshvError;

/// How often a call is tried at most: the kernel adds a page of memory each time.
const ATTEMPTS: u32 = 256;

/// Calls until it is no longer only for a moment that the call fails.
pub(crate) fn persist<T>(mut call: impl FnMut() -> Result<T, MshvError>) -> io::Result<T> {
    let mut attempt = 1;
    loop {
        match call() {
            Err(error) if attempt < ATTEMPTS && is_passing(&error) => attempt += 1,
            result => return result.map_err(translate),
        }
    }
}

/// Whether the same call may succeed if it is made again at once.
fn is_passing(error: &MshvError) -> bool {
    match error {
        MshvError::Errno(errno) => matches!(errno.errno(), libc::EAGAIN | libc::EINTR),
        MshvError::Hypercall { status, .. } => *status == Some(HvError::InsufficientMemory),
    }
}

/// No status is "invalid input": that is what a caller's misuse is called here.
pub(crate) fn translate(error: MshvError) -> io::Error {
    use HvError::{AccessDenied, InsufficientMemory, InsufficientRootMemory, OperationDenied};
    let kind = match &error {
        MshvError::Errno(errno) => return io::Error::from_raw_os_error(errno.errno()),
        MshvError::Hypercall { status: Some(status), .. } => match status {
            InsufficientMemory | InsufficientRootMemory => io::ErrorKind::OutOfMemory,
            AccessDenied | OperationDenied => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        },
        MshvError::Hypercall { status: None, .. } => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use mshv_bindings::{
        HV_STATUS_ACCESS_DENIED, HV_STATUS_INSUFFICIENT_MEMORY, HV_STATUS_INVALID_PARAMETER,
        HVCALL_SET_VP_REGISTERS,
    };

    use super::*;

    fn status(status: u32) -> MshvError {
        let status_raw = u16::try_from(status).unwrap();
        let code = u16::try_from(HVCALL_SET_VP_REGISTERS).unwrap();
        MshvError::Hypercall { code, status_raw, status: HvError::try_from(status_raw).ok() }
    }

    #[test]
    fn an_errno_stays_one_and_a_status_has_a_kind() {
        let kernel = translate(MshvError::from(libc::EEXIST));
        assert_eq!(kernel.raw_os_error(), Some(libc::EEXIST));
        let kinds = [
            (HV_STATUS_INSUFFICIENT_MEMORY, io::ErrorKind::OutOfMemory),
            (HV_STATUS_ACCESS_DENIED, io::ErrorKind::PermissionDenied),
            (HV_STATUS_INVALID_PARAMETER, io::ErrorKind::Other),
            (0xfff0, io::ErrorKind::Other),
        ];
        for (raw, kind) in kinds {
            let error = translate(status(raw));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("Hypercall 81"), "{error} should name the call");
        }
    }

    #[test]
    fn only_what_passes_is_tried_again_and_not_for_ever() {
        let passing =
            [status(HV_STATUS_INSUFFICIENT_MEMORY), libc::EAGAIN.into(), libc::EINTR.into()];
        for error in passing {
            let mut calls = 0;
            let mut twice = || {
                calls += 1;
                if calls < 3 { Err(error) } else { Ok(calls) }
            };
            assert_eq!(persist(&mut twice).unwrap(), 3);
            let mut calls = 0;
            let never = persist(|| -> Result<(), _> {
                calls += 1;
                Err(error)
            });
            assert!(never.is_err());
            assert_eq!(calls, ATTEMPTS);
        }
        let mut calls = 0;
        let refused = persist(|| -> Result<(), _> {
            calls += 1;
            Err(status(HV_STATUS_INVALID_PARAMETER))
        });
        assert!(refused.is_err());
        assert_eq!(calls, 1);
    }
}
