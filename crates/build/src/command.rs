//! The cargo command that builds a guest: its flags and its environment.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::{env, iter};

/// The target of all guests. Given explicitly, it keeps the flags away from
/// build scripts and procedural macros, also where it is the host's own.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The compiler's flags for all guests.
pub const FLAGS: &[&str] = &[
    // Chooses the SDK's runtime in place of its stand-in.
    "--cfg=cellule_guest",
    // `getrandom` asks the SDK, if the guest uses that crate: there is no system.
    "--cfg=getrandom_backend=\"custom\"",
    // What every x86-64 has: to ask the processor for more is an exit, and the answer
    // wrong in a snapshot that goes on on another one.
    "--cfg=chacha20_backend=\"sse2\"",
    // A guest that panics ends: it has no unwinder, and needs no tables for one.
    "-Cpanic=abort",
    "-Cforce-unwind-tables=no",
    // One file, at any address, with no library to find.
    "-Crelocation-model=pie",
    "-Ctarget-feature=+crt-static",
    // The linker that comes with the toolchain, called directly: a C compiler
    // would add its own start files and libraries.
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=--no-dynamic-linker",
    // Relocations that the host's loader does not know are errors here.
    "-Clink-arg=-ztext",
    // Reading, executing and writing are different pages, 4 KiB each, and what
    // is written only by relocation is marked.
    "-Clink-arg=-zseparate-code",
    "-Clink-arg=-zmax-page-size=4096",
    "-Clink-arg=-znoexecstack",
    "-Clink-arg=-zrelro",
    "-Clink-arg=-znow",
    // The tables of exports and imports are reached through the names of their
    // bounds alone.
    "-Clink-arg=-znostart-stop-gc",
    "-Clink-arg=--no-eh-frame-hdr",
    "-Clink-arg=--build-id=none",
];

/// The variables for cargo that stay: where it finds and how it gets crates, how
/// many jobs it runs, and what it looks like.
const KEPT: &[&str] = &[
    "CARGO_ALIAS_",
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_PROFILE_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Variables that are meant for the host's crate or for tools around it:
/// `cargo clippy` and `cargo fuzz` would have the guest compiled as the host.
const DROPPED: &[&str] = &[
    "CARGO_",
    "CLIPPY_ARGS",
    "DEBUG",
    "DEP_",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
    "__CARGO",
];

/// The command that builds all programs of `guest` into `output`.
pub(crate) fn cargo(guest: &Path, output: &Path, profile: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(guest);
    cargo.args(["build", "--bins", "--target", TARGET, "--profile", profile]);
    cargo.arg("--target-dir").arg(output).arg("--message-format=json");
    for (name, _) in env::vars_os().filter(|(name, _)| is_dropped(name)) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    cargo.env("CARGO_TERM_PROGRESS_WHEN", "never");
    cargo
}

/// The same command for a shell, with cargo's ordinary messages.
pub(crate) fn by_hand(cargo: &Command) -> String {
    let flags = format!("RUSTFLAGS='{}'", FLAGS.join(" "));
    let directory = cargo.get_current_dir().map_or("", |path| path.to_str().unwrap_or_default());
    let args = cargo.get_args().filter(|arg| !arg.as_encoded_bytes().starts_with(b"--message"));
    let words = iter::once(OsStr::new("cargo")).chain(args).map(|arg| arg.to_string_lossy());
    format!("cd {directory} && {flags} \\\n  {}", words.collect::<Vec<_>>().join(" "))
}

fn is_dropped(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let begins = |with: &&str| match with.ends_with('_') || with.starts_with('_') {
        true => name.starts_with(with.as_bytes()),
        false => name == with.as_bytes(),
    };
    DROPPED.iter().any(begins) && !KEPT.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_hosts_build_are_dropped_and_those_of_the_machine_stay() {
        for dropped in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_PRIMARY_PACKAGE",
            "CARGO_FEATURE_STD",
            "CARGO_CFG_UNIX",
            "CLIPPY_ARGS",
            "__CARGO_FIX_PLZ",
            "DEP_Z_ROOT",
        ] {
            assert!(is_dropped(OsStr::new(dropped)), "{dropped} should be dropped");
        }
        for kept in
            ["PATH", "RUSTUP_TOOLCHAIN", "RUSTC", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO"]
        {
            assert!(!is_dropped(OsStr::new(kept)), "{kept} should stay");
        }
    }

    #[test]
    fn the_command_for_a_shell_is_the_one_that_ran() {
        let command = cargo(Path::new("/g"), Path::new("/o"), "release");
        let text = by_hand(&command);
        assert!(text.starts_with(
            "cd /g && RUSTFLAGS='--cfg=cellule_guest --cfg=getrandom_backend=\"custom\" "
        ));
        assert!(text.ends_with(
            "  cargo build --bins --target x86_64-unknown-linux-gnu --profile release --target-dir /o"
        ));
    }
}
