//! [`LogLevel`]: how urgent a guest's log record is.

cellule_abi::codes! {
    /// How urgent a log record is; the numbers are those on the wire.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum LogLevel: u32 {
        /// Something failed.
        Error = 1,
        /// Something is odd.
        Warn = 2,
        /// Something of note happened.
        Info = 3,
        /// For the guest's author.
        Debug = 4,
        /// Everything.
        Trace = 5,
    }
}

impl LogLevel {
    /// All levels, the most urgent first.
    pub(crate) const ALL: [Self; 5] =
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The level's name in a policy file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
