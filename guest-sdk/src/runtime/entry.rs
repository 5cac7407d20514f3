//! The first instructions, the note, and the tables of functions.

use core::arch::{global_asm, naked_asm};
use core::ptr::NonNull;
use core::slice;

use cellule_abi::ABI_VERSION;
use cellule_abi::note;

use super::page::Page;
use crate::symbol::Symbol;

/// `major << 16 | minor << 8 | patch` of this crate.
const SDK_VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | number(env!("CARGO_PKG_VERSION_PATCH"));

const _: () = assert!(matches!(note::NAME, b"Cellule\0"), "the assembly below spells it out");

// The note, see `cellule_abi::note`: its distances are filled in by the linker.
// The two empty sections make the linker define the names of their bounds also
// in a guest without exports or imports.
global_asm!(
    ".pushsection .note.cellule, \"a\", @note",
    ".balign 4",
    ".long 8, 40, {note_type}",
    ".asciz \"Cellule\"",
    ".long {abi_version}, {sdk_version}",
    ".quad __start_cellule_exports - .",
    ".quad __stop_cellule_exports - .",
    ".quad __start_cellule_imports - .",
    ".quad __stop_cellule_imports - .",
    ".popsection",
    ".pushsection cellule_exports, \"aw\", @progbits",
    ".balign 8",
    ".popsection",
    ".pushsection cellule_imports, \"aw\", @progbits",
    ".balign 8",
    ".popsection",
    note_type = const note::TYPE,
    abi_version = const ABI_VERSION,
    sdk_version = const SDK_VERSION,
);

/// Where the host enters, with the address of the channel page in RDI and the
/// top of the stack in RSP.
///
/// # Safety
///
/// For the host alone, once.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp", // the end of the chain of frames
        "and rsp, -16", // the ABI's alignment at a call
        "call {start}",
        "ud2",
        start = sym start,
    )
}

/// Sheds the pointer.
///
/// # Safety
///
/// `page` must be the address of the channel page, and this must be called once.
unsafe extern "C" fn start(page: *mut u8) -> ! {
    // SAFETY: the host passes the address of the page that it mapped for this
    // guest; nobody else has it.
    unsafe { Page::find(page) };
    super::main()
}

/// An address that only the linker knows.
type Bound = [u64; 0];

// The linker defines the bounds of a section whose name is a C identifier.
unsafe extern "C" {
    #[link_name = "__start_cellule_exports"]
    static EXPORTS_START: Bound;
    #[link_name = "__stop_cellule_exports"]
    static EXPORTS_END: Bound;
    #[link_name = "__start_cellule_imports"]
    static IMPORTS_START: Bound;
    #[link_name = "__stop_cellule_imports"]
    static IMPORTS_END: Bound;
}

/// The functions that the host may call, by number.
pub(super) fn exports() -> &'static [Symbol] {
    // SAFETY: these are the bounds of a section that only `__export!` fills.
    unsafe { table(&raw const EXPORTS_START, &raw const EXPORTS_END) }
}

/// The functions of the host that this guest declares, by number.
pub(super) fn imports() -> &'static [Symbol] {
    // SAFETY: these are the bounds of a section that only `__import!` fills.
    unsafe { table(&raw const IMPORTS_START, &raw const IMPORTS_END) }
}

/// The symbols between two addresses.
///
/// # Safety
///
/// Between them must be nothing but `Symbol`s, never written.
unsafe fn table(start: *const Bound, end: *const Bound) -> &'static [Symbol] {
    let len = end.addr().wrapping_sub(start.addr()) / size_of::<Symbol>();
    let first = NonNull::new(start.cast_mut()).map_or(NonNull::dangling(), NonNull::cast);
    // SAFETY: by the caller's promise, `len` symbols lie there; the section is
    // aligned to 8, as a `Symbol`, and statics of 64 bytes leave no gaps.
    unsafe { slice::from_raw_parts(first.as_ptr(), len) }
}

/// The number that `digits` are.
const fn number(digits: &str) -> u32 {
    let mut number = 0;
    let mut rest = digits.as_bytes();
    while let [digit, tail @ ..] = rest {
        number = number * 10 + (*digit - b'0') as u32;
        rest = tail;
    }
    number
}
