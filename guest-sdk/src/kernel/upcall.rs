//! Masking upcalls, and where the host makes the guest go on: at an upcall, and
//! at the fault of a task.

use alloc::vec::Vec;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use cellule_abi::tasks::TraceEvent;
use cellule_rtos::End;

use super::block::BLOCK;
use super::section::Section;
use crate::trace;

/// Masks upcalls; whether they were.
#[inline]
pub(crate) fn mask() -> bool {
    let was = BLOCK.mask.load(Ordering::Relaxed);
    BLOCK.mask.store(1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    was != 0
}

/// Unmasks upcalls, and catches up with one that came meanwhile.
#[inline(always)]
pub(crate) fn unmask() {
    compiler_fence(Ordering::SeqCst);
    BLOCK.mask.store(0, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if BLOCK.pending.load(Ordering::Relaxed) != 0 {
        catch_up();
    }
}

/// Whether upcalls are masked: the context may not wait.
pub(crate) fn is_masked() -> bool {
    BLOCK.mask.load(Ordering::Relaxed) != 0
}

/// Makes whoever unmasks upcalls look at what there is.
pub(crate) fn set_pending() {
    BLOCK.pending.store(1, Ordering::Relaxed);
}

/// Forgets that there is something to look at: before looking.
pub(crate) fn clear_pending() {
    BLOCK.pending.store(0, Ordering::Relaxed);
}

#[cold]
fn catch_up() {
    while BLOCK.pending.load(Ordering::Relaxed) != 0 {
        BLOCK.mask.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let mut section = Section::within_mask();
        section.look();
        section.run();
        drop(section);
        compiler_fence(Ordering::SeqCst);
        BLOCK.mask.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

/// The state components that the host switched on: what `xsave` must save. Zero
/// if there is only `fxsave`.
pub(crate) static VECTOR_STATE: AtomicU64 = AtomicU64::new(0);

/// The components whose places in the standard format (Intel SDM volume 1,
/// 13.4.2) end below [`SAVE_BYTES`]: x87 to PKRU, the last 8 bytes at 2688.
pub(crate) const KNOWN_STATE: u64 = 0x2ff;
const SAVE_BYTES: usize = 2752;
const _: () = assert!(SAVE_BYTES.is_multiple_of(64) && SAVE_BYTES >= 2688 + 8);

/// MXCSR as a program starts with it.
static MXCSR: u32 = 0x1f80;

/// The upcall entry. The host has masked upcalls, skipped the red zone and left
/// the interrupted instruction's address at RSP; every other register is the
/// interrupted code's.
///
/// Everything is saved on the stack of the interrupted task, and so the kernel
/// may leave for another task from here as from any call. Upcalls are unmasked
/// when all is restored but the flags: one that arrives in the last three
/// instructions finds 16 bytes of this one on the stack. `mov` to the mask
/// changes no flags; what `cmp` changes, `popfq` restores.
///
/// # Safety
///
/// For the host alone.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn upcall_entry() -> ! {
    naked_asm!(
        "pushfq",
        "2:",
        "cld",
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbp, rsp",
        "sub rsp, {save_bytes}",
        "and rsp, -64",
        "mov eax, [rip + {vector_state}]",
        "test eax, eax",
        "jz 3f",
        // XRSTOR wants the rest of the header to be zero: SDM volume 1, 13.7.
        "xor edx, edx",
        "mov [rsp + 512], rdx",
        "mov [rsp + 520], rdx",
        "mov [rsp + 528], rdx",
        "mov [rsp + 536], rdx",
        "mov [rsp + 544], rdx",
        "mov [rsp + 552], rdx",
        "mov [rsp + 560], rdx",
        "mov [rsp + 568], rdx",
        "xsave64 [rsp]",
        "jmp 4f",
        "3:",
        "fxsave64 [rsp]",
        "4:",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "call {upcall}",
        "mov eax, [rip + {vector_state}]",
        "test eax, eax",
        "jz 5f",
        "xor edx, edx",
        "xrstor64 [rsp]",
        "jmp 6f",
        "5:",
        "fxrstor64 [rsp]",
        "6:",
        "mov rsp, rbp",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "mov dword ptr [rip + {block}], 0",
        "cmp dword ptr [rip + {block} + 4], 0",
        "jne 7f",
        "popfq",
        "ret {red_zone}",
        "7:",
        "mov dword ptr [rip + {block}], 1",
        "jmp 2b",
        save_bytes = const SAVE_BYTES,
        vector_state = sym VECTOR_STATE,
        mxcsr = sym MXCSR,
        upcall = sym upcall,
        block = sym BLOCK,
        red_zone = const cellule_abi::tasks::RED_ZONE_BYTES,
    )
}

/// Looks at what has happened, and lets the most urgent task run.
extern "C" fn upcall() {
    let mut section = Section::within_mask();
    if section.watched {
        trace::record(TraceEvent::Upcall, section.current().number(), 0);
    }
    section.look();
    section.run();
}

/// Makes the stack on which a task's fault is handled, as its own may be what is
/// at fault, and returns its top; `None` if there is no memory. Not a static:
/// few guests need it, and all would have its pages.
pub(crate) fn fault_stack() -> Option<*mut u8> {
    /// 16 KiB, and so aligned well enough for a stack.
    const WORDS: usize = 1024;
    let mut words = Vec::<u128>::new();
    words.try_reserve_exact(WORDS).ok()?;
    words.resize(WORDS, 0);
    Some(words.leak().as_mut_ptr_range().end.cast())
}

/// The fault entry. The host has masked upcalls and written down the fault; the
/// registers are zero but for RSP, which is the fault stack's top.
///
/// # Safety
///
/// For the host alone.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn fault_entry() -> ! {
    naked_asm!(
        "cld",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "call {fault}",
        "ud2",
        mxcsr = sym MXCSR,
        fault = sym fault,
    )
}

/// Ends the task that faulted.
extern "C" fn fault() -> ! {
    let vector = BLOCK.fault_vector.load(Ordering::Relaxed);
    let rip = BLOCK.fault_rip.load(Ordering::Relaxed);
    let address = BLOCK.fault_address.load(Ordering::Relaxed);
    let section = Section::after_fault();
    let name = section.name();
    log::error!(
        target: "cellule",
        "task {name}: exception {vector} at {rip:#x}, address {address:#x}: the task has ended"
    );
    section.end_current(End::Failed)
}
