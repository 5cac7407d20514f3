//! The symbols that the compiler takes for granted.
//!
//! All are assembly, and so whole also after link-time optimization, which
//! would otherwise remove a `memcpy` that nothing calls yet.

use core::arch::naked_asm;

use crate::bytes;

macro_rules! same {
    ($($name:ident = $function:path as fn($($argument:ty),*) -> $result:ty;)*) => {$(
        /// # Safety
        ///
        /// As the function of this name in C.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name($(_: $argument),*) -> $result {
            naked_asm!("jmp {function}", function = sym $function)
        }
    )*};
}

same! {
    memcpy = bytes::copy as fn(*mut u8, *const u8, usize) -> *mut u8;
    memmove = bytes::copy as fn(*mut u8, *const u8, usize) -> *mut u8;
    memset = bytes::fill as fn(*mut u8, i32, usize) -> *mut u8;
    memcmp = bytes::compare as fn(*const u8, *const u8, usize) -> i32;
    bcmp = bytes::compare as fn(*const u8, *const u8, usize) -> i32;
    strlen = bytes::length as fn(*const u8) -> usize;
}

/// Named by the precompiled `core` and `alloc`, which can unwind. A guest
/// cannot: a panic ends it before any frame is left.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn rust_eh_personality() -> ! {
    naked_asm!("ud2")
}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _Unwind_Resume() -> ! {
    naked_asm!("ud2")
}
