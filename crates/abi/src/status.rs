//! The codes that cross to a guest in place of the host's error text.

crate::codes! {
    /// Why a host call was not answered with a value.
    ///
    /// A code and no text: what went wrong inside the host is not the guest's to know.
    ///
    /// ```
    /// use cellule_abi::HostError;
    /// assert_eq!(HostError::try_from(1), Ok(HostError::Denied));
    /// assert_eq!(HostError::Denied.to_string(), "the policy denies this host call");
    /// ```
    #[derive(Hash, thiserror::Error)]
    pub enum HostError: u16 {
        /// The policy does not allow this function to this sandbox.
        #[error("the policy denies this host call")]
        Denied = 1,
        /// The request named no import of this image.
        #[error("no such host function")]
        UnknownFunction = 2,
        /// The arguments could not be decoded as the function's.
        #[error("the arguments could not be decoded")]
        BadArguments = 3,
        /// The arguments are longer than the sandbox's message limit, or the policy's.
        #[error("the arguments are too large")]
        ArgumentsTooLarge = 4,
        /// The result is longer than the sandbox's message limit, or the policy's.
        #[error("the result is too large")]
        ResultTooLarge = 5,
        /// The host cannot take the call now, for instance because it cannot record it;
        /// or it was not answered by its deadline.
        #[error("the host cannot take the call")]
        Unavailable = 6,
        /// The host function failed.
        #[error("the host function failed")]
        Failed = 7,
        /// A budget of the sandbox is used up: so many calls, bytes, calls in flight.
        #[error("a budget of the sandbox is used up")]
        OverBudget = 8,
        /// The guest's own side could not encode the arguments or decode the result.
        #[error("the value could not be encoded or decoded")]
        BadValue = 9,
    }
}

impl HostError {
    /// The number on the wire; 0 is success.
    pub const fn code(self) -> u16 {
        self as u16
    }
}
