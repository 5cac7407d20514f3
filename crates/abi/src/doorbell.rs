//! The doorbell: one port, one byte, and a handful of operations.

/// The only I/O port that ring 3 may write, with a one-byte `out`.
///
/// Low, so that the I/O bitmap in the TSS needs one byte and its terminator.
pub const DOORBELL_PORT: u16 = 1;

crate::codes! {
    /// What a guest asks for when it writes a byte to [`DOORBELL_PORT`].
    ///
    /// ```
    /// use cellule_abi::doorbell::Doorbell;
    /// assert_eq!(Doorbell::try_from(2), Ok(Doorbell::Wait));
    /// assert_eq!(Doorbell::try_from(77), Err(77));
    /// ```
    pub enum Doorbell: u8 {
        /// Take my requests, look at my deadline, and let me go on at once.
        Submit = 1,
        /// Take my requests, and let me go on when a completion is there or my
        /// deadline has passed.
        Wait = 2,
        /// I cannot go on; the abort block says why. The guest is never resumed.
        Abort = 3,
        /// Make all of my heap be there, see [`crate::page::Boot::heap_there_bytes`],
        /// and let me go on at once.
        Extend = 4,
    }
}
