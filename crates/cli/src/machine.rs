//! What the system says of itself: read from /proc and /sys, and then judged.

use std::fs;
use std::path::Path;

use rlimit::Resource;
use serde::Serialize;

/// The facts that matter to sandboxes. What the system does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    /// The kernel's release.
    pub(crate) kernel: Option<String>,
    /// The processor's name.
    pub(crate) processor: Option<String>,
    /// How many processors this program may use.
    pub(crate) processors: Option<usize>,
    /// What the processor has for virtual machines: `vmx`, `svm`.
    pub(crate) extension: Option<&'static str>,
    /// Whether this machine is itself a virtual machine.
    pub(crate) is_virtual: bool,
    /// Which KVM modules are loaded, or built in.
    pub(crate) kvm_modules: Vec<&'static str>,
    /// Whom ptrace may trace: /proc/sys/kernel/yama/ptrace_scope.
    pub(crate) ptrace_scope: Option<u8>,
    /// How many files this program may have open.
    pub(crate) open_files: Option<u64>,
}

/// The modules that make /dev/kvm.
const KVM_MODULES: [&str; 3] = ["kvm_intel", "kvm_amd", "kvm_pvm"];

impl Machine {
    /// Reads the facts.
    pub(crate) fn read() -> Self {
        let flags = CpuInfo::parse(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        let loaded = |module: &&str| Path::new("/sys/module").join(module).exists();
        let scope = line("/proc/sys/kernel/yama/ptrace_scope");
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            processor: flags.model,
            processors: std::thread::available_parallelism().ok().map(usize::from),
            extension: flags.extension,
            is_virtual: flags.is_virtual,
            kvm_modules: KVM_MODULES.into_iter().filter(loaded).collect(),
            ptrace_scope: scope.and_then(|scope| scope.parse().ok()),
            open_files: Resource::NOFILE.get().ok().map(|(soft, _)| soft),
        }
    }

    /// What users should know of machines like this one, in sentences.
    pub(crate) fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        if self.kvm_modules.contains(&"kvm_pvm") {
            limits.push(
                "KVM here is kvm_pvm, which is software: it interprets what guests do in ring 0 \
                 (their faults), and its exits take tens of microseconds"
                    .to_owned(),
            );
        } else if self.is_virtual && !self.kvm_modules.is_empty() {
            limits.push(
                "this machine is itself a virtual machine: a nested one takes several times as \
                 long to enter and leave"
                    .to_owned(),
            );
        }
        if let Some(files) = self.open_files {
            limits.push(format!(
                "this program may have {files} files open (ulimit -n); a sandbox takes two on \
                 KVM and MSHV, and one as a process"
            ));
        }
        limits
    }
}

/// What /proc/cpuinfo says.
#[derive(Debug, Default, PartialEq, Eq)]
struct CpuInfo {
    model: Option<String>,
    extension: Option<&'static str>,
    is_virtual: bool,
}

impl CpuInfo {
    /// Reads the first processor's entry.
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let flags = field("flags").unwrap_or_default();
        let has = |flag: &&str| flags.split(' ').any(|word| word == *flag);
        Self {
            model: field("model name"),
            extension: ["vmx", "svm"].into_iter().find(has),
            is_virtual: has(&"hypervisor"),
        }
    }
}

/// The first line of a file.
fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_read_of_the_first_processor() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.3GHz\nflags\t\t: fpu vmx avx\n\n\
                    processor\t: 1\nflags\t\t: fpu svm hypervisor\n";
        let info = CpuInfo::parse(text);
        assert_eq!(info.model.as_deref(), Some("Some CPU @ 2.3GHz"));
        assert_eq!((info.extension, info.is_virtual), (Some("vmx"), false));
        assert_eq!(CpuInfo::parse("no such thing"), CpuInfo::default());
    }

    #[test]
    fn a_software_kvm_and_a_nested_one_are_known_limits() {
        let machine = |is_virtual, modules: &[&'static str]| {
            Machine { is_virtual, kvm_modules: modules.to_vec(), ..Machine::default() }.limits()
        };
        assert!(machine(true, &["kvm_pvm"])[0].contains("ring 0"));
        assert!(machine(true, &["kvm_intel"])[0].contains("nested"));
        assert!(machine(false, &["kvm_amd"]).is_empty());
        assert!(machine(true, &[]).is_empty());
    }
}
