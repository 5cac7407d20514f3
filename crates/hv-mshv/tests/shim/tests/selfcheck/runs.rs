//! What a run comes to.

use std::sync::mpsc;
use std::thread;

use mshv_bindings::*;

use super::Case;
use super::guest::{
    CODE, DATA, Guest, NOWHERE, NOWHERE_GPA, PAGE, READ_ONLY, READ_ONLY_GPA, pages, region,
};

pub(crate) const CASES: &[Case] = &[
    ("an out stands until RIP is moved", out),
    ("instructions of all lengths are stepped over", lengths),
    ("an in stands, and its answer is the backend's", input),
    ("a string access is told as one, and stands", string),
    ("a read of no memory stands, and works once there is some", unmapped_read),
    ("a write to no memory comes again", unmapped_write),
    ("a write to read-only memory is an intercept", read_only),
    ("code that is nowhere is an execute access", unmapped_code),
    ("a halt is a halt", halt),
    ("a triple fault is an unrecoverable exception", triple_fault),
    ("a signal ends a run, and one before it does not", signal),
    ("writes are tracked", dirty),
];

fn kind(message: &hv_message) -> hv_message_type {
    message.header.message_type
}

fn out() {
    let guest = Guest::ring3(&[0xb0, 7, 0xe6, 1, 0xfe, 0xc0, 0xe6, 1]);
    for _ in 0..3 {
        let message = guest.run_to_port();
        let header = message.header;
        assert_eq!(({ header.rip }, header.instruction_length()), (CODE as u64 + 2, 2));
        assert_eq!((header.vp_index, header.intercept_access_type), (0, 1));
        assert_eq!(({ message.rax }, { message.port_number }), (7, 1));
        assert_eq!({ header.cs_segment.selector }, 0x23);
        assert_eq!({ header.rflags } & 2, 2);
        // SAFETY: both fields of the union are the same 16 bits.
        let state = unsafe { header.execution_state.__bindgen_anon_1 };
        assert_eq!((state.cpl(), state.cr0_pe(), state.efer_lma()), (3, 1, 1));
        // SAFETY: both fields of the union are the same 8 bits.
        let info = unsafe { message.access_info.__bindgen_anon_1 };
        assert_eq!((info.access_size(), info.string_op(), info.rep_prefix()), (1, 0, 0));
        assert_eq!(guest.rip(), CODE as u64 + 2, "RIP should stand");
    }
    guest.advance(2);
    let message = guest.run_to_port();
    assert_eq!(({ message.rax }, { message.header.rip }), (8, CODE as u64 + 6));
}

/// Real mode, where an out's operands are of 16 bits.
fn lengths() {
    let code: [&[u8]; 6] =
        [&[0xe6, 1], &[0xe7, 1], &[0x66, 0xe7, 1], &[0xee], &[0xef], &[0x66, 0xef]];
    let guest = Guest::real(&code.concat());
    for (code, size) in code.iter().zip([1, 2, 4, 1, 2, 4]) {
        let message = guest.run_to_port();
        assert_eq!(usize::from(message.header.instruction_length()), code.len(), "{code:x?}");
        assert_eq!({ message.header.rip }, guest.rip());
        // SAFETY: both fields of the union are the same 8 bits.
        let info = unsafe { message.access_info.__bindgen_anon_1 };
        assert_eq!(info.access_size(), size);
        guest.advance(message.header.instruction_length());
    }
}

fn input() {
    // in al, 1; out 2, al
    let guest = Guest::ring3(&[0xe4, 1, 0xe6, 2]);
    let mut regs = guest.vp.get_regs().unwrap();
    regs.rax = 0x1234;
    guest.vp.set_regs(&regs).unwrap();
    for _ in 0..2 {
        let message = guest.run_to_port();
        assert_eq!((message.header.intercept_access_type, { message.rax }), (0, 0x1234));
        assert_eq!(({ message.header.rip }, message.header.instruction_length()), (CODE as u64, 2));
        assert_eq!(guest.vp.get_regs().unwrap().rax, 0x1234, "RAX should stand");
    }
    let mut regs = guest.vp.get_regs().unwrap();
    (regs.rax, regs.rip) = (0x55, regs.rip + 2);
    guest.vp.set_regs(&regs).unwrap();
    let message = guest.run_to_port();
    assert_eq!(({ message.port_number }, { message.rax }), (2, 0x55));
}

fn string() {
    // rep outsb; hlt
    let guest = Guest::real(&[0xf3, 0x6e, 0xf4]);
    let mut regs = guest.vp.get_regs().unwrap();
    (regs.rdx, regs.rcx, regs.rsi) = (0x10, 3, 0x80);
    guest.vp.set_regs(&regs).unwrap();
    for _ in 0..2 {
        let message = guest.run_to_port();
        // SAFETY: both fields of the union are the same 8 bits.
        let info = unsafe { message.access_info.__bindgen_anon_1 };
        assert_eq!((info.string_op(), info.rep_prefix()), (1, 1));
        assert_eq!(({ message.rcx }, { message.rsi }, { message.header.rip }), (3, 0x80, 0));
        assert_eq!(message.header.instruction_length(), 2);
    }
}

fn unmapped_read() {
    // mov rax, [NOWHERE]; out 1, al
    let guest = Guest::ring3(&[0x48, 0x8b, 0x04, 0x25, 0, 0, 0x20, 0, 0xe6, 1]);
    for _ in 0..2 {
        let message = guest.run();
        assert_eq!(kind(&message), hv_message_type_HVMSG_UNMAPPED_GPA);
        let info = message.to_memory_info().unwrap();
        assert_eq!({ info.guest_physical_address }, NOWHERE_GPA);
        assert_eq!((info.header.intercept_access_type, { info.header.rip }), (0, CODE as u64));
        assert_eq!(guest.rip(), CODE as u64);
    }
    let memory = pages(PAGE);
    // SAFETY: it is the start of a page that was just mapped.
    unsafe { memory.write(0x77) };
    guest.vm.map_user_memory(region(memory, NOWHERE_GPA, PAGE, 1)).unwrap();
    assert_eq!({ guest.run_to_port().rax }, 0x77);
}

fn unmapped_write() {
    // mov [NOWHERE], rax; out 1, al
    let guest = Guest::ring3(&[0x48, 0x89, 0x04, 0x25, 0, 0, 0x20, 0, 0xe6, 1]);
    for _ in 0..2 {
        let message = guest.run();
        assert_eq!(kind(&message), hv_message_type_HVMSG_UNMAPPED_GPA);
        let info = message.to_memory_info().unwrap();
        assert_eq!({ info.guest_physical_address }, NOWHERE_GPA);
        assert_eq!(info.header.intercept_access_type, 1);
    }
    let mut regs = guest.vp.get_regs().unwrap();
    (regs.rip, regs.rax) = (CODE as u64 + 8, 3);
    guest.vp.set_regs(&regs).unwrap();
    // KVM has stepped over the write, so this RIP is the one it has already.
    guest.vm.map_user_memory(region(pages(PAGE), NOWHERE_GPA, PAGE, 1)).unwrap();
    assert_eq!({ guest.run_to_port().rax }, 3);
    assert_eq!(NOWHERE, 0x20_0000, "the code has it");
}

fn read_only() {
    // mov al, [READ_ONLY]; mov [READ_ONLY], al
    let code = [0x8a, 0x04, 0x25, 0, 0x10, 0x20, 0, 0x88, 0x04, 0x25, 0, 0x10, 0x20, 0];
    let guest = Guest::ring3(&code);
    let message = guest.run();
    assert_eq!(kind(&message), hv_message_type_HVMSG_GPA_INTERCEPT);
    let info = message.to_memory_info().unwrap();
    assert_eq!(info.header.intercept_access_type, 1);
    assert_eq!({ info.guest_physical_address }, READ_ONLY_GPA);
    assert_eq!(READ_ONLY, 0x20_1000, "the code has it");
}

fn unmapped_code() {
    // mov eax, NOWHERE; jmp rax
    let guest = Guest::ring3(&[0xb8, 0, 0, 0x20, 0, 0xff, 0xe0]);
    let message = guest.run();
    assert_eq!(kind(&message), hv_message_type_HVMSG_UNMAPPED_GPA);
    let info = message.to_memory_info().unwrap();
    assert_eq!((info.header.intercept_access_type, { info.header.rip }), (2, NOWHERE));
    assert_eq!({ info.guest_physical_address }, NOWHERE_GPA);
}

fn halt() {
    let guest = Guest::real(&[0xf4]);
    assert_eq!(kind(&guest.run()), hv_message_type_HVMSG_X64_HALT);
}

fn triple_fault() {
    let guest = Guest::ring3(&[0x0f, 0x0b]);
    let message = guest.run();
    assert_eq!(kind(&message), hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION);
    assert!(message.to_unrecoverable_exception_info().is_ok());
}

extern "C" fn ignore(_: libc::c_int) {}

fn signal() {
    const SIGNAL: libc::c_int = libc::SIGUSR1;
    let action: extern "C" fn(libc::c_int) = ignore;
    // SAFETY: all zero is a sigaction.
    let mut handler: libc::sigaction = unsafe { std::mem::zeroed() };
    handler.sa_sigaction = action as libc::sighandler_t;
    // SAFETY: the handler does nothing; the old one is not asked for.
    assert_eq!(unsafe { libc::sigaction(SIGNAL, &handler, std::ptr::null_mut()) }, 0);
    // jmp to itself
    let guest = Guest::ring3(&[0xeb, 0xfe]);
    let (ready, is_ready) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    // SAFETY: it has no precondition.
    let thread = unsafe { libc::pthread_self() };
    let sender = thread::spawn(move || {
        is_ready.recv().unwrap();
        // It comes before the run or in it; one of them will be in it.
        while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
            // SAFETY: the thread waits for this one below.
            assert_eq!(unsafe { libc::pthread_kill(thread, SIGNAL) }, 0);
            thread::yield_now();
        }
    });
    // SAFETY: it has no precondition; the handler does nothing.
    assert_eq!(unsafe { libc::raise(SIGNAL) }, 0);
    ready.send(()).unwrap();
    let errno = guest.vp.run().map(|_| ()).unwrap_err().errno();
    done.send(()).unwrap();
    sender.join().unwrap();
    assert_eq!(errno, libc::EINTR);
    assert_eq!(guest.rip(), CODE as u64);
    assert_eq!(guest.vp.get_suspend_regs().unwrap().explicit_register, 1);
}

fn dirty() {
    const FIRST: usize = DATA / PAGE;
    const PAGES: usize = 2;
    // loop: mov [DATA + PAGE], al; out 1, al; jmp loop
    let code = [0x88, 0x04, 0x25, 0, 0x20, 0x01, 0, 0xe6, 1, 0xeb, 0xf5];
    let guest = Guest::ring3(&code);
    let vm = &guest.vm;
    let query = |op: u32| {
        let op = u8::try_from(op).unwrap();
        vm.get_dirty_log(FIRST as u64, PAGES * PAGE, op).map(|bitmap| bitmap[0])
    };
    let run = || {
        let len = guest.run_to_port().header.instruction_length();
        guest.advance(len);
    };
    assert!(query(MSHV_GPAP_ACCESS_OP_CLEAR).is_err(), "it is not enabled");
    run();
    vm.enable_dirty_page_tracking().unwrap();
    assert_eq!(query(MSHV_GPAP_ACCESS_OP_CLEAR).unwrap(), 0b11, "all is dirty at first");
    assert_eq!(query(MSHV_GPAP_ACCESS_OP_CLEAR).unwrap(), 0);
    run();
    assert_eq!(query(MSHV_GPAP_ACCESS_OP_CLEAR).unwrap(), 0b10);
    assert_eq!(query(MSHV_GPAP_ACCESS_OP_CLEAR).unwrap(), 0);
    run();
    assert!(vm.disable_dirty_page_tracking().is_err(), "a page is clean");
    assert_eq!(query(MSHV_GPAP_ACCESS_OP_NOOP).unwrap(), 0b10);
    assert_eq!(query(MSHV_GPAP_ACCESS_OP_NOOP).unwrap(), 0b11, "NOOP sets");
    vm.disable_dirty_page_tracking().unwrap();
    vm.enable_dirty_page_tracking().unwrap();
    assert!(vm.get_dirty_log(1 << 20, PAGE, 0).is_err(), "no memory is there");
}
