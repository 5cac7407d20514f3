//! The files on which a guest depends, so that it is built again when they change.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::artifacts::Artifacts;

/// Lists the sources and manifests of the guest and of all its local
/// dependencies. Crates of a registry do not change.
pub(crate) fn of(guest: &Path, artifacts: &Artifacts) -> Vec<PathBuf> {
    let mut sources = BTreeSet::new();
    for program in &artifacts.programs {
        // Cargo writes beside each program what it was made of, in all packages.
        // Where that cannot be read, the manifests below must do.
        let rule = fs::read_to_string(program.path.with_extension("d")).unwrap_or_default();
        sources.extend(dependencies(&rule));
    }
    for manifest in &artifacts.manifests {
        // A manifest may inherit from that of its workspace, further up.
        let above = manifest.ancestors().skip(1).map(|directory| directory.join("Cargo.toml"));
        sources.extend(above.filter(|path| path.is_file()));
    }
    let beside = ["Cargo.lock", ".cargo/config.toml"].map(|name| guest.join(name));
    sources.extend(beside.into_iter().filter(|path| path.is_file()));
    sources.into_iter().collect()
}

/// The files after the colon of a Makefile rule, where `\ ` is a space in a name.
fn dependencies(rule: &str) -> Vec<PathBuf> {
    let files = rule.split_once(": ").map_or("", |(_, files)| files).lines().next();
    let whole = files.unwrap_or_default().replace("\\ ", "\0");
    whole.split_whitespace().map(|file| file.replace('\0', " ").into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_lists_files_with_and_without_spaces() {
        let rule = "/o/my\\ guest: /g/src/main.rs /g/my\\ file.rs\n\n/g/src/main.rs:\n";
        let expected = ["/g/src/main.rs", "/g/my file.rs"].map(PathBuf::from);
        assert_eq!(dependencies(rule), expected);
        assert_eq!(dependencies(""), Vec::<PathBuf>::new());
    }
}
