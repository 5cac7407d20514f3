//! What a program needs before Rust runs: its start, its note, its symbols.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::global_asm;

use cellule_abi::page::AbortCode;
use cellule_abi::{ABI_VERSION, note};

use crate::shared;

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    ".pushsection .note.cellule, \"a\", @note",
    ".balign 4",
    ".long 8, 40, {note_type}",
    ".asciz \"Cellule\"",
    ".long {abi_version}, 0",
    ".quad __start_cellule_exports - .",
    ".quad __stop_cellule_exports - .",
    ".quad __start_cellule_imports - .",
    ".quad __stop_cellule_imports - .",
    ".popsection",
    main = sym crate::main,
    note_type = const note::TYPE,
    abi_version = const ABI_VERSION,
);

// What the compiler may call.
global_asm!(
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen, rust_eh_personality, _Unwind_Resume",
    "memcpy:",
    "mov rax, rdi; mov rcx, rdx; rep movsb; ret",
    "memset:",
    "mov r8, rdi; mov eax, esi; mov rcx, rdx; rep stosb; mov rax, r8; ret",
    "memcmp:",
    "bcmp:",
    "xor eax, eax; mov rcx, rdx; test rcx, rcx; jz 2f; repe cmpsb; je 2f; mov eax, 1; 2: ret",
    "memmove:",
    "strlen:",
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "ud2",
);

/// `cellule-abi` can encode values; this program does not.
struct Nothing;

// SAFETY: it never gives memory.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NOTHING: Nothing = Nothing;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // A static text: the number of the line says which it was.
    let line = info.location().map_or(0, |location| location.line());
    shared::abort(AbortCode::Panic, u64::from(line))
}
