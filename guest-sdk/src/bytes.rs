//! The algorithms of the `memcpy` family, under names of our own.
//!
//! The compiler calls these functions for moves, comparisons and slices, so
//! they are slow nowhere, not even in a debug build, and must not be compiled
//! into calls of themselves: hence assembly. Small sizes are two overlapping
//! moves from both ends; large ones are the processor's string instructions,
//! which it runs in cache lines (Intel's optimization manual, 3.7.6, "enhanced
//! REP MOVSB").
//!
//! All follow the C ABI of x86-64: the direction flag is clear on entry.

use core::arch::naked_asm;

/// Copies `len` bytes from `source` to `target`, which may overlap, and returns
/// `target`: both `memcpy` and `memmove`.
///
/// Up to 64 bytes, everything is read before anything is written, so that an
/// overlap does no harm. Above, the bytes are copied away from the overlap.
///
/// # Safety
///
/// `source` must be readable and `target` writable for `len` bytes.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn copy(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 2f",
        "cmp rdx, 32",
        "ja 5f",
        // 16 to 32 bytes.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        "2:",
        "cmp edx, 8",
        "jb 3f",
        // 8 to 15 bytes.
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "3:",
        "cmp edx, 4",
        "jb 4f",
        // 4 to 7 bytes.
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "4:",
        "test edx, edx",
        "jz 9f",
        // 1 to 3 bytes: the first, the middle and the last.
        "mov r9, rdx",
        "shr r9, 1",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "movzx r10d, byte ptr [rsi + r9]",
        "mov [rdi], cl",
        "mov [rdi + rdx - 1], r8b",
        "mov [rdi + r9], r10b",
        "9:",
        "ret",
        "5:",
        "cmp rdx, 64",
        "ja 6f",
        // 33 to 64 bytes.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + rdx - 32], xmm2",
        "movups [rdi + rdx - 16], xmm3",
        "ret",
        "6:",
        // Does the target begin within the source? Then from the end.
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 8f",
        // Forward. The string instruction is slow to start, and slow if the
        // target is closely before the source.
        "cmp rdx, 512",
        "jb 7f",
        "neg rcx",
        "cmp rcx, 64",
        "jb 7f",
        "mov rcx, rdx",
        "rep movsb",
        "ret",
        "7:",
        // The last 32 bytes are read first, before the loop can overwrite them.
        "movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 32]",
        "70:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "add rsi, 32",
        "add rdi, 32",
        "cmp rdi, r8",
        "jb 70b",
        "movups [r8], xmm2",
        "movups [r8 + 16], xmm3",
        "ret",
        "8:",
        // Backward; the first 32 bytes are read first.
        "movups xmm2, [rsi]",
        "movups xmm3, [rsi + 16]",
        "lea r8, [rdi + 32]",
        "add rsi, rdx",
        "add rdi, rdx",
        "80:",
        "movups xmm0, [rsi - 16]",
        "movups xmm1, [rsi - 32]",
        "movups [rdi - 16], xmm0",
        "movups [rdi - 32], xmm1",
        "sub rsi, 32",
        "sub rdi, 32",
        "cmp rdi, r8",
        "ja 80b",
        "movups [rax], xmm2",
        "movups [rax + 16], xmm3",
        "ret",
    )
}

/// Sets `len` bytes at `target` to the lowest byte of `value` and returns
/// `target`: `memset`.
///
/// # Safety
///
/// `target` must be writable for `len` bytes.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn fill(target: *mut u8, value: i32, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx ecx, sil",
        "mov r8, 0x0101010101010101",
        "imul rcx, r8",
        "cmp rdx, 16",
        "jb 3f",
        "cmp rdx, 512",
        "ja 6f",
        // 16 to 512 bytes: both ends, and then what is between.
        "movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "movups [rdi], xmm0",
        "lea r8, [rdi + rdx - 16]",
        "movups [r8], xmm0",
        "2:",
        "add rdi, 16",
        "cmp rdi, r8",
        "jae 9f",
        "movups [rdi], xmm0",
        "jmp 2b",
        "3:",
        "cmp edx, 8",
        "jb 4f",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rcx",
        "ret",
        "4:",
        "cmp edx, 4",
        "jb 5f",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], ecx",
        "ret",
        "5:",
        "test edx, edx",
        "jz 9f",
        "mov [rdi], cl",
        "mov [rdi + rdx - 1], cl",
        "shr rdx, 1",
        "mov [rdi + rdx], cl",
        "9:",
        "ret",
        "6:",
        "mov r9, rdi",
        "mov eax, ecx",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r9",
        "ret",
    )
}

/// Compares `len` bytes as `memcmp` does: the difference of the first two bytes
/// that differ, else zero.
///
/// # Safety
///
/// `a` and `b` must be readable for `len` bytes.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn compare(a: *const u8, b: *const u8, len: usize) -> i32 {
    naked_asm!(
        "xor ecx, ecx",
        "cmp rdx, 16",
        "jb 4f",
        // The last position where 16 bytes are left.
        "lea r8, [rdx - 16]",
        "2:",
        "movdqu xmm0, [rdi + rcx]",
        "movdqu xmm1, [rsi + rcx]",
        "pcmpeqb xmm0, xmm1",
        "pmovmskb eax, xmm0",
        "xor eax, 0xffff",
        "jnz 3f",
        "cmp rcx, r8",
        "jae 8f",
        "add rcx, 16",
        "cmp rcx, r8",
        "cmova rcx, r8",
        "jmp 2b",
        "3:",
        // The lowest bit that is set is the first byte that differs.
        "bsf eax, eax",
        "add rcx, rax",
        "7:",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx edx, byte ptr [rsi + rcx]",
        "sub eax, edx",
        "ret",
        "4:",
        "cmp edx, 8",
        "jb 6f",
        "mov r8, [rdi]",
        "xor r8, [rsi]",
        "jnz 5f",
        // 8 to 15 bytes: the last 8 of them.
        "lea rcx, [rdx - 8]",
        "mov r8, [rdi + rcx]",
        "xor r8, [rsi + rcx]",
        "jz 8f",
        "5:",
        "bsf r8, r8",
        "shr r8, 3",
        "add rcx, r8",
        "jmp 7b",
        "6:",
        "cmp rcx, rdx",
        "jae 8f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "add rcx, 1",
        "sub eax, r8d",
        "jz 6b",
        "ret",
        "8:",
        "xor eax, eax",
        "ret",
    )
}

/// Counts the bytes before the first zero: `strlen`.
///
/// # Safety
///
/// `text` must be readable up to and including a zero byte.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn length(text: *const u8) -> usize {
    naked_asm!(
        "xor eax, eax",
        "2:",
        "cmp byte ptr [rdi + rax], 0",
        "je 3f",
        "add rax, 1",
        "jmp 2b",
        "3:",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// Bytes of which no two neighbours, and no two blocks, are alike.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 + n / 256 * 13 + 1).to_le_bytes()[0]).collect()
    }

    /// All small sizes, and some about the thresholds and beyond.
    fn sizes() -> impl Iterator<Item = usize> {
        (0..300).chain([511, 512, 513, 1000, 4096, 5000])
    }

    #[test]
    fn copies_are_those_of_a_loop_at_every_size_and_alignment() {
        let source = pattern(6000);
        for len in sizes() {
            for (to, from) in [(0, 0), (1, 0), (0, 1), (3, 5), (15, 8), (16, 31)] {
                let mut target = vec![0; 6000];
                let at = &raw mut target[to];
                // SAFETY: at most 31 + 5000 of 6000 bytes, in two vectors.
                let returned = unsafe { copy(at, &raw const source[from], len) };
                assert_eq!(returned, at);
                assert_eq!(target[to..to + len], source[from..from + len]);
                assert!(target[..to].iter().chain(&target[to + len..]).all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn overlapping_copies_are_those_of_a_loop() {
        for len in sizes() {
            for distance in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255] {
                for (to, from) in [(0, distance), (distance, 0)] {
                    let mut memory = pattern(6000);
                    let mut expected = memory.clone();
                    expected.copy_within(from..from + len, to);
                    let start = memory.as_mut_ptr();
                    // SAFETY: at most 255 + 5000 of 6000 bytes.
                    unsafe { copy(start.wrapping_add(to), start.wrapping_add(from), len) };
                    assert!(memory == expected, "{len} bytes from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn fills_are_those_of_a_loop() {
        for len in sizes() {
            for at in [0, 1, 9] {
                let mut memory = vec![0; 6000];
                let target = &raw mut memory[at];
                // SAFETY: at most 9 + 5000 of 6000 bytes.
                let returned = unsafe { fill(target, 0x1a5, len) };
                assert_eq!(returned, target);
                assert!(memory[at..at + len].iter().all(|byte| *byte == 0xa5));
                assert!(memory[..at].iter().chain(&memory[at + len..]).all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn comparisons_are_those_of_a_loop_wherever_the_difference_is() {
        let a = pattern(300);
        for len in 0..300 {
            for different in 0..300 {
                for change in [1, 0x80, 0xff] {
                    let mut b = a.clone();
                    b[different] ^= change;
                    // SAFETY: less than 300 of 300 bytes.
                    let order = unsafe { compare(a.as_ptr(), b.as_ptr(), len) };
                    assert_eq!(order.cmp(&0), a[..len].cmp(&b[..len]), "{len}, {different}");
                }
            }
        }
    }

    #[test]
    fn the_first_of_two_differences_counts() {
        for len in 2..100 {
            let a = vec![5u8; len];
            let mut b = a.clone();
            (b[len - 2], b[len - 1]) = (4, 6);
            // SAFETY: `len` of `len` bytes.
            assert!(unsafe { compare(a.as_ptr(), b.as_ptr(), len) } > 0);
        }
    }

    #[test]
    fn a_text_ends_at_its_first_zero() {
        for len in 0..40 {
            let mut text = [b'x'; 50];
            text[len] = 0;
            text[45] = 0;
            // SAFETY: there is a zero within.
            assert_eq!(unsafe { length(text.as_ptr()) }, len);
        }
    }
}
