//! What the audit trail keeps of arguments and results.

use cellule_abi::wire::Payload;

use crate::audit::Kept;
use crate::policy::Recorded;

/// The arguments of a call, which are copied out once.
pub(crate) enum Arguments<E, F> {
    /// They are, or could not be.
    Fetched(Result<Payload, E>),
    /// They are to be.
    InGuest(F),
}

impl<E, F: FnOnce() -> Result<Payload, E>> Arguments<E, F> {
    /// Copies the arguments out if that much is to be kept of them, and keeps it.
    pub(crate) fn keep(fetch: F, recorded: Recorded) -> (Self, Kept) {
        if recorded == Recorded::Nothing {
            return (Self::InGuest(fetch), Kept::Nothing);
        }
        let fetched = fetch();
        let kept = fetched.as_ref().map_or(Kept::Nothing, |args| keep(args.segments(), recorded));
        (Self::Fetched(fetched), kept)
    }

    /// The arguments.
    pub(crate) fn take(self) -> Result<Payload, E> {
        match self {
            Self::Fetched(fetched) => fetched,
            Self::InGuest(fetch) => fetch(),
        }
    }
}

/// Keeps so much of a value in two segments.
pub(crate) fn keep(segments: [&[u8]; 2], recorded: Recorded) -> Kept {
    match recorded {
        Recorded::Nothing => Kept::Nothing,
        Recorded::Digest => Kept::digest(segments),
        Recorded::Bytes(most) => Kept::bytes(segments, usize::try_from(most).unwrap_or(usize::MAX)),
    }
}
