//! Whether this machine lets a program do what the backend needs: by doing it once.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cellule_hv::space::PAGE_BYTES;
use cellule_hv::{
    AddressSpace, Backing, CreateError, Gva, Mapping, PageSet, Partition, Plan, Protection,
    RunError, Start,
};
use cellule_mem::Sealed;

use crate::OpenError;
use crate::child::{SPAWN, TRACE};
use crate::dirty::{self, Way};
use crate::partition::ProcessPartition;
use crate::stub::Step;
use crate::template::{PROGRAM, ProcessTemplate};

/// Writes the third page and rings, writes the first, reads the second, and rings.
const CODE: &[&[u8]] = &[
    &[0x88, 0x04, 0x25, 0x00, 0x40, 0x40, 0x00], // mov [DATA + 0x2000], al
    &[0xe6, 0x01],                               // out 1, al
    &[0x88, 0x04, 0x25, 0x00, 0x20, 0x40, 0x00], // mov [DATA], al
    &[0x8a, 0x04, 0x25, 0x00, 0x30, 0x40, 0x00], // mov al, [DATA + 0x1000]
    &[0xe6, 0x01],                               // out 1, al
];
const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x40_2000;
const DATA_PAGES: u64 = 3;
const SUPERVISOR: u64 = 0x41_0000;

/// Makes a child, has it ring, and looks how well it is told which pages it writes.
///
/// # Errors
///
/// [`OpenError`] says what this machine forbids.
pub(crate) fn look() -> Result<Way, OpenError> {
    const STEP: &str = "recognise what a process does";
    let mut partition = observer(dirty::promised()).map_err(explain)?;
    let rang = partition.rings_once();
    let rang = rang.map_err(|RunError { step, source }| OpenError::Other { step, source })?;
    if !rang {
        return Err(OpenError::Other { step: STEP, source: io::ErrorKind::Unsupported.into() });
    }
    // Where marks are promised and not kept, that is no reason to refuse.
    let only_first = written(&mut partition).is_ok_and(|pages| pages.iter().eq([0]));
    Ok(if only_first { Way::Marks } else { Way::Existing })
}

/// What is said to be written from one ring to the next.
fn written(partition: &mut ProcessPartition) -> Result<PageSet, RunError> {
    let mut pages = PageSet::default();
    partition.track()?;
    partition.rings_once()?;
    partition.dirty(&mut pages)?;
    Ok(pages)
}

fn observer(way: Way) -> Result<ProcessPartition, CreateError> {
    let mapping = |name, gva, len, protection, backing| Mapping {
        name,
        gva: Gva(gva),
        len,
        protection,
        backing,
    };
    let data_len = DATA_PAGES * PAGE_BYTES;
    let mappings = vec![
        mapping("text", TEXT, PAGE_BYTES, Protection::ReadExecute, Backing::Shared(0)),
        mapping("data", DATA, data_len, Protection::ReadWrite, Backing::Private(0)),
    ];
    let plan = Plan {
        space: Arc::new(AddressSpace::new(mappings, Gva(SUPERVISOR))?),
        shared: Arc::new(Sealed::new(&CODE.concat())?),
        early_len: data_len,
        start: Start { entry: Gva(TEXT), stack: Gva(TEXT), argument: Gva(0) },
    };
    ProcessPartition::new(&ProcessTemplate::new(plan, way)?)
}

fn explain(error: CreateError) -> OpenError {
    const UNMAP: &str = Step::Unmap.words();
    const CLOSE: &str = Step::Close.words();
    const FILTER: &str = Step::Filter.words();
    let (step, source) = match error {
        CreateError::Refused { step, source } => (step, source),
        CreateError::Memory(error) => ("get memory", io::Error::other(error)),
        CreateError::Kick(error) => ("get a signal", io::Error::other(error)),
        CreateError::Space(error) => ("build an address space", io::Error::other(error)),
    };
    match step {
        SPAWN if !Path::new("/proc/self/fd").exists() => OpenError::NoProc,
        SPAWN | PROGRAM if is_forbidden(&source) => OpenError::NoExecution(source),
        TRACE => OpenError::NoTracing(source),
        UNMAP => OpenError::Sealed(source),
        CLOSE => OpenError::TooOld(source),
        FILTER => OpenError::NoFilter(source),
        _ => OpenError::Other { step, source },
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_one_sentence_that_says_what_to_do() {
        let refused = |step, kind: io::ErrorKind| {
            explain(CreateError::Refused { step, source: kind.into() }).to_string()
        };
        let denied = io::ErrorKind::PermissionDenied;
        assert!(refused(TRACE, denied).contains("--cap-add=SYS_PTRACE"));
        assert!(refused(SPAWN, denied).contains("vm.memfd_noexec"));
        assert!(refused(PROGRAM, denied).contains("vm.memfd_noexec"));
        assert!(refused(Step::Unmap.words(), denied).contains("MSEAL"));
        assert!(refused(Step::Filter.words(), denied).contains("CONFIG_SECCOMP_FILTER"));
        assert!(refused(Step::Close.words(), io::ErrorKind::Unsupported).contains("Linux 5.9"));
        assert!(refused(SPAWN, io::ErrorKind::WouldBlock).starts_with("cannot start a process"));
    }
}
