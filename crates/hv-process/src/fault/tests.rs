use cellule_hv::{Backing, Mapping};

use super::*;
use crate::instruction::Bytes;

const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x40_2000;

fn space() -> AddressSpace {
    let mapping = |name, gva, protection, backing| Mapping {
        name,
        gva: Gva(gva),
        len: 4096,
        protection,
        backing,
    };
    let mappings = vec![
        mapping("text", TEXT, Protection::ReadExecute, Backing::Shared(0)),
        mapping("data", DATA, Protection::ReadWrite, Backing::Private(0)),
    ];
    AddressSpace::new(mappings, Gva(0x50_0000)).unwrap()
}

/// What a signal means to a guest at the start of text, or elsewhere, that was about to
/// run an instruction.
fn meaning(code: &[u8], rip: u64, signal: Signal) -> Meaning {
    // SAFETY: integers, of which any value is valid.
    let zero: Registers = unsafe { std::mem::zeroed() };
    let registers = Registers { rip, rsp: 0x7000, ..zero };
    let mut bytes = Bytes::default();
    code.iter().for_each(|byte| assert!(bytes.push(*byte)));
    let instruction = Instruction::at(rip, &bytes);
    Scene { space: &space(), registers: &registers, instruction: &instruction }.meaning(signal)
}

fn signal(number: i32, code: i32, address: u64) -> Signal {
    Signal { number, code, address }
}

const NOP: &[u8] = &[0x90];

#[test]
fn each_signal_is_its_exception() {
    let table = [
        (libc::SIGSEGV, SI_KERNEL, PROTECTION),
        (libc::SIGSEGV, SEGV_CPERR, CONTROL),
        (libc::SIGBUS, SI_KERNEL, STACK),
        (libc::SIGBUS, BUS_ADRALN, ALIGNMENT),
        (libc::SIGILL, 2, UNDEFINED),
        (libc::SIGFPE, FPE_INTDIV, DIVIDE),
        (libc::SIGFPE, FPE_INTOVF, OVERFLOW),
        (libc::SIGFPE, 7, SIMD),
        (libc::SIGTRAP, SI_KERNEL, BREAKPOINT),
        (libc::SIGTRAP, TRAP_TRACE, DEBUG),
        (libc::SIGTRAP, TRAP_BRKPT, DEBUG),
    ];
    for (number, code, vector) in table {
        let (rip, rsp) = (Gva(TEXT), Gva(0x7000));
        let fault = Fault { vector, error_code: 0, address: None, rip, rsp };
        let came = meaning(NOP, TEXT, signal(number, code, 0));
        assert_eq!(came, Meaning::Fault(fault), "signal {number}, code {code}");
    }
    let Meaning::Fault(x87) = meaning(&[0x9b], TEXT, signal(libc::SIGFPE, 7, 0)) else {
        panic!("a fault should come")
    };
    assert_eq!(x87.vector, X87);
}

#[test]
fn what_somebody_sent_is_nothing_to_the_guest() {
    for number in [libc::SIGSEGV, libc::SIGTRAP, libc::SIGILL] {
        assert_eq!(meaning(NOP, TEXT, signal(number, libc::SI_USER, 0)), Meaning::Foreign);
        assert_eq!(meaning(NOP, TEXT, signal(number, libc::SI_QUEUE, 0)), Meaning::Foreign);
    }
    assert_eq!(meaning(NOP, TEXT, signal(libc::SIGTERM, 0x80, 0)), Meaning::Foreign);
}

#[test]
fn a_machine_that_fails_is_no_fault_of_the_guest_s() {
    const BUS_MCEERR_AR: i32 = 4;
    assert_eq!(meaning(NOP, TEXT, signal(libc::SIGBUS, BUS_MCEERR_AR, 0)), Meaning::Machine);
}

#[test]
fn a_page_fault_says_what_was_tried() {
    let read: &[u8] = &[0x8a, 0x00]; // mov al, [rax], with rax zero
    let write: &[u8] = &[0x88, 0x00]; // mov [rax], al
    let table = [
        (read, TEXT, libc::SIGSEGV, SEGV_MAPERR, 0, USER),
        (write, TEXT, libc::SIGSEGV, SEGV_MAPERR, 0, USER | WRITE),
        (read, TEXT, libc::SIGBUS, BUS_ADRERR, 0, USER),
        (write, TEXT, libc::SIGBUS, BUS_ADRERR, 0, USER | WRITE),
        (&[], DATA, libc::SIGSEGV, SEGV_ACCERR, DATA, USER | PRESENT | FETCH),
        (&[], 0, libc::SIGSEGV, SEGV_MAPERR, 0, USER | FETCH),
        (&[0x8a], TEXT + 4095, libc::SIGSEGV, SEGV_MAPERR, TEXT + 4096, USER | FETCH),
        // Whatever it does, text can be read: it was a write.
        (NOP, TEXT, libc::SIGSEGV, SEGV_ACCERR, TEXT + 8, USER | PRESENT | WRITE),
    ];
    for (code, rip, number, si_code, address, error_code) in table {
        let Meaning::Fault(fault) = meaning(code, rip, signal(number, si_code, address)) else {
            panic!("a fault should come")
        };
        let came = (fault.vector, fault.address, fault.error_code);
        assert_eq!(came, (PAGE_FAULT, Some(Gva(address)), error_code), "{code:x?} at {rip:#x}");
    }
}

#[test]
fn a_call_to_the_vsyscall_page_is_a_page_fault_where_it_was_called_from() {
    let came = meaning(NOP, TEXT, signal(libc::SIGSYS, 1, VSYSCALL.start));
    let (rip, rsp) = (Gva(VSYSCALL.start), Gva(0x7000 - 8));
    let error_code = USER | FETCH;
    let fault = Fault { vector: PAGE_FAULT, error_code, address: Some(rip), rip, rsp };
    assert_eq!(came, Meaning::Fault(fault));
}
