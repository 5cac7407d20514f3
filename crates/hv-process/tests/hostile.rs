//! Hostile instructions: what this backend makes of each, and what KVM does, where
//! there is /dev/kvm. The differences that remain are explained in the crate's
//! documentation; what the processor does itself must be equal.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cellule_hv::conformance::{DATA, SUPERVISOR, TEXT, partition};
use cellule_hv::{Exit, Hypervisor};
use cellule_hv_kvm::Kvm;
use cellule_hv_process::Process;

/// What comes of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Vector, error code, RIP, address.
    Fault(u8, u32, u64, Option<u64>),
    Doorbell(u8),
    /// Anything else that stops it.
    Stop,
}

impl Came {
    /// The same but for the error code, which Linux keeps to itself, and of which
    /// `kvm_pvm` shows what its own page tables say.
    fn without_code(self) -> Self {
        match self {
            Self::Fault(vector, _, rip, address) => Self::Fault(vector, 0, rip, address),
            other => other,
        }
    }
}

/// A program at `TEXT` with RAX zero, and what comes of it here.
struct Case {
    name: &'static str,
    code: &'static [u8],
    here: Came,
    /// Whether KVM may report something else: for a reason that the crate names.
    differs: bool,
}

const fn case(name: &'static str, code: &'static [u8], here: Came) -> Case {
    Case { name, code, here, differs: false }
}

const fn differs(name: &'static str, code: &'static [u8], here: Came) -> Case {
    Case { name, code, here, differs: true }
}

const fn gp(at: u64) -> Came {
    Came::Fault(13, 0, TEXT + at, None)
}

const fn ud(at: u64) -> Came {
    Came::Fault(6, 0, TEXT + at, None)
}

const fn pf(code: u32, rip: u64, address: u64) -> Came {
    Came::Fault(14, code, rip, Some(address))
}

const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;
// A page fault's error code.
const READ: u32 = 0b100;
const WRITE: u32 = 0b110;
const FETCH: u32 = 0b1_0100;
const PRESENT: u32 = 1;

const CASES: &[Case] = &[
    differs("in al, 1", &[0xe4, 1], gp(0)),
    case("in al, dx", &[0xec], gp(0)),
    case("out 2, al", &[0xe6, 2], gp(0)),
    case("out 1, eax", &[0xe7, 1], gp(0)),
    case("out dx, al; dx 0", &[0xee], gp(0)),
    case("out dx, al; dx 1", &[0x66, 0xba, 1, 0, 0xee], Came::Doorbell(0)),
    case("out 1, al; operand size", &[0x66, 0xe6, 1], Came::Doorbell(0)),
    case("out 1, al; rex.w", &[0x48, 0xe6, 1], Came::Doorbell(0)),
    differs("rep outsb; dx 1", &[0x66, 0xba, 1, 0, 0xf3, 0x6e], gp(4)),
    case("cli", &[0xfa], gp(0)),
    case("sti", &[0xfb], gp(0)),
    case("hlt", &[0xf4], gp(0)),
    case("mov cr0, rax", &[0x0f, 0x22, 0xc0], gp(0)),
    case("mov rax, cr3", &[0x0f, 0x20, 0xd8], gp(0)),
    case("mov dr7, rax", &[0x0f, 0x23, 0xf8], gp(0)),
    case("rdmsr", &[0x0f, 0x32], gp(0)),
    case("wrmsr", &[0x0f, 0x30], gp(0)),
    case("rdpmc", &[0x0f, 0x33], gp(0)),
    case("invlpg [rax]", &[0x0f, 0x01, 0x38], gp(0)),
    case("invd", &[0x0f, 0x08], gp(0)),
    case("clts", &[0x0f, 0x06], gp(0)),
    case("lmsw ax", &[0x0f, 0x01, 0xf0], gp(0)),
    case("ltr ax", &[0x0f, 0x00, 0xd8], gp(0)),
    case("lldt ax", &[0x0f, 0x00, 0xd0], gp(0)),
    case("swapgs", &[0x0f, 0x01, 0xf8], gp(0)),
    case("xsetbv", &[0x0f, 0x01, 0xd1], gp(0)),
    // push 0; push 0; pushfq; push 16 (a selector of ring 0); push 0; iretq
    differs("iretq to ring 0", &[0x6a, 0, 0x6a, 0, 0x9c, 0x6a, 16, 0x6a, 0, 0x48, 0xcf], gp(9)),
    case("sysret", &[0x48, 0x0f, 0x07], gp(0)),
    case("ud2", &[0x0f, 0x0b], ud(0)),
    case("ud1", &[0x0f, 0xb9, 0xc0], ud(0)),
    case("lock nop", &[0xf0, 0x90], ud(0)),
    case("push es", &[0x06], ud(0)),
    case("vmxoff", &[0x0f, 0x01, 0xc4], ud(0)),
    differs("vmcall", &[0x0f, 0x01, 0xc1, 0x0f, 0x0b], Came::Stop),
    differs("syscall", &[0x0f, 0x05], ud(0)),
    differs("int 0x80", &[0xcd, 0x80], Came::Fault(13, 0x402, TEXT, None)),
    differs("int 0x20", &[0xcd, 0x20], Came::Fault(13, 0x102, TEXT, None)),
    differs("int3", &[0xcc], Came::Fault(3, 0, TEXT + 1, None)),
    differs("int 3", &[0xcd, 3], Came::Fault(3, 0, TEXT + 2, None)),
    differs("int1", &[0xf1], Came::Fault(1, 0, TEXT + 1, None)),
    // pushfq; or dword [rsp], TF; popfq; nop; nop
    case(
        "single step",
        &[0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90],
        Came::Fault(1, 0, TEXT + 10, None),
    ),
    case("div by zero", &[0xf7, 0xf0], Came::Fault(0, 0, TEXT, None)),
    // mov edx, 2; mov ecx, 1; div ecx
    case(
        "div overflow",
        &[0xba, 2, 0, 0, 0, 0xb9, 1, 0, 0, 0, 0xf7, 0xf1],
        Came::Fault(0, 0, TEXT + 10, None),
    ),
    // fninit; push 0; fldcw [rsp]; fldz; fldz; fdivp; fwait
    case(
        "x87 division",
        &[0xdb, 0xe3, 0x6a, 0, 0xd9, 0x2c, 0x24, 0xd9, 0xee, 0xd9, 0xee, 0xde, 0xf9, 0x9b],
        Came::Fault(16, 0, TEXT + 13, None),
    ),
    // push 0; ldmxcsr [rsp]; xorps xmm0, xmm0; divps xmm0, xmm0
    case(
        "sse division",
        &[0x6a, 0, 0x0f, 0xae, 0x14, 0x24, 0x0f, 0x57, 0xc0, 0x0f, 0x5e, 0xc0],
        Came::Fault(19, 0, TEXT + 9, None),
    ),
    // push -1; ldmxcsr [rsp]
    differs("mxcsr with reserved bits", &[0x6a, 0xff, 0x0f, 0xae, 0x14, 0x24], gp(2)),
    case("read of page 0", &[0x8a, 0x00], pf(READ, TEXT, 0)),
    case("write to page 0", &[0x88, 0x00], pf(WRITE, TEXT, 0)),
    case("jump to page 0", &[0xff, 0xe0], pf(FETCH, 0, 0)),
    case("call to page 0", &[0xff, 0xd0], pf(FETCH, 0, 0)),
    // mov [rip + 0], al: onto what follows
    case("write to text", &[0x88, 0x05, 0, 0, 0, 0], pf(WRITE | PRESENT, TEXT, TEXT + 6)),
    case("increment of text", &[0xfe, 0x05, 0, 0, 0, 0], pf(WRITE | PRESENT, TEXT, TEXT + 6)),
    // mov eax, DATA; jmp rax
    case("jump to data", &[0xb8, 0, 0x20, 0x40, 0, 0xff, 0xe0], pf(FETCH | PRESENT, DATA, DATA)),
    // mov eax, SUPERVISOR; mov al, [rax]
    differs(
        "read of supervisor pages",
        &[0xb8, 0, 0x60, 0x40, 0, 0x8a, 0],
        pf(READ, TEXT + 5, SUPERVISOR),
    ),
    // mov rsp, 16; push rax
    case("push to page 0", &[0xbc, 16, 0, 0, 0, 0x50], pf(WRITE, TEXT + 5, 8)),
    // mov edi, 8; movsb: reads at rsi, which is zero
    case("movsb from page 0", &[0xa4], pf(READ, TEXT, 0)),
    // mov edi, DATA; movsb
    case("movsb from page 0 to data", &[0xbf, 0, 0x20, 0x40, 0, 0xa4], pf(READ, TEXT + 5, 0)),
    // mov esi, DATA; movsb: writes at rdi
    case("movsb to page 0", &[0xbe, 0, 0x20, 0x40, 0, 0xa4], pf(WRITE, TEXT + 5, 0)),
    // jmp to the last two bytes of the page, which are zero: add [rax], al
    case(
        "write in the last instruction of text",
        &[0xe9, 0xf9, 0x0f, 0, 0],
        pf(WRITE, TEXT + 0xffe, 0),
    ),
    // jmp to the last byte: its second byte is not there
    case(
        "instruction that goes on behind text",
        &[0xe9, 0xfa, 0x0f, 0, 0],
        pf(FETCH, TEXT + 0xfff, TEXT + 0x1000),
    ),
    // mov rax, 1 << 63; mov al, [rax]
    case("read of no address", &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a, 0], gp(10)),
    // mov rax, 1 << 63; jmp rax
    case("jump to no address", &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xe0], gp(10)),
    // mov rsp, 1 << 63; push rax
    case(
        "push to no address",
        &[0x48, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x50],
        Came::Fault(12, 0, TEXT + 10, None),
    ),
    // mov rax, 0xffff800000000000; mov al, [rax]
    case(
        "read of the kernel's half",
        &[0x48, 0xb8, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0x8a, 0],
        pf(READ, TEXT + 10, 0xffff_8000_0000_0000),
    ),
    // mov rax, VSYSCALL; jmp rax, with an address on the stack; call rax
    case(
        "call to the vsyscall page",
        &[0x48, 0xc7, 0xc0, 0, 0, 0x60, 0xff, 0xff, 0xd0],
        pf(FETCH, VSYSCALL, VSYSCALL),
    ),
    case(
        "jump to the vsyscall page",
        &[0x48, 0xc7, 0xc0, 0, 0, 0x60, 0xff, 0xff, 0xe0],
        pf(FETCH, VSYSCALL, VSYSCALL),
    ),
    case(
        "read of the vsyscall page",
        &[0x48, 0xc7, 0xc0, 0, 0, 0x60, 0xff, 0x8a, 0],
        pf(READ, TEXT + 7, VSYSCALL),
    ),
    // movaps xmm0, [rsp - 15]
    case("unaligned movaps", &[0x0f, 0x28, 0x44, 0x24, 0xf1], gp(0)),
    // mov ax, 3; mov ss, ax
    case("mov ss, null selector", &[0x31, 0xc0, 0x8e, 0xd0], gp(2)),
    // pushfq; or dword [rsp], AC; popfq; mov eax, [rsp - 15]
    differs(
        "unaligned with the alignment flag",
        &[0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x8b, 0x44, 0x24, 0xf1],
        Came::Fault(17, 0, TEXT + 9, None),
    ),
    differs("sysenter", &[0x0f, 0x34], Came::Stop),
    // mov ebp, DATA; mov eax, 20; sysenter
    differs(
        "sysenter with a stack",
        &[0xbd, 0, 0x20, 0x40, 0, 0xb8, 20, 0, 0, 0, 0x0f, 0x34],
        Came::Stop,
    ),
    differs("sgdt", &[0x0f, 0x01, 0x44, 0x24, 0xf0, 0xe6, 1], Came::Stop),
    // cpuid; xor eax, eax; out 1, al
    case("cpuid", &[0x0f, 0xa2, 0x31, 0xc0, 0xe6, 1], Came::Doorbell(0)),
    case("rdtsc", &[0x0f, 0x31, 0x31, 0xc0, 0xe6, 1], Came::Doorbell(0)),
    case("rdtscp", &[0x0f, 0x01, 0xf9, 0x31, 0xc0, 0xe6, 1], Came::Doorbell(0)),
    // xor ecx, ecx; xgetbv; xor eax, eax; out 1, al
    case("xgetbv", &[0x31, 0xc9, 0x0f, 0x01, 0xd0, 0x31, 0xc0, 0xe6, 1], Came::Doorbell(0)),
];

fn run(hypervisor: &dyn Hypervisor, case: &Case) -> Came {
    let mut partition = partition(hypervisor, case.code).unwrap();
    let mut exits = std::iter::repeat_with(|| partition.run());
    let exit = exits.find(|exit| !matches!(exit, Ok(Exit::Kicked))).unwrap();
    match exit {
        Ok(Exit::Doorbell(byte)) => Came::Doorbell(byte),
        Ok(Exit::Fault(fault)) => Came::Fault(
            fault.vector,
            fault.error_code,
            fault.rip.0,
            fault.address.map(|address| address.0),
        ),
        _ => Came::Stop,
    }
}

#[test]
fn hostile_instructions_come_to_what_the_table_says() {
    let process = Process::open().unwrap();
    let wrong: Vec<_> = (CASES.iter())
        .map(|case| (case.name, case.here, run(&process, case)))
        .filter(|(_, expected, came)| expected != came && *expected != Came::Stop)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

/// KVM's `kvm_pvm` runs ring 3 on the bare processor below another kernel, and differs
/// from both in more than ordinary KVM: these are printed.
#[test]
fn hostile_instructions_come_to_the_same_as_on_kvm() {
    let process = Process::open().unwrap();
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => return println!("backends: process ({error})"),
    };
    println!("backends: process, kvm");
    let different: Vec<_> = (CASES.iter())
        .map(|case| (case, run(&process, case), run(&kvm, case)))
        .filter(|(_, here, there)| here != there)
        .collect();
    for (case, here, there) in &different {
        println!("{:40} process {here:x?}, kvm {there:x?}", case.name);
    }
    let names = (different.iter())
        .filter(|(case, here, there)| !case.differs && here.without_code() != there.without_code())
        .map(|(case, ..)| case.name);
    assert_eq!(names.collect::<Vec<_>>(), [""; 0], "only what the table says should differ");
}
