//! What KVM says of the machine, asked for once in a process.

use std::ffi::c_int;
use std::ops::Range;
use std::sync::OnceLock;

use kvm_bindings::kvm_cpuid_entry2;

use crate::errno::Errno;
use crate::kvm::{self, Plain};

/// Where KVM says that it is KVM, which a guest of MSHV would not see.
const HYPERVISOR: Range<u32> = 0x4000_0000..0x4000_0100;

/// The machine.
#[derive(Debug)]
pub(crate) struct Host {
    /// What CPUID a processor can have.
    pub(crate) cpuid: Vec<kvm_cpuid_entry2>,
    /// The length of a run page.
    pub(crate) run_page_len: usize,
}

/// Asks a descriptor of `/dev/kvm`, the first time.
pub(crate) fn host(kvm: c_int) -> Result<&'static Host, Errno> {
    static HOST: OnceLock<Host> = OnceLock::new();
    if let Some(host) = HOST.get() {
        return Ok(host);
    }
    let len = kvm::plain(kvm, Plain::RunPageLen, 0)?;
    // Two threads may ask at first: they are told the same.
    let mut cpuid = kvm::supported_cpuid(kvm)?;
    cpuid.retain(|leaf| !HYPERVISOR.contains(&leaf.function));
    let host = Host { cpuid, run_page_len: usize::try_from(len).unwrap_or(0) };
    Ok(HOST.get_or_init(|| host))
}
