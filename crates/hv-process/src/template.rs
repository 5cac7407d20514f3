//! What all partitions of one image and layout share: the stub, and a few numbers.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::sync::Arc;

use cellule_hv::space::PAGE_BYTES;
use cellule_hv::{AddressSpace, CreateError, Partition, Plan, Registers, Template};
use cellule_mem::{Region, Sealed};

use crate::dirty::Way;
use crate::partition::ProcessPartition;
use crate::registers;
use crate::stub::Stub;
use crate::trace;

/// A step that `probe.rs` tells apart.
pub(crate) const PROGRAM: &str = "make a program in memory";

/// The program of the children, the shared pages, and the registers to start with.
#[derive(Debug)]
pub(crate) struct ProcessTemplate {
    pub(crate) space: Arc<AddressSpace>,
    /// The shared pages: as the children map them, and as the host reads them.
    pub(crate) shared: Arc<Sealed>,
    pub(crate) region: Arc<Region>,
    pub(crate) stub: Stub,
    /// The stub in a file that can be executed.
    pub(crate) program: Arc<File>,
    /// The length of private memory in bytes, and of what is there from the start.
    pub(crate) private_len: usize,
    pub(crate) early_len: usize,
    pub(crate) start: trace::Registers,
    pub(crate) way: Way,
}

impl ProcessTemplate {
    pub(crate) fn new(plan: Plan, way: Way) -> Result<Self, CreateError> {
        let refused = |source| CreateError::Refused { step: PROGRAM, source };
        let stub = Stub::new(&plan.space, std::process::id());
        let program = Arc::new(executable(&stub.elf).map_err(refused)?);
        let region = Arc::new(Region::read_only(&[&plan.shared])?);
        // Without private memory there still is a file: one page that nobody maps.
        let len = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let private_len = len(plan.space.private_len().max(PAGE_BYTES));
        Ok(Self {
            space: plan.space,
            shared: plan.shared,
            region,
            stub,
            program,
            private_len,
            early_len: len(plan.early_len).min(private_len),
            start: registers::of(&Registers::start(plan.start)),
            way,
        })
    }
}

impl Template for ProcessTemplate {
    fn partition(&self) -> Result<Box<dyn Partition>, CreateError> {
        Ok(Box::new(ProcessPartition::new(self)?))
    }
}

/// Makes a file that holds a program.
///
/// It says that it is to be executed, which a system can forbid, or take for
/// granted (`vm.memfd_noexec`); a kernel before 6.3 does not know the word.
fn executable(bytes: &[u8]) -> io::Result<File> {
    const NAME: &CStr = c"cellule-guest";
    let file = create(NAME, libc::MFD_CLOEXEC | libc::MFD_EXEC);
    let mut file = match file {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            create(NAME, libc::MFD_CLOEXEC)?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    Ok(file)
}

fn create(name: &CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: the name is a terminated string; the call has no other argument.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: memfd_create returned this descriptor, and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
