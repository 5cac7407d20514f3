//! `Image`: a guest program, parsed, checked and relocated once.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cellule_channel::audit::Digest;
use cellule_hv::{CreateError, Hypervisor, Plan, Template};
use cellule_image::{ImageError, Symbol};
use cellule_mem::{MapError, Sealed};

use crate::layout::{Layout, Shared, Sizes};

/// How many sets of sizes an image remembers page tables for.
const TEMPLATES: usize = 16;

/// A guest program, ready to run in any number of sandboxes.
///
/// Cheap to clone; text, read-only data and page tables are one set of
/// physical pages for all sandboxes.
///
/// ```
/// let bytes = cellule_test_guests::basics();
/// let image = cellule::Image::from_bytes(bytes)?;
/// assert!(image.exports().any(|export| export.name() == "add"));
/// assert!(cellule::Image::from_bytes(b"not a program").is_err());
/// # Ok::<(), cellule::LoadError>(())
/// ```
#[derive(Clone)]
pub struct Image(Arc<Inner>);

struct Inner {
    program: cellule_image::Image,
    /// Of the file, for audit records.
    digest: Digest,
    shared: Shared,
    sealed: Arc<Sealed>,
    /// The exports' names, for audit records.
    names: Vec<Arc<str>>,
    /// One for each backend and set of sizes that was asked for.
    templates: Mutex<HashMap<(&'static str, Sizes), Planned>>,
}

/// A layout, and what a backend made of it.
type Planned = (Arc<Layout>, Arc<dyn Template>);

/// A guest image could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the guest image {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a guest image, or not one that can be accepted.
    #[error("not an acceptable guest image: {0}")]
    Image(#[from] ImageError),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MapError),
}

/// An exported or imported function of an image.
///
/// ```
/// # use cellule::Image;
/// # let image = Image::from_bytes(cellule_test_guests::hosted())?;
/// let import = image.imports().next().ok_or("no import")?;
/// assert_eq!((import.name(), import.signature()), ("double", "fn(u64) -> u64"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FunctionInfo<'a>(&'a Symbol);

impl<'a> FunctionInfo<'a> {
    /// The function's name.
    pub fn name(&self) -> &'a str {
        self.0.name()
    }

    /// What it takes and gives, as text: `fn(str, u32) -> [u8]`.
    pub fn signature(&self) -> &'a str {
        self.0.signature()
    }
}

impl Image {
    /// Reads, parses, checks and relocates the guest image in a file.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what is wrong with the file, with the numbers.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path)
            .map_err(|source| LoadError::File { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Parses, checks and relocates a guest image.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what is wrong with the bytes, with the numbers.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let program = cellule_image::Image::parse(bytes)?;
        let digest = Digest::of(bytes);
        let shared = Shared::of(&program);
        let sealed = Arc::new(Sealed::new(&shared.bytes(&program))?);
        let names = program.exports().iter().map(|export| export.name().into()).collect();
        let templates = Mutex::default();
        Ok(Self(Arc::new(Inner { program, digest, shared, sealed, names, templates })))
    }

    /// The SHA-256 of the file, which the audit trail of its sandboxes starts from.
    ///
    /// ```
    /// use cellule::{Image, audit::Digest};
    /// let bytes = cellule_test_guests::basics();
    /// assert_eq!(Image::from_bytes(bytes)?.digest(), Digest::of(bytes));
    /// # Ok::<(), cellule::LoadError>(())
    /// ```
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// The functions that the host can call.
    pub fn exports(&self) -> impl ExactSizeIterator<Item = FunctionInfo<'_>> {
        self.0.program.exports().iter().map(FunctionInfo)
    }

    /// The host functions that the guest may want to call.
    pub fn imports(&self) -> impl ExactSizeIterator<Item = FunctionInfo<'_>> {
        self.0.program.imports().iter().map(FunctionInfo)
    }

    pub(crate) fn program(&self) -> &cellule_image::Image {
        &self.0.program
    }

    /// The name of an export by its number.
    pub(crate) fn export_name(&self, index: u32) -> Arc<str> {
        let name = usize::try_from(index).ok().and_then(|index| self.0.names.get(index));
        name.map_or_else(|| "".into(), Arc::clone)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The layout and template for these sizes: made once, then found.
    pub(crate) fn template(
        &self,
        hypervisor: &dyn Hypervisor,
        sizes: Sizes,
    ) -> Result<Planned, CreateError> {
        let mut templates = self.0.templates.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (hypervisor.name(), sizes);
        if let Some(planned) = templates.get(&key) {
            return Ok(planned.clone());
        }
        // A program that never asks for the same sizes twice must not grow for ever.
        if templates.len() >= TEMPLATES {
            templates.clear();
        }
        let layout = Arc::new(Layout::new(&self.0.program, &self.0.shared, sizes)?);
        let plan = Plan {
            space: Arc::clone(&layout.space),
            shared: Arc::clone(&self.0.sealed),
            early_len: layout.early_len,
            start: layout.start,
        };
        let template = hypervisor.template(plan)?;
        templates.insert(key, (Arc::clone(&layout), Arc::clone(&template)));
        Ok((layout, template))
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.exports().map(|export| export.name()).collect();
        f.debug_struct("Image").field("exports", &names).finish_non_exhaustive()
    }
}
