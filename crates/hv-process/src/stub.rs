//! The program that a child begins as, as bytes: it removes all that the kernel
//! gave it, maps a guest's memory, locks itself in, and removes itself.
//!
//! It is a static ELF file of one read-only segment, above every address that a
//! guest may have. It has no stack, no data and no function: one loop takes system
//! calls from a table. If one fails it stops at an undefined instruction, with RBX
//! at the call, where the tracer finds out which it was.
//!
//! ```text
//!  entry: die with the parent; is that still the host? wait
//!  go:    the same; no core dumps, no large pages, a timer      (table)
//!         unmap all below the stub, unmap all above it
//!         map the guest's memory: text, data, heap, stacks
//!         close all files; no new privileges; the filter
//!         unmap the stub --> page fault at GONE: it is done
//! ```
//!
//! Between `entry` and `go` the tracer takes hold of it. At GONE nothing of the stub
//! is left but a few register values, which a guest's own replace.
//!
//! The filter is the second wall; the first is that a traced child is never let
//! into a system call. It allows the last `munmap` from the stub's one `syscall`
//! instruction, which a guest does not have, and kills for any other. Only for
//! the kernel's vsyscall page, which no program can remove, it makes a signal of the
//! call instead: the tracer sees it and reports a page fault.

use cellule_hv::{AddressSpace, Backing, Gva, Mapping, Protection, space};

/// Where the stub is: above all that a guest can map, below all that the kernel
/// gives a program.
pub(crate) const BASE: u64 = 2 * space::LIMIT;
const _: () = assert!(BASE >= space::LIMIT && BASE < 1 << 40, "in between");

/// The first address that no mapping of a program has: four-level page tables, less
/// a guard page. With five levels nothing lies above either, as nobody asked for it.
const USER_END: u64 = (1 << 47) - space::PAGE_BYTES;

/// How much processor time a child takes from one SIGPROF to the next: see
/// `affinity.rs`.
const TICK_US: u64 = 10_000;

/// What a step of the stub does, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make sure that it dies with the host.
    Bind,
    /// Set limits and a timer.
    Limit,
    /// Remove what the kernel put there.
    Unmap,
    /// Map the guest's memory.
    Map,
    /// Close all files.
    Close,
    /// Install the filter.
    Filter,
    /// Remove itself.
    Vanish,
}

/// The stub for an address space.
#[derive(Debug)]
pub(crate) struct Stub {
    /// The file.
    pub(crate) elf: Vec<u8>,
    /// The steps of the table from `go` on.
    steps: Vec<Step>,
    table: u64,
}

/// What goes wrong if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    /// What the kernel said.
    pub(crate) errno: i32,
}

/// A system call, and what must come back.
#[derive(Debug, Clone, Copy)]
struct Call {
    step: Step,
    number: libc::c_long,
    arguments: [u64; 6],
    /// The result, as far as the mask covers it.
    expected: u64,
    mask: u64,
}

// What the stub's loop reads of a call: nine words.
const CALL_BYTES: u64 = 9 * 8;

/// ELF header and two program headers: ELF-64 Object File Format, version 1.5.
const HEADERS_BYTES: u64 = 64 + 2 * 56;
/// The code begins behind the headers, the table of `entry` behind the code.
const ENTRY: u64 = BASE + HEADERS_BYTES;
/// Where the tracer sends the stub once it has hold of it.
pub(crate) const GO: u64 = ENTRY + 7 + 2;
/// Behind the one `syscall` instruction: where the stub ends.
pub(crate) const GONE: u64 = GO + 7 + LOOP_TO_SYSCALL;
/// From the start of the loop to behind its `syscall`.
const LOOP_TO_SYSCALL: u64 = 3 + 6 * 4 + 2;
const CODE_BYTES: u64 = 7 + 2 + 7 + LOOP_TO_SYSCALL + 4 + 4 + 2 + 4 + 2 + 2;
const DATA: u64 = ENTRY + CODE_BYTES.next_multiple_of(8);

/// The fixed data behind the code: `struct rlimit` of zeros, `struct itimerval`,
/// the name, the filter's `struct sock_fprog` and its instructions.
const NO_LIMIT: u64 = DATA;
const TIMER: u64 = NO_LIMIT + 16;
const NAME: u64 = TIMER + 32;
const PROGRAM: u64 = NAME + 16;
const FILTER: u64 = PROGRAM + 16;
/// How many words must be as they are in the one call that the filter allows.
const MUST: u8 = 8;
const FILTER_LEN: u16 = 2 + 2 * MUST as u16 + 3;
const ENTRY_TABLE: u64 = FILTER + (FILTER_LEN as u64 * 8);
const ENTRY_CALLS: u64 = 4;
const GO_TABLE: u64 = ENTRY_TABLE + ENTRY_CALLS * CALL_BYTES;

/// Descriptors of the child: standard input and output.
const SHARED_FILE: u64 = 0;
const PRIVATE_FILE: u64 = 1;

impl Stub {
    /// Writes the stub for an address space, and a child of the process `host`.
    pub(crate) fn new(space: &AddressSpace, host: u32) -> Self {
        // Bind, limits, two unmaps, the end: the rest is one for each mapping.
        let calls = 14 + space.mappings().len() as u64;
        let len = (GO_TABLE - BASE + calls * CALL_BYTES).next_multiple_of(space::PAGE_BYTES);
        let go = go_calls(space, host, len);
        let mut elf = headers(len);
        elf.extend(code());
        elf.resize(place(DATA), 0);
        elf.extend(data(len));
        debug_assert_eq!(elf.len(), place(ENTRY_TABLE), "the layout is as the constants say");
        for call in entry_calls(host).iter().chain(&go) {
            elf.extend(call.bytes());
        }
        debug_assert!(elf.len() <= place(BASE + len), "the calls were counted");
        elf.resize(place(BASE + len), 0);
        let steps = go.iter().map(|call| call.step).collect();
        Self { elf, steps, table: GO_TABLE }
    }

    /// Tells what went wrong from the registers that the stub stopped with.
    pub(crate) fn failure(&self, rax: u64, rbx: u64) -> Option<Failed> {
        let index = usize::try_from(rbx.checked_sub(self.table)? / CALL_BYTES).ok()?;
        let step = *self.steps.get(index)?;
        let at = place(self.table) + index * place(BASE + CALL_BYTES) + 7 * 8;
        let expected = self.elf.get(at..at + 8)?;
        let expected = u64::from_le_bytes(expected.try_into().ok()?);
        // The loop compares by exclusive or; an error is a small negative number.
        let result = (rax ^ expected).cast_signed();
        Some(Failed { step, errno: i32::try_from(result.checked_neg()?).ok()? })
    }
}

impl Call {
    const fn new(step: Step, number: libc::c_long, arguments: [u64; 6]) -> Self {
        Self { step, number, arguments, expected: 0, mask: u64::MAX }
    }

    /// Whatever comes back.
    const fn any(self) -> Self {
        Self { mask: 0, ..self }
    }

    const fn expecting(self, expected: u64) -> Self {
        Self { expected, ..self }
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + use<> {
        let [a, b, c, d, e, f] = self.arguments;
        let number = self.number.cast_unsigned();
        let words = [number, a, b, c, d, e, f, self.expected, self.mask];
        words.into_iter().flat_map(u64::to_le_bytes)
    }
}

/// Dies with the parent: with the thread that made it, and that lives as long as the
/// process. If the parent was gone before, this one has another.
fn bind(host: u32) -> [Call; 2] {
    let kill = libc::SIGKILL.cast_unsigned().into();
    [
        prctl(Step::Bind, libc::PR_SET_PDEATHSIG, [kill, 0, 0, 0]),
        Call::new(Step::Bind, libc::SYS_getppid, [0; 6]).expecting(host.into()),
    ]
}

fn prctl(step: Step, option: i32, [a, b, c, d]: [u64; 4]) -> Call {
    Call::new(step, libc::SYS_prctl, [option.cast_unsigned().into(), a, b, c, d, 0])
}

/// Waits to be sent elsewhere. No signal ends `pause` but one with a handler.
fn entry_calls(host: u32) -> [Call; 4] {
    const { assert!(ENTRY_CALLS == 4, "the table has room for them") };
    let [die, parent] = bind(host);
    [
        die,
        parent,
        Call::new(Step::Bind, libc::SYS_pause, [0; 6]).any(),
        Call::new(Step::Bind, libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]),
    ]
}

fn go_calls(space: &AddressSpace, host: u32, len: u64) -> Vec<Call> {
    const ITIMER_PROF: u64 = 2;
    const RLIMIT_CORE: u64 = libc::RLIMIT_CORE as u64;
    const SECCOMP_SET_MODE_FILTER: u64 = libc::SECCOMP_SET_MODE_FILTER as u64;
    let end = BASE + len;
    let unmap = |step, start, len| Call::new(step, libc::SYS_munmap, [start, len, 0, 0, 0, 0]);
    let mut calls = bind(host).to_vec();
    calls.extend([
        prctl(Step::Limit, libc::PR_SET_NAME, [NAME, 0, 0, 0]).any(),
        Call::new(Step::Limit, libc::SYS_prlimit64, [0, RLIMIT_CORE, NO_LIMIT, 0, 0, 0]),
        // Memory that is touched here and there stays as small as it is.
        prctl(Step::Limit, libc::PR_SET_THP_DISABLE, [1, 0, 0, 0]).any(),
        Call::new(Step::Limit, libc::SYS_setitimer, [ITIMER_PROF, TIMER, 0, 0, 0, 0]),
        unmap(Step::Unmap, 0, BASE),
        unmap(Step::Unmap, end, USER_END - end),
    ]);
    calls.extend(space.mappings().iter().map(map));
    calls.extend([
        Call::new(Step::Close, libc::SYS_close_range, [0, u32::MAX.into(), 0, 0, 0, 0]),
        prctl(Step::Filter, libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]),
        Call::new(Step::Filter, libc::SYS_seccomp, [SECCOMP_SET_MODE_FILTER, 0, PROGRAM, 0, 0, 0]),
        unmap(Step::Vanish, BASE, len),
        // Never reached.
        Call::new(Step::Vanish, libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]),
    ]);
    calls
}

fn map(mapping: &Mapping) -> Call {
    const FLAGS: i32 = libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
    let Mapping { gva: Gva(gva), len, protection, backing, .. } = *mapping;
    let protection = match protection {
        Protection::Read => libc::PROT_READ,
        Protection::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
        Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    };
    let (file, offset, sharing) = match backing {
        // Sealed: see `cellule_mem`'s mappings of such files.
        Backing::Shared(offset) => (SHARED_FILE, offset, libc::MAP_PRIVATE),
        Backing::Private(offset) => (PRIVATE_FILE, offset, libc::MAP_SHARED),
    };
    let flags = (FLAGS | sharing).cast_unsigned().into();
    let arguments = [gva, len, protection.cast_unsigned().into(), flags, file, offset];
    Call::new(Step::Map, libc::SYS_mmap, arguments).expecting(gva)
}

/// The offset in the file of an address.
fn place(address: u64) -> usize {
    usize::try_from(address - BASE).unwrap_or(usize::MAX)
}

/// An executable for x86-64 with one segment, read and executed, and a stack that is
/// not executed.
fn headers(len: u64) -> Vec<u8> {
    const MACHINE: [u8; 24] =
        [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0];
    let mut bytes = MACHINE.to_vec();
    let words = |bytes: &mut Vec<u8>, words: &[u64]| {
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    let halves = |bytes: &mut Vec<u8>, halves: &[u16]| {
        bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    };
    // Entry, program headers, no section headers, flags; sizes and counts.
    words(&mut bytes, &[ENTRY, 64, 0]);
    halves(&mut bytes, &[0, 0, 64, 56, 2, 64, 0, 0]);
    const LOAD_READ_EXECUTE: u64 = 1 | 5 << 32;
    const STACK_READ_WRITE: u64 = 0x6474_e551 | 6 << 32;
    words(&mut bytes, &[LOAD_READ_EXECUTE, 0, BASE, BASE, len, len, space::PAGE_BYTES]);
    words(&mut bytes, &[STACK_READ_WRITE, 0, 0, 0, 0, 0, 16]);
    bytes
}

/// The loop. Encodings are from the Intel SDM, volume 2.
fn code() -> Vec<u8> {
    // lea rbx, [rip + distance]
    let lea = |at: u64, table: u64| {
        let distance = u32::try_from(table - (at + 7)).unwrap_or(0);
        [&[0x48, 0x8d, 0x1d], &distance.to_le_bytes()[..]].concat()
    };
    [
        &lea(ENTRY, ENTRY_TABLE)[..],
        &[0xeb, 0x07], // jmp loop
        &lea(GO, GO_TABLE),
        &[0x48, 0x8b, 0x03],       // loop: mov rax, [rbx]
        &[0x48, 0x8b, 0x7b, 0x08], // mov rdi, [rbx + 8]
        &[0x48, 0x8b, 0x73, 0x10], // mov rsi, [rbx + 16]
        &[0x48, 0x8b, 0x53, 0x18], // mov rdx, [rbx + 24]
        &[0x4c, 0x8b, 0x53, 0x20], // mov r10, [rbx + 32]
        &[0x4c, 0x8b, 0x43, 0x28], // mov r8, [rbx + 40]
        &[0x4c, 0x8b, 0x4b, 0x30], // mov r9, [rbx + 48]
        &[0x0f, 0x05],             // syscall
        &[0x48, 0x33, 0x43, 0x38], // xor rax, [rbx + 56]
        &[0x48, 0x85, 0x43, 0x40], // test [rbx + 64], rax
        &[0x75, 0x06],             // jne bad
        &[0x48, 0x83, 0xc3, 0x48], // add rbx, 72
        &[0xeb, 0xd3],             // jmp loop
        &[0x0f, 0x0b],             // bad: ud2
    ]
    .concat()
}

fn data(len: u64) -> Vec<u8> {
    const COMM: &[u8; 16] = b"cellule-guest\0\0\0";
    let mut bytes = vec![0; 16];
    bytes.extend([0, TICK_US, 0, TICK_US].into_iter().flat_map(u64::to_le_bytes));
    bytes.extend_from_slice(COMM);
    bytes.extend(u64::from(FILTER_LEN).to_le_bytes());
    bytes.extend(FILTER.to_le_bytes());
    for (code, if_true, if_false, constant) in filter(len) {
        bytes.extend(code.to_le_bytes());
        bytes.extend([if_true, if_false]);
        bytes.extend(constant.to_le_bytes());
    }
    bytes
}

/// `struct sock_filter`: what to do, how many to skip if it is true, if not, a number.
type Instruction = (u16, u8, u8, u32);

/// The filter on `struct seccomp_data`: seccomp(2).
fn filter(len: u64) -> Vec<Instruction> {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const RIP: u32 = 8;
    const ARGUMENTS: u32 = 16;
    const X86_64: u32 = 0xc000_003e;
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let number = low(libc::SYS_munmap.cast_unsigned());
    // The vsyscall page is in the last 4 GiB.
    let mut program = vec![(LOAD, 0, 0, RIP + 4), (EQUAL, 2 * MUST + 2, 0, u32::MAX)];
    let words = [(RIP, GONE), (ARGUMENTS, BASE), (ARGUMENTS + 8, len)];
    let halves =
        words.into_iter().flat_map(|(at, word)| [(at, low(word)), (at + 4, low(word >> 32))]);
    let must = halves.chain([(ARCH, X86_64), (NUMBER, number)]);
    for (left, (at, value)) in (0..MUST).rev().zip(must) {
        program.extend([(LOAD, 0, 0, at), (EQUAL, 0, 2 * left + 1, value)]);
    }
    let ends = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_TRAP];
    program.extend(ends.map(|end| (RETURN, 0, 0, end)));
    program
}

#[cfg(test)]
mod tests;
