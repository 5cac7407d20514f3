//! Does what ring 3 may not, one export for each way.
#![no_std]
#![no_main]

use core::arch::asm;
use core::hint::black_box;

use cellule_guest::prelude::*;

/// Reads a byte wherever it is told to.
#[guest_function]
fn read_at(address: u64) -> u8 {
    // SAFETY: none; where nothing is mapped, the guest is to fault.
    unsafe { (address as *const u8).read_volatile() }
}

/// Writes a byte wherever it is told to.
#[guest_function]
fn write_at(address: u64) {
    // SAFETY: none, as for `read_at`.
    unsafe { (address as *mut u8).write_volatile(0x90) }
}

/// Reads, writes or copies by an instruction that few emulators know.
#[guest_function]
fn touch_at(address: u64, how: &str) {
    // SAFETY: none, as for `read_at`; all registers that change are declared.
    unsafe {
        match how {
            "sse read" => asm!("movups xmm0, [{}]", in(reg) address, out("xmm0") _),
            "avx write" => asm!("vmovups [{}], ymm0", in(reg) address),
            "rep movsb" => asm!("rep movsb", inout("rcx") 4096_u64 => _,
                inout("rsi") address => _, inout("rdi") address + 4096 => _),
            "xadd" => asm!("lock xadd [{}], {:r}", in(reg) address, inout(reg) 1_u64 => _),
            "push" => asm!("xchg rsp, {0}", "push rax", "xchg rsp, {0}",
                inout(reg) address + 64 => _),
            "fxsave" => asm!("fxsave [{}]", in(reg) address),
            other => panic!("no such access here: {other}"),
        }
    }
}

/// Jumps wherever it is told to.
#[guest_function]
fn jump_to(address: u64) {
    // SAFETY: none; where nothing can be executed, the guest is to fault.
    unsafe { asm!("call {}", in(reg) address) }
}

/// Where functions are.
#[guest_function]
fn text_address() -> u64 {
    read_at as *const () as u64
}

/// Where constants are.
#[guest_function]
fn rodata_address() -> u64 {
    static CONSTANT: [u64; 4] = [1, 2, 3, 4];
    black_box(&CONSTANT).as_ptr() as u64
}

/// Where the stack is.
#[guest_function]
fn stack_address() -> u64 {
    let local = 0xc3_u8;
    &raw const *black_box(&local) as u64
}

/// Where the heap is.
#[guest_function]
fn heap_address() -> u64 {
    let boxed = Box::new(0xc3_u8);
    &raw const *black_box(boxed) as u64
}

/// One privileged or forbidden instruction for each name.
#[guest_function]
fn execute(instruction: &str) {
    let here = [0_u64; 2];
    // SAFETY: none; each of these is to fault before it has an effect.
    unsafe {
        match instruction {
            "cli" => asm!("cli"),
            "sti" => asm!("sti"),
            "hlt" => asm!("hlt"),
            "mov cr3" => asm!("mov cr3, {}", in(reg) 0_u64),
            "mov dr7" => asm!("mov dr7, {}", in(reg) 0_u64),
            "rdmsr" => asm!("rdmsr", in("ecx") 0xc000_0080_u32, out("eax") _, out("edx") _),
            "wrmsr" => {
                asm!("wrmsr", in("ecx") 0xc000_0080_u32, in("eax") 0, in("edx") 0);
            }
            "lgdt" => asm!("lgdt [{}]", in(reg) &raw const here),
            "lidt" => asm!("lidt [{}]", in(reg) &raw const here),
            "ltr" => asm!("ltr {:x}", in(reg) 0_u16),
            "invlpg" => asm!("invlpg [{}]", in(reg) &raw const here),
            "wbinvd" => asm!("wbinvd"),
            "xsetbv" => asm!("xsetbv", in("ecx") 0, in("eax") 1, in("edx") 0),
            "out 5" => asm!("out 5, al", in("al") 0_u8),
            "out dx" => asm!("out dx, al", in("dx") 0x3f8_u16, in("al") 0_u8),
            "out 1, ax" => asm!("out 1, ax", in("ax") 2_u16),
            "in 1" => asm!("in al, 1", out("al") _),
            "in 5" => asm!("in al, 5", out("al") _),
            "ud2" => asm!("ud2"),
            "int3" => asm!("int3"),
            "int 0x80" => asm!("int 0x80"),
            "divide" => asm!("div {:e}", in(reg) 0_u32, inout("eax") 1 => _, inout("edx") 0 => _),
            "trap flag" => asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop"),
            "lretq" => asm!("push 0x08", "push 0", "retfq"),
            "iretq" => asm!("push 0x10", "push rsp", "push 2", "push 0x08", "push 0", "iretq"),
            "unmasked sse" => asm!("ldmxcsr [{}]", "divss xmm0, xmm1", in(reg) &0x1d80_u32,
                inout("xmm0") 1.0_f32 => _, in("xmm1") 0.0_f32),
            other => panic!("no such instruction here: {other}"),
        }
    }
}

#[guest_function]
fn overflow_the_stack() -> u64 {
    #[allow(unconditional_recursion, reason = "that is the fault")]
    fn deeper(n: u64) -> u64 {
        let frame = black_box([n; 64]);
        deeper(black_box(n + 1)) + frame[(n % 64) as usize]
    }
    black_box(deeper(0))
}

#[guest_function]
fn panic_with(message: &str) {
    panic!("{message}");
}

#[guest_function]
fn exhaust_the_heap() -> u64 {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        blocks.push(vec![1; 1 << 16]);
    }
}

/// Writes any byte to the doorbell.
#[guest_function]
fn ring(operation: u8) {
    // SAFETY: the doorbell's port is open; what comes of it is the host's affair.
    unsafe { asm!("out 1, al", in("al") operation) }
}

#[guest_function]
fn fine() -> u8 {
    1
}
