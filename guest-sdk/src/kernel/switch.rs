//! From one stack to another.

use core::arch::asm;

/// Leaves this stack for another one, and returns when somebody comes back.
///
/// Inlined, so that no `call` and no `ret` is involved: the processor predicts
/// returns by the calls that it has seen, and here those were another task's.
/// The compiler saves what it still needs; RBX and RBP, which it does not let
/// go, and the control words of SSE and x87 are saved here. These are loaded
/// only if they differ: that takes longer than all the rest.
///
/// # Safety
///
/// `save` must be valid for a write, and `load` a value that this function
/// wrote, or one of [`begin_at`]'s, whose stack nobody has touched since.
#[inline(always)]
pub(crate) unsafe fn switch(save: *mut usize, load: usize) {
    // SAFETY: what lies on the stack at `load` was put there by the first half
    // of this, or by `begin_at`. Every register is declared as changed, or
    // restored; the stack pointer is the same when this is left by the second half.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "lea rax, [rip + 2f]",
            "push rax",
            "sub rsp, 8",
            "stmxcsr [rsp]",
            "fnstcw [rsp + 4]",
            // Each compared as wide as it was stored, or the load must wait.
            "mov eax, [rsp]",
            "movzx ecx, word ptr [rsp + 4]",
            "mov [rdi], rsp",
            "mov rsp, rsi",
            "cmp eax, [rsp]",
            "jne 3f",
            "cmp cx, [rsp + 4]",
            "jne 3f",
            "4:",
            "add rsp, 8",
            "pop rax",
            "jmp rax",
            "3:",
            "ldmxcsr [rsp]",
            "fldcw [rsp + 4]",
            "jmp 4b",
            "2:",
            "pop rbp",
            "pop rbx",
            inout("rdi") save => _,
            inout("rsi") load => _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            clobber_abi("sysv64"),
        );
    }
}

/// MXCSR and the x87 control word as a program starts with them.
const CONTROL_WORDS: usize = 0x037f << 32 | 0x1f80;

/// Prepares the stack that ends at `top`, so that [`switch`] to the value
/// returned enters `entry`, which must not return.
///
/// # Safety
///
/// The 24 bytes below `top` must be writable and nobody else's; `top` must be a
/// multiple of 16.
pub(crate) unsafe fn begin_at(top: *mut u8, entry: extern "C" fn() -> !) -> usize {
    // Upwards: the control words, `entry`, and the address to which that would
    // return, where the ABI has it: 8 bytes below a multiple of 16.
    let frame: [usize; 3] = [CONTROL_WORDS, entry as *const () as usize, 0];
    let at = top.wrapping_sub(size_of_val(&frame));
    // SAFETY: the caller's promise; `top` is aligned, so `at` is to 8.
    unsafe { at.cast::<[usize; 3]>().write(frame) };
    at.expose_provenance()
}
