//! Which backend a sandbox runs on.
//!
//! The table [`backends!`] is the only place that names the backends' crates: a
//! new one is a line there.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, Once, PoisonError};

use cellule_hv::Hypervisor;

/// The environment variable that names the backend of [`Backend::Auto`].
pub const BACKEND_VARIABLE: &str = "CELLULE_BACKEND";

/// What keeps a guest from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// A virtual machine: the processor.
    Hardware,
    /// An operating system's process without system calls: for development, and
    /// for tests on machines without a hypervisor.
    Process,
}

/// Makes [`Backend`] of a list of backends, the best first.
macro_rules! backends {
    ($($(#[doc = $doc:literal])* $backend:ident = $name:literal, $isolation:ident, $open:expr;)*) => {
        /// Which backend a sandbox runs on.
        ///
        /// By name, or by what the environment says:
        ///
        /// ```
        /// use cellule::{Backend, Isolation};
        ///
        /// let backend: Backend = "kvm".parse()?;
        /// assert_eq!((backend, backend.name()), (Backend::Kvm, "kvm"));
        /// assert_eq!(backend.isolation(), Some(Isolation::Hardware));
        /// assert!("vax".parse::<Backend>().unwrap_err().to_string().contains("kvm, mshv, process"));
        /// # Ok::<(), cellule::UnknownBackend>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[non_exhaustive]
        pub enum Backend {
            /// What the environment variable `CELLULE_BACKEND` names; if there is
            /// none, the first of the hypervisors below that this machine has.
            #[default]
            Auto,
            $($(#[doc = $doc])* $backend,)*
        }

        impl Backend {
            /// All that there are, the best first; [`Auto`](Self::Auto) is not among them.
            pub const ALL: &[Self] = &[$(Self::$backend),*];

            /// The name that [`FromStr`] takes.
            pub fn name(self) -> &'static str {
                match self {
                    Self::Auto => "auto",
                    $(Self::$backend => $name,)*
                }
            }

            /// What isolates its guests; `None` for [`Auto`](Self::Auto), which may
            /// be any.
            pub fn isolation(self) -> Option<Isolation> {
                match self {
                    Self::Auto => None,
                    $(Self::$backend => Some(Isolation::$isolation),)*
                }
            }

            /// Opens it: once in a process, as that takes as long as creating a
            /// sandbox. A failure is not kept.
            pub(crate) fn open(self) -> Result<Arc<dyn Hypervisor>, NoBackend> {
                match self {
                    Self::Auto => Self::chosen()?.open(),
                    $(Self::$backend => {
                        static OPEN: Slot = Mutex::new(None);
                        let opened = once(&OPEN, || Ok(Arc::new($open?)));
                        opened.map_err(|why| NoBackend(vec![Refusal { backend: self, why }]))
                    })*
                }
            }
        }
    };
}

backends! {
    /// KVM, by /dev/kvm.
    Kvm = "kvm", Hardware, cellule_hv_kvm::Kvm::open();
    /// Microsoft's hypervisor, by /dev/mshv.
    Mshv = "mshv", Hardware, cellule_hv_mshv::Mshv::open();
    /// A traced process without system calls: no hardware isolation. Only by name.
    Process = "process", Process, cellule_hv_process::Process::open();
}

type Slot = Mutex<Option<Arc<dyn Hypervisor>>>;
type Why = Box<dyn Error + Send + Sync>;

fn once(
    slot: &Slot,
    open: impl FnOnce() -> Result<Arc<dyn Hypervisor>, Why>,
) -> Result<Arc<dyn Hypervisor>, Why> {
    let mut found = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hypervisor) = &*found {
        return Ok(Arc::clone(hypervisor));
    }
    Ok(Arc::clone(found.insert(open()?)))
}

impl Backend {
    /// Says whether sandboxes can be created with this backend, without creating
    /// one, and which it is.
    ///
    /// ```
    /// match cellule::Backend::Auto.probe() {
    ///     Ok(backend) => println!("sandboxes would run on {backend}"),
    ///     Err(missing) => println!("{missing}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NoBackend`] says in one sentence what is missing and how to get it.
    ///
    /// # Cost
    ///
    /// The first time in a process some hundred microseconds, then nothing.
    pub fn probe(self) -> Result<Self, NoBackend> {
        let backend = if self == Self::Auto { Self::chosen()? } else { self };
        backend.open().map(|_| backend)
    }

    /// The backends that sandboxes can be created with here: what
    /// `CELLULE_BACKEND` names, if anything, or else all that this machine has.
    ///
    /// ```
    /// for backend in cellule::Backend::usable() {
    ///     println!("{backend}: {:?}", backend.isolation());
    /// }
    /// ```
    pub fn usable() -> Vec<Self> {
        match named() {
            Some(named) => named.and_then(Self::probe).into_iter().collect(),
            None => Self::ALL.iter().filter_map(|backend| backend.probe().ok()).collect(),
        }
    }

    /// For examples, tests and development: what [`Auto`](Self::Auto) would be,
    /// and on a machine without a hypervisor the backend that needs none, about
    /// which one line then goes to standard error.
    ///
    /// A program that isolates what it does not trust should say `Auto`, which
    /// fails instead.
    ///
    /// ```
    /// use cellule::{Backend, Image, Sandbox};
    ///
    /// let image = Image::from_bytes(cellule_test_guests::basics())?;
    /// let backend = Backend::for_development();
    /// let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
    /// assert_eq!(sandbox.call::<i32>("add", (2, 3))?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_development() -> Self {
        static TOLD: Once = Once::new();
        if named().is_some() || Self::Auto.probe().is_ok() {
            return Self::Auto;
        }
        let Some(backend) = Self::without_hypervisor() else { return Self::Auto };
        TOLD.call_once(|| {
            eprintln!("no hypervisor, so no hardware isolation: sandboxes run on {backend}");
        });
        backend
    }

    /// What `Auto` stands for at the moment.
    fn chosen() -> Result<Self, NoBackend> {
        if let Some(named) = named() {
            return named;
        }
        let mut refusals = Vec::new();
        for backend in Self::hypervisors() {
            match backend.open() {
                Ok(_) => return Ok(backend),
                Err(NoBackend(why)) => refusals.extend(why),
            }
        }
        Err(NoBackend(refusals))
    }

    fn hypervisors() -> impl Iterator<Item = Self> {
        let hardware = |backend: &Self| backend.isolation() == Some(Isolation::Hardware);
        Self::ALL.iter().copied().filter(hardware)
    }

    fn without_hypervisor() -> Option<Self> {
        let process = |backend: &Self| backend.isolation() == Some(Isolation::Process);
        Self::ALL.iter().copied().filter(process).find(|backend| backend.probe().is_ok())
    }
}

/// What the environment says; `None` if it says nothing.
fn named() -> Option<Result<Backend, NoBackend>> {
    let name = std::env::var_os(BACKEND_VARIABLE).filter(|name| !name.is_empty())?;
    let name = name.to_string_lossy();
    if name == Backend::Auto.name() {
        return None;
    }
    Some(name.parse().map_err(|why: UnknownBackend| {
        NoBackend(vec![Refusal { backend: Backend::Auto, why: why.into() }])
    }))
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        let all = [Self::Auto].into_iter().chain(Self::ALL.iter().copied());
        let found = { all }.find(|backend| backend.name() == name);
        found.ok_or_else(|| UnknownBackend { name: crate::text::printable(name.as_bytes()) })
    }
}

/// A name that no backend has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBackend {
    name: String,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Backend::ALL.iter().map(|backend| backend.name()).collect();
        write!(f, "no backend is called \"{}\": say one of {}, auto", self.name, names.join(", "))
    }
}

impl Error for UnknownBackend {}

/// No backend can be used, of those that were asked for.
#[derive(Debug)]
pub struct NoBackend(Vec<Refusal>);

/// Why one of them cannot.
#[derive(Debug)]
struct Refusal {
    /// `Auto` if the environment names none that there is.
    backend: Backend,
    why: Why,
}

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [Refusal { backend: Backend::Auto, why }] => write!(f, "{BACKEND_VARIABLE}: {why}"),
            [Refusal { why, .. }] => write!(f, "{why}"),
            all => {
                f.write_str("this machine offers no hypervisor to run sandboxes on: ")?;
                for Refusal { backend, why } in all {
                    write!(f, "{backend}: {why}; ")?;
                }
                let process = "without hardware isolation, for development";
                write!(f, "{process}, set {BACKEND_VARIABLE}=process")
            }
        }
    }
}

impl Error for NoBackend {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let first = self.0.first()?;
        Some(&*first.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_found_by_its_name() {
        for backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(*backend));
        }
        assert_eq!("auto".parse(), Ok(Backend::Auto));
    }

    #[test]
    fn auto_never_is_a_backend_without_a_hypervisor() {
        assert!(Backend::hypervisors().all(|b| b.isolation() == Some(Isolation::Hardware)));
        assert!(!Backend::hypervisors().any(|backend| backend.name() == "process"));
    }

    #[test]
    fn unknown_names_are_shown_and_answered_with_the_known_ones() {
        let error = "\u{1b}[2J".parse::<Backend>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
        assert!(error.contains("kvm"), "{error}");
    }
}
