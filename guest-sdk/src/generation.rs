//! Which copy of its first self a guest is, and who is told.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::kernel::{Section, SectionCell};
use crate::port;

/// The generation that the hooks know.
static KNOWN: AtomicU64 = AtomicU64::new(0);

static HOOKS: SectionCell<Vec<fn(u64)>> = SectionCell::new(Vec::new());

/// Which copy of its first self this guest is: 0 for one that was started.
///
/// A guest can be restored from a snapshot, or copied, and does not notice: its memory
/// is what it was. The host tells by this number, which is another one after each
/// restore and in each copy. Siblings may have the same one, and yet never the same seed
/// of [`random`](crate::random), which sees to that by itself.
///
/// # Cost
///
/// One read of memory.
#[inline]
pub fn generation() -> u64 {
    port::generation()
}

/// Has `hook` called with each new [`generation()`] from now on: in the task that
/// serves the host's next call, before the called function, in the order in which they
/// were given. It is for what must not be the same twice: identities, nonces, caches of
/// what the host has told.
///
/// Other tasks may run before that. One that must know at once compares the
/// [`generation()`] with what it was. Outside a guest no hook is ever called.
///
/// ```
/// use cellule_guest::prelude::*;
/// use cellule_guest::{generation, on_new_generation, random};
/// use core::sync::atomic::{AtomicU64, Ordering};
///
/// static IDENTITY: AtomicU64 = AtomicU64::new(0);
///
/// fn make_identity(_generation: u64) {
///     IDENTITY.store(random::u64(), Ordering::Relaxed);
/// }
///
/// #[guest_function]
/// fn prepare() {
///     make_identity(generation());
///     on_new_generation(make_identity);
/// }
/// # prepare();
/// # assert_eq!(generation(), 0);
/// ```
pub fn on_new_generation(hook: fn(u64)) {
    HOOKS.with(&mut Section::enter(), |hooks, _| hooks.push(hook));
}

/// Calls the hooks if the generation is another than at the last look.
#[inline]
#[cfg_attr(not(any(cellule_guest, test)), expect(dead_code, reason = "used in guests"))]
pub(crate) fn look() {
    let now = generation();
    if now != KNOWN.load(Ordering::Relaxed) {
        tell(now);
    }
}

#[cold]
fn tell(generation: u64) {
    KNOWN.store(generation, Ordering::Relaxed);
    let hook =
        |index: usize| HOOKS.with(&mut Section::enter(), |hooks, _| hooks.get(index).copied());
    // One by one: a hook is a user's code, and runs outside of the section.
    (0..).map_while(hook).for_each(|hook| hook(generation));
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    static CALLS: SectionCell<Vec<(u8, u64)>> = SectionCell::new(Vec::new());

    fn note(who: u8, generation: u64) {
        CALLS.with(&mut Section::enter(), |calls, _| calls.push((who, generation)));
    }

    fn calls() -> Vec<(u8, u64)> {
        CALLS.with(&mut Section::enter(), |calls, _| core::mem::take(calls))
    }

    #[test]
    fn hooks_are_called_in_their_order_once_for_each_new_generation() {
        on_new_generation(|generation| note(1, generation));
        on_new_generation(|generation| note(2, generation));

        look();
        assert_eq!(calls(), [], "a guest that was never copied calls none");

        for generation in [1, 7, 3] {
            port::become_copy(generation, [generation; 4]);
            look();
            look();
            assert_eq!(calls(), vec![(1, generation), (2, generation)]);
            assert_eq!(super::generation(), generation);
        }
        // Other tests of this process are of the first generation.
        port::become_copy(0, [1; 4]);
        look();
        assert_eq!(calls(), [(1, 0), (2, 0)]);
    }
}
