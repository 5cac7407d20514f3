//! A function without calls that uses every register and the red zone.

use core::arch::naked_asm;

/// What is loaded into the registers.
#[repr(C, align(64))]
pub(super) struct Pattern {
    zmm: [u8; 64],
    general: [u64; 16],
    mxcsr: u32,
    control: u16,
}

/// What was found in them after a while.
#[repr(C, align(64))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    fxsave: [u8; 512],
    zmm: [u8; 192],
    masks: [u64; 2],
    /// RAX to R15, without RSP.
    general: [u64; 15],
    flags: u64,
    red_zone: [u64; 16],
}

impl Found {
    pub(super) const NOTHING: Self = Self {
        fxsave: [0; 512],
        zmm: [0; 192],
        masks: [0; 2],
        general: [0; 15],
        flags: 0,
        red_zone: [0; 16],
    };

    /// Whether the flags were what [`leaf`] sets: carry and direction.
    pub(super) const fn flags(&self) -> u64 {
        self.flags & 0xcd5
    }

    pub(super) fn mxcsr(&self) -> [u8; 4] {
        core::array::from_fn(|byte| self.fxsave[24 + byte])
    }

    /// Forgets where the last x87 instruction and its operand were, and the flag
    /// by which this was stepped.
    pub(super) fn without_places(mut self) -> Self {
        self.fxsave[5..24].fill(0);
        self.flags = self.flags();
        self
    }
}

/// Flush to zero, no denormals, all masks: not as a program starts.
pub(super) const MXCSR: u32 = 0x9fc0;
/// Double precision, rounding up: not as a program starts.
const CONTROL: u16 = 0x0a7f;

pub(super) static PATTERN: Pattern = Pattern {
    zmm: {
        let mut bytes = [0; 64];
        let mut index = 0;
        while index < 63 {
            bytes[index + 1] = bytes[index] + 1;
            index += 1;
        }
        bytes
    },
    general: {
        let mut words = [0x0123_4567_89ab_cdef_u64; 16];
        let mut index = 0;
        while index < 15 {
            words[index + 1] = words[index].rotate_left(4);
            index += 1;
        }
        words
    },
    mxcsr: MXCSR,
    control: CONTROL,
};

/// Fills all registers and the red zone, works with them, and shows them.
/// `wide` is 0 for XMM registers alone, 1 for YMM, 2 for ZMM and mask registers.
///
/// # Safety
///
/// The processor and the system must have what `wide` says.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn leaf(pattern: &Pattern, found: &mut Found, wide: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // [rsp + 24] is a register's place, [rsp + 16] how wide, [rsp] the result.
        "push 0",
        "push rdx",
        "push rdi",
        "push rsi",
        "fninit",
        "fldcw [rdi + 196]",
        "fldpi",
        "fldl2e",
        "fld1",
        "ldmxcsr [rdi + 192]",
        "movups xmm0, [rdi + 0]",
        "movups xmm1, [rdi + 1]",
        "movups xmm2, [rdi + 2]",
        "movups xmm3, [rdi + 3]",
        "movups xmm4, [rdi + 4]",
        "movups xmm5, [rdi + 5]",
        "movups xmm6, [rdi + 6]",
        "movups xmm7, [rdi + 7]",
        "movups xmm8, [rdi + 8]",
        "movups xmm9, [rdi + 9]",
        "movups xmm10, [rdi + 10]",
        "movups xmm11, [rdi + 11]",
        "movups xmm12, [rdi + 12]",
        "movups xmm13, [rdi + 13]",
        "movups xmm14, [rdi + 14]",
        "movups xmm15, [rdi + 15]",
        "cmp rdx, 1",
        "jb 2f",
        "vmovups ymm0, [rdi]",
        "vmovups ymm7, [rdi + 16]",
        "vmovups ymm15, [rdi + 32]",
        "je 2f",
        "vmovups zmm0, [rdi]",
        "vmovups zmm31, [rdi]",
        "kmovw k1, [rdi]",
        "kmovw k7, [rdi + 8]",
        "2:",
        "mov rax, [rdi + 64]",
        "mov rcx, [rdi + 72]",
        "mov rdx, [rdi + 80]",
        "mov rbx, [rdi + 88]",
        "mov rbp, [rdi + 96]",
        "mov rsi, [rdi + 104]",
        "mov r8, [rdi + 112]",
        "mov r9, [rdi + 120]",
        "mov r10, [rdi + 128]",
        "mov r11, [rdi + 136]",
        "mov r12, [rdi + 144]",
        "mov r13, [rdi + 152]",
        "mov r14, [rdi + 160]",
        "mov r15, [rdi + 168]",
        "mov rdi, [rdi + 176]",
        // Carry and direction; the trap flag stays.
        "pushfq",
        "and qword ptr [rsp], ~0xcd5",
        "or qword ptr [rsp], 0x401",
        "popfq",
        "mov [rsp - 8], rax",
        "mov [rsp - 16], rcx",
        "mov [rsp - 24], rdx",
        "mov [rsp - 32], rbx",
        "mov [rsp - 40], rbp",
        "mov [rsp - 48], rsi",
        "mov [rsp - 56], rdi",
        "mov [rsp - 64], r8",
        "mov [rsp - 72], r9",
        "mov [rsp - 80], r10",
        "mov [rsp - 88], r11",
        "mov [rsp - 96], r12",
        "mov [rsp - 104], r13",
        "mov [rsp - 112], r14",
        "mov [rsp - 120], r15",
        "mov [rsp - 128], rax",
        // Some work, of which the flags are untouched.
        "lea r8, [r9 + r10 * 2]",
        "xchg r11, [rsp - 128]",
        "not r12",
        "bswap r13",
        "movq xmm3, r14",
        "pshufd xmm4, xmm0, 0x1b",
        "fmul st(0), st(1)",
        "fxch st(2)",
        // What is there now.
        "mov [rsp + 24], rax",
        "mov rax, [rsp]",
        "mov [rax + 728], rcx",
        "mov [rax + 736], rdx",
        "mov [rax + 744], rbx",
        "mov [rax + 752], rbp",
        "mov [rax + 760], rsi",
        "mov [rax + 768], rdi",
        "mov [rax + 776], r8",
        "mov [rax + 784], r9",
        "mov [rax + 792], r10",
        "mov [rax + 800], r11",
        "mov [rax + 808], r12",
        "mov [rax + 816], r13",
        "mov [rax + 824], r14",
        "mov [rax + 832], r15",
        "mov rcx, [rsp + 24]",
        "mov [rax + 720], rcx",
        // The red zone, from its end, without changing a flag.
        "mov edx, 16",
        "3:",
        "lea rsi, [rdx * 8]",
        "not rsi",
        "mov rcx, [rsp + rsi + 1]",
        "mov [rax + rdx * 8 + 840], rcx",
        "lea rdx, [rdx - 1]",
        "mov rcx, rdx",
        "jrcxz 4f",
        "jmp 3b",
        "4:",
        "pushfq",
        "pop rcx",
        "mov [rax + 840], rcx",
        "cld",
        "fxsave64 [rax]",
        "cmp qword ptr [rsp + 16], 1",
        "jb 5f",
        "vmovups [rax + 512], ymm0",
        "vmovups [rax + 576], ymm7",
        "vmovups [rax + 608], ymm15",
        "je 5f",
        "vmovups [rax + 512], zmm0",
        "vmovups [rax + 640], zmm31",
        "kmovw [rax + 704], k1",
        "kmovw [rax + 712], k7",
        "5:",
        "cmp qword ptr [rsp + 16], 1",
        "jb 6f",
        "vzeroupper",
        "6:",
        "fninit",
        "mov dword ptr [rsp + 24], 0x1f80",
        "ldmxcsr [rsp + 24]",
        "add rsp, 32",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// Spoils every register that a function may, as wide as [`leaf`] uses them.
///
/// # Safety
///
/// The processor and the system must have what `wide` says.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn spoil(wide: u64) {
    naked_asm!(
        "cmp rdi, 1",
        "jb 2f",
        "vzeroall",
        "je 2f",
        "vpxord zmm31, zmm31, zmm31",
        "kxorw k1, k1, k1",
        "kxorw k7, k7, k7",
        "2:",
        "pxor xmm0, xmm0",
        "pxor xmm3, xmm3",
        "pxor xmm15, xmm15",
        "xor eax, eax",
        "mov ecx, eax",
        "mov edx, eax",
        "mov esi, eax",
        "mov edi, eax",
        "mov r8d, eax",
        "mov r9d, eax",
        "mov r10d, eax",
        "mov r11d, eax",
        "ret",
    )
}

const _: () = assert!(core::mem::offset_of!(Pattern, general) == 64);
const _: () = assert!(core::mem::offset_of!(Pattern, mxcsr) == 192);
const _: () = assert!(core::mem::offset_of!(Pattern, control) == 196);
const _: () = assert!(core::mem::offset_of!(Found, general) == 720);
const _: () = assert!(core::mem::offset_of!(Found, flags) == 840);
const _: () = assert!(core::mem::offset_of!(Found, red_zone) == 848);
