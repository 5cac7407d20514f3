use cellule_hv::space::PAGE_BYTES;
use iced_x86::{Code, Decoder, DecoderOptions};

use super::*;

const HOST: u32 = 4711;

fn space(mappings: u64) -> AddressSpace {
    let mapping = |n| Mapping {
        name: "stack",
        gva: Gva(0x10_0000 + 2 * n * PAGE_BYTES),
        len: PAGE_BYTES,
        protection: Protection::ReadWrite,
        backing: Backing::Private(n * PAGE_BYTES),
    };
    AddressSpace::new((0..mappings).map(mapping).collect(), Gva(0x1_0000)).unwrap()
}

fn stub(mappings: u64) -> Stub {
    Stub::new(&space(mappings), HOST)
}

fn word(stub: &Stub, address: u64) -> u64 {
    let at = place(address);
    u64::from_le_bytes(stub.elf[at..at + 8].try_into().unwrap())
}

#[test]
fn the_layout_is_as_the_constants_say() {
    let stub = stub(3);
    assert_eq!(word(&stub, BASE + 24), ENTRY, "e_entry");
    let code = &stub.elf[place(ENTRY)..place(DATA)];
    let decoded: Vec<_> = Decoder::with_ip(64, code, ENTRY, DecoderOptions::NONE).iter().collect();
    let at = |address| decoded.iter().find(|i| i.ip() == address).unwrap();
    assert_eq!(at(ENTRY).memory_displacement64(), ENTRY_TABLE);
    assert_eq!(at(GO).memory_displacement64(), GO_TABLE);
    let syscalls: Vec<_> = decoded.iter().filter(|i| i.code() == Code::Syscall).collect();
    assert_eq!(syscalls.len(), 1, "the filter allows one instruction");
    assert_eq!(syscalls[0].next_ip(), GONE);
    let start = GO + 7;
    let jumps = decoded.iter().filter(|i| i.code() == Code::Jmp_rel8_64);
    assert!(jumps.clone().all(|i| i.near_branch_target() == start) && jumps.count() == 2);
    let bad = decoded.iter().find(|i| i.code() == Code::Jne_rel8_64).unwrap();
    assert_eq!(at(bad.near_branch_target()).code(), Code::Ud2);
    assert_eq!(word(&stub, GO_TABLE), libc::SYS_prctl.cast_unsigned());
    assert_eq!(word(&stub, TIMER + 24), TICK_US);
    assert_eq!(word(&stub, PROGRAM + 8), FILTER);
    assert_eq!(word(&stub, PROGRAM), u64::from(FILTER_LEN));
}

#[test]
fn there_is_room_for_any_number_of_mappings() {
    for mappings in [0, 1, 40, 60, 5000] {
        let stub = stub(mappings);
        assert!(stub.elf.len().is_multiple_of(4096));
        assert_eq!(stub.steps.iter().filter(|step| **step == Step::Map).count() as u64, mappings);
        assert_eq!(word(&stub, BASE + 64 + 32), stub.elf.len() as u64, "p_filesz");
    }
}

#[test]
fn a_failure_is_told_by_its_step_and_number() {
    let stub = stub(3);
    let first_map = stub.steps.iter().position(|step| *step == Step::Map).unwrap() as u64;
    let (rbx, gva) = (GO_TABLE + first_map * CALL_BYTES, 0x10_0000);
    let rax = i64::from(-libc::EEXIST).cast_unsigned() ^ gva;
    assert_eq!(stub.failure(rax, rbx), Some(Failed { step: Step::Map, errno: libc::EEXIST }));
    assert_eq!(stub.failure(rax, 0), None);
    assert_eq!(stub.failure(rax, u64::MAX), None);
}

/// `struct seccomp_data`: number, architecture, instruction pointer, arguments.
fn verdict(program: &[Instruction], number: u32, arch: u32, words: [u64; 3]) -> u32 {
    let [rip, first, second] = words;
    let mut data = [number.to_le_bytes(), arch.to_le_bytes()].concat();
    data.extend([rip, first, second].into_iter().flat_map(u64::to_le_bytes));
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let (code, if_true, if_false, constant) = program[at];
        at += 1;
        match code {
            0x20 => {
                let from = constant as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x15 => at += usize::from(if accumulator == constant { if_true } else { if_false }),
            0x06 => return constant,
            _ => panic!("no such instruction"),
        }
    }
}

#[test]
fn the_filter_allows_one_call_from_one_place() {
    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    const LEN: u64 = 0x3000;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    let program = filter(LEN);
    assert_eq!(program.len(), usize::from(FILTER_LEN));
    let of = |number, arch, words| verdict(&program, number, arch, words);
    assert_eq!(of(11, X86_64, [GONE, BASE, LEN]), libc::SECCOMP_RET_ALLOW);
    assert_eq!(of(11, I386, [GONE, BASE, LEN]), KILL);
    assert_eq!(of(12, X86_64, [GONE, BASE, LEN]), KILL);
    for other in [GONE + 1, GONE + (1 << 32), 0x40_0000] {
        assert_eq!(of(11, X86_64, [other, BASE, LEN]), KILL);
    }
    for other in [BASE + 1, 0, BASE + (1 << 32)] {
        assert_eq!(of(11, X86_64, [GONE, other, LEN]), KILL);
    }
    assert_eq!(of(11, X86_64, [GONE, BASE, LEN + (1 << 32)]), KILL);
    let vsyscall = 0xffff_ffff_ff60_0000;
    assert_eq!(of(96, X86_64, [vsyscall, BASE, LEN]), libc::SECCOMP_RET_TRAP);
}
