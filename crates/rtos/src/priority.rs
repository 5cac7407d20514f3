//! How urgent a task is.

/// 0 to 31; 31 is the most urgent.
///
/// ```
/// use cellule_rtos::Priority;
/// let priority = Priority::new(31)?;
/// assert!(priority > Priority::LOWEST && priority.get() == 31);
/// assert!(Priority::new(32).is_err());
/// # Ok::<(), cellule_rtos::PriorityOutOfRange>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

/// A number that is no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityOutOfRange(pub u8);

impl core::fmt::Display for PriorityOutOfRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "priority {} is not one of 0 to {}", self.0, Priority::HIGHEST.0)
    }
}

impl core::error::Error for PriorityOutOfRange {}

/// How many priorities there are.
pub(crate) const LEVELS: usize = 32;

impl Priority {
    /// The least urgent.
    pub const LOWEST: Self = Self(0);
    /// The most urgent.
    pub const HIGHEST: Self = Self(31);

    /// A priority by its number.
    ///
    /// # Errors
    ///
    /// [`PriorityOutOfRange`] beyond 31.
    pub const fn new(number: u8) -> Result<Self, PriorityOutOfRange> {
        if number > Self::HIGHEST.0 { Err(PriorityOutOfRange(number)) } else { Ok(Self(number)) }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The most urgent of the levels whose bits are set.
    pub(crate) const fn highest_of(mask: u32) -> Option<Self> {
        match mask {
            0 => None,
            #[expect(clippy::cast_possible_truncation, reason = "at most 31")]
            _ => Some(Self(mask.ilog2() as u8)),
        }
    }

    pub(crate) const fn index(self) -> usize {
        // Never beyond 31 (`new`); so the compiler knows too.
        (self.0 & 31) as usize
    }

    pub(crate) const fn bit(self) -> u32 {
        1 << self.0
    }
}
