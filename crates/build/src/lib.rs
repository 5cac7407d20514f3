//! For build scripts: compiles a guest crate with the right flags.
//!
//! A host keeps the crate of its guest beside itself, as a workspace of its own,
//! and has this in its `build.rs`:
//!
//! ```no_run
//! cellule_build::guest("guest");
//! ```
//!
//! Each program of that crate is then there at compile time, under the
//! environment variable `CELLULE_GUEST_` and its name in upper case, with `_`
//! for all that is no letter or digit. The host takes the program `hello-guest`
//! in with `include_bytes!(env!("CELLULE_GUEST_HELLO_GUEST"))`.
//!
//! The guest is built for the profile of the host (debug or release), for the
//! ordinary target `x86_64-unknown-linux-gnu`, with the toolchain of the host
//! and the linker that comes with it: no other target, no C compiler. The build
//! script runs again when a source or a manifest of the guest, of the SDK or of
//! a crate that both share has changed. Compiler errors appear as usual;
//! warnings appear as warnings of the host's build script.
//!
//! [`FLAGS`] are the flags, and say why.
#![forbid(unsafe_code)]

mod artifacts;
mod command;
mod sources;

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::{env, process};

use crate::artifacts::Artifacts;
pub use crate::command::{FLAGS, TARGET};

/// Compiles all programs of the guest crate in `directory`, which is relative to
/// the manifest of the crate whose build script this is.
///
/// Ends the build script, after cargo's own messages, if that fails.
///
/// ```no_run
/// cellule_build::guest("guest");
/// ```
pub fn guest(directory: impl AsRef<Path>) -> Vec<Program> {
    Guest::new(directory).build()
}

/// The environment variable that names one target directory, an absolute path, for
/// all guests: what they have in common is then compiled once. Their programs must
/// have different names.
pub const TARGET_DIR_VARIABLE: &str = "CELLULE_BUILD_TARGET_DIR";

/// A compiled guest program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The name of its binary target.
    pub name: String,
    /// The ELF file.
    pub path: PathBuf,
}

impl Program {
    /// Returns the environment variable that has the path.
    ///
    /// ```
    /// # use cellule_build::Program;
    /// let program = Program { name: "hello-guest".into(), path: "/x".into() };
    /// assert_eq!(program.variable(), "CELLULE_GUEST_HELLO_GUEST");
    /// ```
    pub fn variable(&self) -> String {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        "CELLULE_GUEST_".chars().chain(self.name.chars().map(letter)).collect()
    }
}

/// How a guest is optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Cargo's `dev`.
    Debug,
    /// Cargo's `release`.
    Release,
}

/// A guest crate, and how to compile it.
///
/// ```no_run
/// use cellule_build::{Guest, Profile};
/// // A guest that is fast also in debug builds of its host.
/// Guest::new("guest").profile(Profile::Release).build();
/// ```
#[derive(Debug, Clone)]
pub struct Guest {
    directory: PathBuf,
    profile: Option<Profile>,
    output: Option<PathBuf>,
}

impl Guest {
    /// The guest crate in `directory`, which is relative to the manifest of the
    /// crate whose build script this is.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self { directory: directory.as_ref().to_owned(), profile: None, output: None }
    }

    /// Chooses a profile other than the host's.
    #[must_use]
    pub fn profile(self, profile: Profile) -> Self {
        Self { profile: Some(profile), ..self }
    }

    /// Chooses a target directory other than `$OUT_DIR/guest`, or the one that
    /// [`TARGET_DIR_VARIABLE`] names.
    #[must_use]
    pub fn target_directory(self, directory: impl AsRef<Path>) -> Self {
        Self { output: Some(directory.as_ref().to_owned()), ..self }
    }

    /// Compiles, and tells cargo where the programs are and when to do it again.
    ///
    /// Ends the build script, after cargo's own messages, if that fails.
    pub fn build(&self) -> Vec<Program> {
        let built = self.try_build().unwrap_or_else(|error| {
            eprintln!("\nerror: {error}");
            process::exit(1);
        });
        for path in &built.sources {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        println!("cargo::rerun-if-env-changed={TARGET_DIR_VARIABLE}");
        for warning in &built.warnings {
            println!("cargo::warning={warning}");
        }
        for program in &built.programs {
            println!("cargo::rustc-env={}={}", program.variable(), program.path.display());
        }
        built.programs
    }

    /// Compiles, and prints nothing on the standard output.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if there is no such crate, cargo does not run or fails, or
    /// the crate has no program.
    ///
    /// # Blocking
    ///
    /// For as long as cargo runs.
    pub fn try_build(&self) -> Result<Built, BuildError> {
        let guest = variable("CARGO_MANIFEST_DIR")?.join(&self.directory);
        let manifest = guest.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(BuildError::NoGuest { manifest });
        }
        let output = match &self.output {
            Some(output) => output.clone(),
            None => match env::var_os(TARGET_DIR_VARIABLE).filter(|shared| !shared.is_empty()) {
                Some(shared) => shared.into(),
                None => variable("OUT_DIR")?.join("guest"),
            },
        };
        let artifacts = self.run(&guest, &output)?;
        if artifacts.programs.is_empty() {
            return Err(BuildError::NoProgram { guest });
        }
        let sources = sources::of(&guest, &artifacts);
        Ok(Built { programs: artifacts.programs, sources, warnings: artifacts.warnings })
    }

    /// Runs cargo and reads what it says.
    fn run(&self, guest: &Path, output: &Path) -> Result<Artifacts, BuildError> {
        let mut cargo = command::cargo(guest, output, self.cargo_profile());
        let cannot_run = |source| BuildError::CannotRun { source };
        let mut child = cargo.stdout(Stdio::piped()).spawn().map_err(cannot_run)?;
        let messages = child.stdout.take().map(BufReader::new);
        let artifacts = messages.map_or(Ok(Artifacts::default()), Artifacts::read);
        let status = child.wait().map_err(cannot_run)?;
        if !status.success() {
            let by_hand = command::by_hand(&cargo);
            return Err(BuildError::Failed { guest: guest.to_owned(), status, by_hand });
        }
        artifacts.map_err(cannot_run)
    }

    fn cargo_profile(&self) -> &'static str {
        let release = match self.profile {
            Some(profile) => profile == Profile::Release,
            None => env::var_os("PROFILE").is_some_and(|profile| profile == "release"),
        };
        if release { "release" } else { "dev" }
    }
}

/// What [`Guest::try_build`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// The programs, by name.
    pub programs: Vec<Program>,
    /// The files on which they depend.
    pub sources: Vec<PathBuf>,
    /// The compiler's warnings, one line each.
    pub warnings: Vec<String>,
}

/// Why a guest was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no such directory, or no crate in it.
    #[error("no guest crate: there is no file {}", manifest.display())]
    NoGuest {
        /// Where the manifest should be.
        manifest: PathBuf,
    },
    /// Not called from a build script.
    #[error("{name} is not set: is this a build script?")]
    NoBuildScript {
        /// The variable that cargo sets for build scripts.
        name: &'static str,
    },
    /// Cargo could not be started or listened to.
    #[error("cargo cannot be run: {source}")]
    CannotRun {
        /// What the system said.
        source: io::Error,
    },
    /// Cargo has said why, above.
    #[error(
        "the guest {} was not built ({status}); cargo's messages are above. By hand:\n\n{by_hand}\n",
        guest.display()
    )]
    Failed {
        /// The guest's directory.
        guest: PathBuf,
        /// What cargo ended with.
        status: ExitStatus,
        /// The same command for a shell.
        by_hand: String,
    },
    /// The crate has no binary target.
    #[error("the guest {} has no program: it needs a src/main.rs", guest.display())]
    NoProgram {
        /// The guest's directory.
        guest: PathBuf,
    },
}

fn variable(name: &'static str) -> Result<PathBuf, BuildError> {
    env::var_os(name).map(PathBuf::from).ok_or(BuildError::NoBuildScript { name })
}
