//! Where the host makes the guest go on: upcalls and faults of tasks.

use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;

use cellule_abi::doorbell::Doorbell;
use cellule_abi::record::ReturnStatus;
use cellule_abi::tasks::NEVER;

use crate::shared::{
    self, ARMED, BLOCK, DEADLINE, FAULTED, FOLLOWING, MASK, PENDING, PERIOD, UPCALLS,
};

global_asm!(
    ".globl upcall_entry, fault_entry, spin_with_patterns",
    // All state but the return address, which the host pushed, is the
    // interrupted code's. This program uses no more than SSE.
    "upcall_entry:",
    "pushfq",
    "cld",
    "push rax; push rbx; push rcx; push rdx; push rsi; push rdi; push rbp",
    "push r8; push r9; push r10; push r11; push r12; push r13; push r14; push r15",
    "mov rbp, rsp",
    "sub rsp, 512",
    "and rsp, -16",
    "fxsave64 [rsp]",
    "call {upcall}",
    "fxrstor64 [rsp]",
    "mov rsp, rbp",
    "pop r15; pop r14; pop r13; pop r12; pop r11; pop r10; pop r9; pop r8",
    "pop rbp; pop rdi; pop rsi; pop rdx; pop rcx; pop rbx; pop rax",
    "popfq",
    "ret 128",
    "fault_entry:",
    "call {fault}",
    "ud2",
    upcall = sym upcall,
    fault = sym fault,
);

// spin_with_patterns(rdi: 64 words, written; rsi: so many upcalls): fills all
// registers and the red zone with patterns, spins, and stores what is there then.
global_asm!(
    "spin_with_patterns:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "push rdi",
    "mov rax, 0x0101010101010101",
    "movq xmm0, rax; movq xmm7, rax; movq xmm15, rax",
    "fld1",
    "imul rbx, rax, 3; imul rcx, rax, 5; imul rdx, rax, 7; imul rdi, rax, 9; imul rbp, rax, 11",
    "imul r8, rax, 13; imul r9, rax, 15; imul r10, rax, 17; imul r11, rax, 19",
    "imul r12, rax, 21; imul r13, rax, 23; imul r14, rax, 25; imul r15, rax, 27",
    "mov [rsp - 8], rbx; mov [rsp - 64], r8; mov [rsp - 128], r15",
    "2: cmp [rip + {upcalls}], rsi",
    "jb 2b",
    "xchg rdi, [rsp]",
    "mov [rdi], rax; mov [rdi + 8], rbx; mov [rdi + 16], rcx; mov [rdi + 24], rdx",
    "mov [rdi + 40], rbp; mov [rdi + 48], r8; mov [rdi + 56], r9; mov [rdi + 64], r10",
    "mov [rdi + 72], r11; mov [rdi + 80], r12; mov [rdi + 88], r13; mov [rdi + 96], r14",
    "mov [rdi + 104], r15",
    "mov rax, [rsp]; mov [rdi + 32], rax",
    "mov rax, [rsp - 8]; mov [rdi + 112], rax",
    "mov rax, [rsp - 64]; mov [rdi + 120], rax",
    "mov rax, [rsp - 128]; mov [rdi + 128], rax",
    "movq [rdi + 136], xmm0; movq [rdi + 144], xmm7; movq [rdi + 152], xmm15",
    "fistp qword ptr [rdi + 160]",
    "pop rdi",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    upcalls = sym UPCALLS,
);

unsafe extern "C" {
    pub fn upcall_entry();
    pub fn fault_entry();
    fn spin_with_patterns(words: *mut [u64; 21], upcalls: u64);
}

/// Spins until there were so many upcalls; tells whether all registers are intact.
pub fn registers_stay(upcalls: u64) -> bool {
    let mut words = [0; 21];
    // SAFETY: the assembly above writes the 21 words and keeps the ABI's registers.
    unsafe { spin_with_patterns(&raw mut words, upcalls) };
    let times = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 3, 13, 27, 1, 1, 1];
    let patterns = times.map(|n| 0x0101_0101_0101_0101_u64.wrapping_mul(n));
    words[..20] == patterns && words[20] == 1
}

extern "C" fn upcall() {
    UPCALLS.fetch_add(1, Relaxed);
    loop {
        BLOCK.store_u32(PENDING, 0);
        next_deadline();
        BLOCK.store_u32(MASK, 0);
        if BLOCK.load_u32(PENDING) == 0 {
            return;
        }
        BLOCK.store_u32(MASK, 1);
    }
}

fn next_deadline() {
    let period = PERIOD.load(Relaxed);
    let mut next = BLOCK.load(DEADLINE);
    while period != 0 && next <= shared::now_ns() {
        next += period;
    }
    let next = if period == 0 { NEVER } else { next };
    BLOCK.store(DEADLINE, next);
    BLOCK.store(FOLLOWING, next.saturating_add(period));
    // The host arms one that has not passed when it looks: that may be none.
    if BLOCK.load(ARMED) > next {
        shared::ring(Doorbell::Submit);
    }
}

/// A task failed: the call that it served is over, and the rest goes on.
extern "C" fn fault() -> ! {
    FAULTED.fetch_add(1, Relaxed);
    BLOCK.store_u32(MASK, 0);
    crate::answer(ReturnStatus::TaskEnded, 0);
    // The first stack is the failed task's: this one serves from now on, as no
    // test lets two tasks fail.
    crate::main(shared::page())
}
