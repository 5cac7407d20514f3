//! Builds a real guest, as a build script does.

use std::fs;
use std::path::{Path, PathBuf};

use cellule_build::{BuildError, Guest, Profile};

/// The smallest whole guest there is, and not a scratch crate: what it depends
/// on must be found as well.
const HELLO: &str = "../../examples/hello/guest";

fn hello() -> Guest {
    Guest::new(HELLO).target_directory(concat!(env!("CARGO_TARGET_TMPDIR"), "/hello"))
}

#[test]
fn a_guest_is_built_for_both_profiles_and_all_its_sources_are_known() {
    for profile in [Profile::Debug, Profile::Release] {
        let built = hello().profile(profile).try_build().expect("the example should build");
        let program = built.programs.first().expect("the example has a program");
        assert_eq!(program.variable(), "CELLULE_GUEST_HELLO_GUEST");
        // ELF, 64 bits, little endian; at 16, type 3: an executable that can be moved.
        let file = fs::read(&program.path).expect("the program should be there");
        assert_eq!((&file[..6], &file[16..18]), (b"\x7fELF\x02\x01".as_slice(), &[3, 0][..]));
        assert_eq!(built.warnings, Vec::<String>::new());
        for source in [
            "examples/hello/guest/src/main.rs",
            "examples/hello/guest/Cargo.toml",
            "guest-sdk/src/runtime/entry.rs",
            "guest-sdk/macros/Cargo.toml",
            "crates/abi/src/page.rs",
            "Cargo.toml",
        ] {
            assert!(knows(&built.sources, source), "{source} should be known");
        }
    }
}

#[test]
fn a_directory_without_a_crate_is_named() {
    let error = Guest::new("no/such/guest").try_build().expect_err("there is no such directory");
    assert!(matches!(error, BuildError::NoGuest { .. }));
    assert!(error.to_string().ends_with("no/such/guest/Cargo.toml"), "{error}");
}

#[test]
fn a_guest_that_does_not_compile_is_an_error_with_the_command() {
    let broken = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken");
    fs::create_dir_all(broken.join("src")).unwrap();
    let manifest = "[package]\nname = \"broken\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(broken.join("Cargo.toml"), manifest).unwrap();
    fs::write(broken.join("src/main.rs"), "#![no_std]\n#![no_main]\nlet it = be;\n").unwrap();
    let guest = Guest::new(&broken).target_directory(broken.join("target"));
    let error = guest.try_build().expect_err("this is no Rust").to_string();
    assert!(error.contains("broken was not built (exit status: 101)"), "{error}");
    assert!(error.contains("--cfg=cellule_guest") && error.contains("cargo build --bins"));
}

/// Whether one of the paths, with its `..` resolved, ends so.
fn knows(sources: &[PathBuf], end: &str) -> bool {
    sources.iter().filter_map(|path| path.canonicalize().ok()).any(|path| path.ends_with(end))
}
